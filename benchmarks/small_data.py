"""The recipe for few slices on public data: what its parts are worth, and the starter model of the package.

First the data: the head of a folder of DICOM, cut at 10 degrees, every third cut slice with all its segments held out,
and 512 phantoms with 2,000 fresh ones held out.

  python benchmarks/small_data.py data --scans=ge_head --output=few

Then runs of the laptop's size, which go on where they were; the reports of those that are done make a table:

  python benchmarks/small_data.py run --data=few/bone --output=runs/few
  python benchmarks/small_data.py run --data=few/bone --output=runs/few --without penalties augmentation --seed=1
  python benchmarks/small_data.py run --data=few/phantom --output=runs/few --batch_std=8
  python benchmarks/small_data.py run --data=few/bone --output=runs/few --published
  python benchmarks/small_data.py table --output=runs/few

The starter model is a longer run of the same, without its discriminator:

  python benchmarks/small_data.py starter --data=few/bone --output=runs/starter
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np

import skullgan_jax
from skullgan_jax.data import phantom

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
PARTS = {  # name: the flags that take it away
    "penalties": ("recipe.gamma=0", "recipe.gamma_end=0"),
    "augmentation": ("recipe.mirror=0", "recipe.shift=0", "recipe.grain=0"),
    "floor": ("recipe.floor=0",),
    "air": ("recipe.air=0",),
    "falling penalties": ("recipe.gamma_end=2",),
    "averaging": ("recipe.average_images=1e-3",),
}
STARTER = ("checkpoint_every=25", "sample_every=50", "recipe.air=0")  # that of the package is older than `air`
STARTER_EPOCHS = (500, 800, 1250)  # 8,000, 12,800 and 20,000 steps, each with the rate and the penalty of such a run
CARD = """\
# Model card: the starter model

A small generator to try the software with: `skullgan_jax.load("starter")`, `--model=starter`,
`--config.pretrained=starter`. It knows **one head**, of one scanner and kernel, so it says nothing of how skulls differ
from person to person: for results train on heads of your own, or convert the published weights.

Trained by `python benchmarks/small_data.py starter` on segments of a public CT of a head (C. Rorden, BSD 2-Clause
License, LICENSE beside this), cut at 10 degrees; every third cut slice was held out, and what is said below is said
against those. They lie between the slices that it was trained on, in the same head: memorisation is judged by slice,
not by head.

"""


def call(command: str, **flags) -> None:
    """A command of this project, e.g. `call("prepare", input="head")`."""
    words = [f"--{name}={value}" for name, value in flags.items()]
    subprocess.run([sys.executable, "-m", f"skullgan_jax.{command}", *words], check=True)


def data(flags) -> None:
    """Write OUTPUT/bone and OUTPUT/phantom, each with train.npy and held_out.npy."""
    cut = flags.output / "cut"
    call("prepare", input=flags.scans, output=cut, format="npy")
    images, rows = np.load(cut / "train.npy"), json.loads((cut / "segments.json").read_text())["train"]
    slices = np.array([row["slice"] for row in rows])
    held = np.isin(slices, np.unique(slices)[1::3])
    sets = {
        "bone": (images[~held], images[held]),
        "phantom": (phantom.segments(512), phantom.segments(2000, start=512)),
    }
    for name, parts in sets.items():
        (flags.output / name).mkdir()
        for part, hu in zip(("train", "held_out"), parts, strict=True):
            np.save(flags.output / name / f"{part}.npy", hu)
            print(f"{flags.output / name / part}.npy: {len(hu)} segments")


def train(data: pathlib.Path, workdir: pathlib.Path, *flags: str, config: str = "small_data.py:demo") -> None:
    """A run, whose checkpoints are judged by 128 samples."""
    given = dict(flag.split("=", 1) for flag in (f"data.path={data / 'train.npy'}", "judge_slices=128", *flags))
    call("main", config=CONFIGS / config, workdir=workdir, **{f"config.{name}": value for name, value in given.items()})


def report(data: pathlib.Path, workdir: pathlib.Path, **flags) -> None:
    """The report on the slices that a run left, beside them."""
    sets = {"real": data / "held_out.npy", "fake": workdir / "slices.npy", "train": data / "train.npy"}
    call("evaluate", **sets, **flags, output=workdir / "report")


def run(flags) -> None:
    """One run, its workdir named by data, parts that are left out, epochs and seed."""
    epochs = flags.epochs or (200 if flags.data.name == "bone" else 100)
    left_out = [flag for part in flags.without for flag in PARTS[part]]
    told = [f"recipe.batch_std={flags.batch_std}"] if flags.batch_std else []
    kind = ["published"] if flags.published else [f"without {part}" for part in flags.without]
    kind += [f"batch std {flags.batch_std}"] if told else []
    name = " ".join([flags.data.name, *kind, f"{epochs} epochs, seed {flags.seed}"])
    config = "skull.py:demo" if flags.published else "small_data.py:demo"
    workdir = flags.output / name.replace(" ", "_")
    train(flags.data, workdir, f"epochs={epochs}", f"seed={flags.seed}", *left_out, *told, config=config)
    report(flags.data, workdir)


def table(flags) -> None:
    """What the reports say, in Markdown."""
    print("| run | steps | KID, best / last | recall / coverage | spectrum, RMS | linear / trained network | passes |")
    print("|---|---|---|---|---|---|---|")
    for path in sorted(flags.output.glob("*/report/metrics.json")):
        found, workdir = json.loads(path.read_text()), path.parents[1]
        judged = [r for r in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()) if "kid" in r]
        tests = {name: test["fake"]["value"] for name, test in found["tests"].items()}
        looks = [line["passes"] for line in found["verdict"]["lines"]]
        kid = found["fidelity"]["fake"]["kid"], judged[-1]["kid"] / min(r["kid"] for r in judged)
        print(
            f"| {workdir.name} | {judged[-1]['step']} | {kid[0]:.2f}, last {kid[1]:.2f} x | "
            f"{1 - tests['recall']:.0%} / {1 - tests['coverage']:.0%} | {tests['spectrum']:.1f} dB | "
            f"{found['two_sample']['fake']['value']:.0%} / {found['classifier']['fake']['value']:.0%} | "
            f"{sum(looks)} of {len(looks)} |"
        )


def starter(flags) -> None:
    """Train it, report on it, and write it to OUTPUT/starter, as it lies in skullgan_jax/model/starter."""
    workdir, made = flags.output / "run", flags.output / "starter"
    for epochs in STARTER_EPOCHS:
        train(flags.data, workdir, f"epochs={epochs}", *STARTER)
    trained = skullgan_jax.load(workdir)
    tracked = {"generator": trained.batches_tracked["generator"]}
    alone = dataclasses.replace(trained, d_params=None, d_stats=None, batches_tracked=tracked, folder=None)
    alone.save(made)
    report(flags.data, workdir, model=made)
    card = (workdir / "report" / "model_card.md").read_text()
    (made / "MODEL_CARD.md").write_text(CARD + card[card.index("\n## ") + 1 :])


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for command in (data, run, table, starter):
        sub = commands.add_parser(command.__name__, help=command.__doc__)
        sub.set_defaults(command=command)
        sub.add_argument("--output", type=pathlib.Path, required=True)
        if command is data:
            sub.add_argument("--scans", required=True, help="a head: a folder of DICOM")
        if command in (run, starter):
            sub.add_argument("--data", type=pathlib.Path, required=True, help="a folder with train.npy, held_out.npy")
        if command is run:
            sub.add_argument("--without", nargs="*", default=[], choices=PARTS, help="parts to leave out")
            sub.add_argument("--batch_std", type=int, default=0, help="numbers that tell D how much a batch differs")
            sub.add_argument("--published", action="store_true", help="the published recipe in place of this one")
            sub.add_argument("--epochs", type=int, help="default 200 for bone, 100 for phantoms: 3,200 steps")
            sub.add_argument("--seed", type=int, default=111)
    return parser.parse_args()


if __name__ == "__main__":
    flags = parsed()
    flags.command(flags)
