"""One field by k-wave-python's NumPy backend: kwave_peer.py CASE.npz OUT.npz; acoustics.py runs it."""

import json
import pathlib
import sys
import time
import urllib.request

import numpy as np

# The import downloads compiled solvers, which this backend does without.
urllib.request.urlretrieve = lambda url, path, *_: pathlib.Path(path).touch()

from kwave.kgrid import kWaveGrid  # noqa: E402
from kwave.kmedium import kWaveMedium  # noqa: E402
from kwave.ksensor import kSensor  # noqa: E402
from kwave.ksource import kSource  # noqa: E402
from kwave.kspaceFirstOrder import kspaceFirstOrder  # noqa: E402

case = np.load(sys.argv[1])
about, shape = json.loads(str(case["about"])), case["c"].shape
grid = kWaveGrid(list(shape), [about["dx"]] * 2)
grid.setTime(about["steps"], about["dt"])
damped = {}
if about["y"] is not None:
    damped = {"alpha_coeff": case["alpha"].astype(float), "alpha_power": about["y"]}
medium = kWaveMedium(sound_speed=case["c"].astype(float), density=case["rho"].astype(float), **damped)
source, sensor = kSource(), kSensor()
source.p_mask = np.zeros(shape)
source.p_mask[tuple(case["source"].T)] = 1  # elements of one row, left to right: in the order of their signals
source.p = case["signals"].T
sensor.mask, sensor.record = np.ones(shape), ["p_max"]
start = time.perf_counter()
out = kspaceFirstOrder(
    grid, medium, source, sensor, pml_size=about["pml"], pml_inside=False, smooth_p0=False, backend="python", quiet=True
)
np.savez(sys.argv[2], p_max=np.reshape(out["p_max"], shape), seconds=time.perf_counter() - start)
