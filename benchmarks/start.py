"""From a new process to 16 slices, part by part: the first time, the second time, and PyTorch's way to the same.

    python benchmarks/start.py                 # the demo's sizes
    python benchmarks/start.py --ngf=256 --ndf=64 --nz=200

Seconds of the clock, and of all cores together in brackets, which other work on the machine changes less. The cache of
compiled programs is one of its own, empty at first. PyTorch builds the generator of benchmarks/torch_peer.py, loads its
weights and draws in eval mode, under no_grad. The three take turns; medians.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
_LAPS = """
import time
t, c = time.perf_counter(), 0.0
def lap(name):
    global t, c
    now, used = time.perf_counter(), time.process_time()
    print(name, now - t, used - c, sep="|", flush=True)
    t, c = now, used
"""
OURS = """
import jax; lap("import jax")
import skullgan_jax; skullgan_jax.load; lap("import skullgan_jax")
model = skullgan_jax.load({model!r}); lap("load")
model.sampler(); lap("compile, or find it")
model.sample(16); lap("16 slices")
"""
TORCH = """
import torch; lap("import torch")
from benchmarks import torch_peer
net = torch_peer.Generator({nc}, {nz}, {ngf}); lap("build")
net.load_state_dict(torch.load({pth!r})); net.eval(); lap("load")
with torch.no_grad(): net(torch.rand(16, {nz}, 1, 1) * 2 - 1)
lap("16 slices")
"""


def once(code: str, cache: str) -> dict[str, tuple[float, float]]:
    """Seconds of the clock and of the cores by part, of a new process."""
    gone = ("JAX_COMPILATION_CACHE_DIR",)
    environment = {k: v for k, v in os.environ.items() if k not in gone} | {"XDG_CACHE_HOME": cache}
    environment["PYTHONPATH"] = f"{environment.get('PYTHONPATH', '')}:{ROOT}"
    command = [sys.executable, "-W", "ignore", "-c", _LAPS + code]
    said = subprocess.run(command, env=environment, text=True, check=True, stdout=subprocess.PIPE).stdout
    parts = {name: (float(wall), float(cores)) for name, wall, cores in (x.split("|") for x in said.splitlines())}
    return parts | {"all": tuple(map(sum, zip(*parts.values(), strict=True)))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("ngf", 16), ("ndf", 16), ("nz", 64), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        code = write(folder, args)
        found = {name: [] for name in ("first", "second", "PyTorch")}
        for turn in range(args.rounds):
            cache = f"{folder}/cache{turn}"
            for name in found:
                found[name].append(once(code[name == "PyTorch"], cache))
    for name, turns in found.items():
        print(name)
        for part in turns[0]:
            wall, cores = (statistics.median(turn[part][i] for turn in turns) for i in range(2))
            print(f"  {part:22}{wall:7.2f} ({cores:.2f})")


def write(folder: str, args) -> tuple[str, str]:
    """A model and a state dict with any weights, and the code that draws from them."""
    import jax
    import torch

    from benchmarks import torch_peer
    from skullgan_jax.model.trained import Model
    from skullgan_jax.nets.pair import Pair, quick_to_compile
    from skullgan_jax.slices.calibration import Calibration

    pair = Pair(nz=args.nz, ngf=args.ngf, ndf=args.ndf)
    weights = jax.device_get(quick_to_compile(lambda: pair.init(0))())
    about = {"provenance": {}, "batches_tracked": {"generator": [1] * 5, "discriminator": [1] * 4}}
    model = Model(pair, *weights, Calibration(0, 2500), 0.46875, **about, standing=weights[1])
    model.save(f"{folder}/model")
    torch.save(torch_peer.Generator(1, args.nz, args.ngf).state_dict(), f"{folder}/netG.pth")
    told = {"model": f"{folder}/model", "pth": f"{folder}/netG.pth", "nc": 1, "nz": args.nz, "ngf": args.ngf}
    return OURS.format(**told), TORCH.format(**told)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
