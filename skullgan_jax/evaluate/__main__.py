r"""Judge synthetic slices against real ones: one report, metrics.json, and the figures as files.

  python -m skullgan_jax.evaluate --real=held_out.npy --fake=skulls.npy --output=report/
  python -m skullgan_jax.evaluate --real=data/skulls --fake=skulls.npy --output=report/ \
    --train=data/skulls --model=runs/skull

Sets are .npy or .npz of (N, 128, 128) HU, folders from prepare (--real reads its held-out split, --train its training
split), or sample stores. Look at report/report.html first.

A visual Turing test for radiologists, one file that needs no network, and then what their answers say:

  python -m skullgan_jax.evaluate --real=held_out.npy --fake=skulls.npy --output=report/ --turing
  python -m skullgan_jax.evaluate --turing_results a.json b.json --output=report/
"""

from skullgan_jax.machine import signals

if __name__ == "__main__":
    signals.hold()  # what follows takes a while

import csv
import json
import os
import pathlib
import shutil

from skullgan_jax.command.flags import Parser, refusing, typed
from skullgan_jax.command.progress import say
from skullgan_jax.errors import InputError
from skullgan_jax.machine import files
from skullgan_jax.machine.extras import need
from skullgan_jax.slices.size import PIXEL_MM


def _flags() -> Parser:
    parser = Parser(__doc__, prog="python -m skullgan_jax.evaluate")
    parser.add_argument("--real", metavar="PATH", help="slices that the generator was not trained on")
    parser.add_argument("--fake", metavar="PATH", help="its samples")
    parser.add_argument("--output", metavar="DIR", help="the folder to write to")
    parser.add_argument(
        "--model", metavar="DIR", help="the model: its discriminator is asked, and a model card written"
    )
    parser.add_argument("--train", metavar="PATH", help="what it was trained on: are training slices repeated?")
    parser.add_argument("--pixel_mm", type=float, help=f"of arrays that do not state it (default {PIXEL_MM})")
    parser.add_argument(
        "--num", type=int, default=2000, help="at most so many reals and fakes, evenly spread (default %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of halves, bootstrap, classifiers, map (default %(default)s)"
    )
    parser.add_argument("--fid", action="store_true", help="FID too, with torch-fidelity; takes 2048 slices of each")
    parser.add_argument("--fid_weights", metavar="PTH", help="torch-fidelity's Inception (default: it downloads it)")
    parser.add_argument("--turing", action="store_true", help="write a visual Turing test, and nothing else")
    parser.add_argument(
        "--turing_num", type=int, default=100, help="images in it, half of them real (default %(default)s)"
    )
    parser.add_argument("--turing_results", nargs="+", metavar="JSON", help="score the files that readers saved")
    parser.add_argument("--turing_key", metavar="JSON", help="of the test (default: <output>/turing.key.json)")
    return parser


def run(argv: list[str] | None = None) -> None:
    """The command; argv, without the program's name, defaults to that of the process."""
    flags = _flags().parse_args(argv)
    with refusing("interrupted; nothing was written"):
        try:
            _run(flags)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"--output={flags.output}: cannot be written ({reason}); give another folder") from None


def _run(flags) -> None:
    if flags.turing_results:
        return _score(flags)
    for name in ("real", "fake", "output"):
        if not getattr(flags, name):
            raise InputError(f"--{name} is missing; see --help")
    if flags.num < 2 or flags.seed < 0:
        raise InputError(f"--num={flags.num} --seed={flags.seed}: give a number of 2 or more, and a seed of 0 or more")
    if flags.pixel_mm is not None and not 0 < flags.pixel_mm < 100:
        raise InputError(f"--pixel_mm={flags.pixel_mm}: give the edge of a pixel in mm")
    output = pathlib.Path(flags.output)
    if output.exists() and not output.is_dir():
        raise InputError(f"--output={output}: is a file; give a folder")

    from skullgan_jax.evaluate import inputs

    most = None if flags.turing else flags.num
    real = inputs.open_set(flags.real, split="held_out", most=most, pixel_mm=flags.pixel_mm)
    fake = inputs.open_set(flags.fake, split="held_out", most=most, pixel_mm=flags.pixel_mm)
    inputs.check_pair(real, fake)
    if flags.turing:
        from skullgan_jax.evaluate.turing.page import write_page

        key = write_page(
            output / "turing.html", real.hu, fake.hu, pixel_mm=real.pixel_mm, num=flags.turing_num, seed=flags.seed
        )
        return say(f"wrote {output / 'turing.html'} for the readers, and {key}, which is not for them")
    _evaluate(flags, output, real, fake)


def _evaluate(flags, output: pathlib.Path, real, fake) -> None:
    for module in ("matplotlib", "sklearn"):  # before the minutes that end in them
        need(module)
    from skullgan_jax.evaluate import inputs, judge
    from skullgan_jax.evaluate.report import card, figures
    from skullgan_jax.evaluate.report import page as report

    train, model = None, None
    if flags.train:
        train = inputs.open_set(flags.train, split="train", most=None, pixel_mm=flags.pixel_mm)
        inputs.check_pair(real, train)
    if flags.model:
        from skullgan_jax.model.load import load

        model = load(flags.model)
        name = pathlib.Path(flags.model).name
        inputs.check_pair(real, inputs.Slices(name, None, 0, model.pixel_mm, True))
    metrics, arrays = judge.evaluate(
        real,
        fake,
        model=model,
        train=train,
        seed=flags.seed,
        with_fid=flags.fid,
        fid_weights=flags.fid_weights,
        say=say,
    )
    beside = output.with_name(output.name + ".tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        (beside / "figures").mkdir(parents=True)
        drawn = figures.draw(beside / "figures", metrics, arrays, flags.seed)
        (beside / "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n")
        _write_table(beside / "radiology.csv", arrays["radiology"])
        report.write(beside / "report.html", metrics, drawn)
        if model is not None:
            (beside / "model_card.md").write_text(card.markdown(model, metrics), encoding="utf-8")
        output.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(output / "figures", ignore_errors=True)
        for path in sorted(beside.iterdir()):  # into what is there: a Turing test's key has to stay
            os.replace(path, output / path.name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    for line in metrics["notes"]:
        say(f"note: {line}")
    say(f"{metrics['verdict']['headline']}. Look at {output / 'report.html'}")


def _write_table(path: pathlib.Path, measured: dict) -> None:
    """SDR, thickness and the others of every slice that was looked at, in its order."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        for i, (name, columns) in enumerate(measured.items()):
            if not i:
                rows.writerow(["set", *columns])
            rows.writerows([name, *(f"{x:.6g}" for x in row)] for row in zip(*columns.values(), strict=True))


def _score(flags) -> None:
    from skullgan_jax.evaluate.turing import score

    if not (flags.turing_key or flags.output):
        raise InputError("--turing_results needs --turing_key, or the --output that the test was written to")
    key = flags.turing_key or pathlib.Path(flags.output, "turing.key.json")
    result = score.score(flags.turing_results, key)
    print(score.report(result))
    if flags.output:
        output = pathlib.Path(flags.output)
        output.mkdir(parents=True, exist_ok=True)
        files.write_json(output / "turing.json", result)
        say(f"wrote {output / 'turing.json'}")


if __name__ == "__main__":
    typed(run)
