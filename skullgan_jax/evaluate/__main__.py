r"""Judge synthetic slices against real ones: one report, metrics.json, and the figures as files.

  python -m skullgan_jax.evaluate --real=held_out.npy --fake=skulls.npy --output=report/
  python -m skullgan_jax.evaluate --real=data/skulls --fake=skulls.npy --output=report/ \
    --train=data/skulls --model=runs/skull

Sets are .npy or .npz of (N, 128, 128) HU, folders from prepare (--real reads its held-out split, --train its training
split), or sample stores. Look at report/report.html first. All of them, and the report, may lie in a bucket, gs://...

A visual Turing test for radiologists, one file that needs no network, and then what their answers say:

  python -m skullgan_jax.evaluate --real=held_out.npy --fake=skulls.npy --output=report/ --turing
  python -m skullgan_jax.evaluate --turing_results a.json b.json --output=report/
"""

from skullgan_jax.machine import signals

if __name__ == "__main__":
    signals.hold()  # what follows takes a while

import contextlib
import csv
import json
import os
import pathlib
from collections.abc import Iterator

from skullgan_jax.command.flags import Parser, refusing, typed
from skullgan_jax.command.progress import say
from skullgan_jax.errors import InputError, by_cause
from skullgan_jax.machine import files, places
from skullgan_jax.machine.extras import need
from skullgan_jax.processes import lock
from skullgan_jax.slices.size import PIXEL_MM

_OURS = ("figures", "metrics.json", "radiology.csv", "report.html", "model_card.md")
_KEY = "turing.key.json"


def _flags() -> Parser:
    parser = Parser(__doc__, prog="python -m skullgan_jax.evaluate")
    parser.add_argument("--real", metavar="PATH", help="slices that the generator was not trained on")
    parser.add_argument("--fake", metavar="PATH", help="its samples")
    parser.add_argument("--output", metavar="DIR", help="the folder to write to, or gs://")
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
    with refusing("interrupted; nothing was written"), _reading(flags):
        _run(flags)


@contextlib.contextmanager
def _reading(flags):
    """Say what cannot be read, where whoever reads did not."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        named = error.filename or f"a file of --real={flags.real} or --fake={flags.fake}"
        reason = error.strerror or error
        raise by_cause(error, f"{named}: cannot be read ({reason}); see to its rights and its disk") from None


@contextlib.contextmanager
def _writing(output: places.Place):
    """For the length of the block, be the only one that writes to the output, and say of it what cannot be written.

    What is to be in a bucket is sent at its end.
    """
    with lock.only_writer(output):
        try:
            yield
            output.sync()
        except BrokenPipeError:
            raise
        except OSError as error:
            reason = error.strerror or error
            fix = "free some space, or give another folder"
            raise by_cause(error, f"--output={output}: cannot be written ({reason}); {fix}") from None


def _run(flags) -> None:
    if flags.turing_results:
        return _score(flags)
    for name in ("real", "fake", "output"):
        if not getattr(flags, name):
            raise InputError(f"--{name} is missing; see --help")
    if flags.num < 2:
        raise InputError(f"--num={flags.num}: give a number of 2 or more")
    if not 0 <= flags.seed < 1 << 31:  # twice as many are drawn of, and map and classifiers take 32 bits
        raise InputError(f"--seed={flags.seed}: give one from 0 to 2147483647")
    if flags.pixel_mm is not None and not 0 < flags.pixel_mm < 100:
        raise InputError(f"--pixel_mm={flags.pixel_mm}: give the edge of a pixel in mm")
    with places.opened(flags.output) as output:
        if output.local.exists() and not output.local.is_dir():
            raise InputError(f"--output={output}: is a file; give a folder")
        _judge(flags, output)


def _judge(flags, output: places.Place) -> None:
    from skullgan_jax.evaluate import inputs

    most = None if flags.turing else flags.num
    real = inputs.open_set(flags.real, split="held_out", most=most, pixel_mm=flags.pixel_mm)
    fake = inputs.open_set(flags.fake, split="held_out", most=most, pixel_mm=flags.pixel_mm)
    inputs.check_pair(real, fake)
    if flags.turing:
        from skullgan_jax.evaluate.turing.page import write_page

        page = output.local / "turing.html"
        with _writing(output):
            output.bring(page.name, _KEY)
            write_page(page, real.hu, fake.hu, pixel_mm=real.pixel_mm, num=flags.turing_num, seed=flags.seed)
        return say(f"wrote {output}/{page.name} for the readers, and {output}/{_KEY}, which is not for them")
    _evaluate(flags, output, real, fake)


def _evaluate(flags, output: places.Place, real, fake) -> None:
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
    ours = [*(name for name in _OURS if name != "figures"), *(f"figures/{name}.png" for name in figures.NAMES)]
    # Entered now, lest it fail after minutes.
    with _writing(output), _replacing(output, ours) as partial:
        with _reading(flags):
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
        (partial / "figures").mkdir(parents=True)
        drawn = figures.draw(partial / "figures", metrics, arrays, flags.seed)
        text = json.dumps(metrics, indent=1, allow_nan=False) + "\n"
        (partial / "metrics.json").write_text(text, encoding="utf-8")
        _write_table(partial / "radiology.csv", arrays["radiology"])
        report.write(partial / "report.html", metrics, drawn)
        if model is not None:
            (partial / "model_card.md").write_text(card.markdown(model, metrics), encoding="utf-8")
    for line in metrics["notes"]:
        say(f"note: {line}")
    say(f"{metrics['verdict']['headline']}. Look at {output}/report.html")


@contextlib.contextmanager
def _replacing(output: places.Place, ours: list[str]) -> Iterator[pathlib.Path]:
    """A folder for the report, which takes the place of the last one at the end of the block."""
    output.bring(*(name for name in _OURS if name != "figures"), "figures/")
    _refuse_others(output)
    with files.whole(output.local, ours=ours) as partial:
        yield partial


def _refuse_others(output: places.Place) -> None:
    """Refuse a folder in which something else has the names of a report."""
    there = [name for name in _OURS if os.path.lexists(output.local / name)]
    if not there or output.unfinished("metrics.json"):
        return
    try:
        said, _ = output.read("metrics.json")
        metrics = json.loads(said or b"")
    except (OSError, ValueError, RecursionError):
        metrics = None
    if not (isinstance(metrics, dict) and {"sets", "verdict"} <= metrics.keys()):
        raise InputError(
            f"--output={output}: holds {', '.join(there)} and no report that they are of, which would go; give another "
            "folder"
        )


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
    with places.opened(flags.output or ".") as output:
        if not flags.turing_key:
            output.bring(_KEY)
        result = score.score(flags.turing_results, flags.turing_key or output.local / _KEY)
        print(score.report(result))
        if flags.output:
            with _writing(output):
                files.write_json(output.local / "turing.json", result)
            say(f"wrote {output}/turing.json")


if __name__ == "__main__":
    typed(run)
