"""Records, lines and pictures of a run, given by hand."""

import json
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from skullgan_jax.slices.calibration import Calibration
from skullgan_jax.train import monitor
from skullgan_jax.train.recipe import Relativistic

NAMES = ("loss_d", "loss_g", "d_real", "d_fake", "lr_d", "lr_g", "grad_d", "grad_g", "open_d", "open_g")


JUDGED = {"kid": 0.25, "coverage": 0.75, "spread": 0.5, "swd": 7.25}


def values(**changed):
    return {name: jnp.float32(changed.get(name, 0.5)) for name in NAMES}


def make(workdir, **changed):
    settings = {"start_step": 0, "total_steps": 12, "steps_per_epoch": 4, "batch_size": 4, "log_every": 2}
    return monitor.Monitor(workdir, **settings | changed)


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_record_is_the_mean_over_its_steps(tmp_path, capfd):
    watch = make(tmp_path)
    for step in range(1, 6):
        watch.step(step, values(loss_d=step, lr_d=step))
    watch.judged(4, JUDGED)
    watch.flush()
    watch.close()
    found = records(tmp_path)
    steps = [r for r in found if "loss_d" in r]
    assert [r["step"] for r in steps] == [2, 4, 5]
    assert [r["loss_d"] for r in steps] == [1.5, 3.5, 5]
    assert [r["lr_d"] for r in steps] == [2, 4, 5], "a learning rate is the last one"
    assert [r["epoch"] for r in steps] == [0, 0, 1]
    assert all(r["images_per_s"] > 0 for r in steps)
    assert all(set(NAMES) < r.keys() for r in steps)
    assert [r for r in found if "swd" in r] == [{"step": 4, "epoch": 0, **JUDGED, "collapse": 0}]
    said = capfd.readouterr().err.splitlines()
    line = next(line for line in said if line.startswith("epoch"))
    for part in (
        "epoch 1/3",
        "step 2/12",
        "loss D 1.500 G 0.500",
        "D(x) 0.50",
        "D(G(z)) 0.50",
        "lr D 2.0e+00",
        "ETA 0:",
    ):
        assert part in line
    assert " images/s" in line


def test_tensorboard_has_the_same(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    watch = make(tmp_path)
    for step in range(1, 5):
        watch.step(step, values(loss_g=step))
    watch.picture(4, jnp.zeros((4, 128, 128, 1)), Calibration(0, 2000))
    watch.judged(4, JUDGED)
    watch.flush()
    watch.close()
    assert (tmp_path / "samples" / "00000004.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {*NAMES, *JUDGED, "collapse"} < set(events.Tags()["tensors"])
    assert [e.step for e in events.Tensors("loss_g")] == [2, 4]


def test_a_collapse_is_told_with_its_step_once(tmp_path, capfd):
    """Below 0.7 twice running, of which the first time may lie before a resume."""
    for start, spreads in ((0, (0.9, 0.5, 0.8, 0.6)), (4, (0.55, 0.5, 0.75, 0.6))):
        watch = make(tmp_path, start_step=start, remedy=Relativistic().remedy)
        for step, spread in enumerate(spreads, start + 1):
            watch.judged(step, JUDGED | {"spread": spread})
        watch.flush()
        watch.close()
    assert [r["collapse"] for r in records(tmp_path)] == [0, 0, 0, 0, 1, 1, 0, 0]
    said = capfd.readouterr().err.splitlines()
    assert said[1] == "checkpoint of step 2: KID 0.25, coverage 75 %, spread 0.50, SWD 7.25"
    (warning,) = (line for line in said if line.startswith("warning"))
    assert warning.startswith(
        "warning: step 5: the generator has collapsed: at two checkpoints running its samples are 0.60 and 0.55 as far"
    )
    assert warning.endswith("the run goes on; a run with --config.recipe.batch_std=8 may not")
    assert Relativistic(batch_std=8).remedy == ""


def test_a_generator_that_does_not_vary_yet_has_not_collapsed(tmp_path, capfd):
    """In the first tenth of the steps, unless it did before."""
    for total, spreads, expected in (
        (30, (0.1, 0.2, 0.3, 0.4), [0, 0, 0, 1]),
        (90, (0.1, 0.9, 0.3, 0.4), [0, 0, 0, 1]),
    ):
        watch = make(tmp_path / str(total), total_steps=total)
        for step, spread in enumerate(spreads, 1):
            watch.judged(step, JUDGED | {"spread": spread})
        watch.flush()
        watch.close()
        assert [r["collapse"] for r in records(tmp_path / str(total))] == expected
    assert capfd.readouterr().err.count("warning: step 4") == 2


@pytest.mark.parametrize(("start", "kept"), [(0, []), (3, [2]), (4, [2, 4]), (9, [2, 4, 6])])
def test_a_resume_drops_what_comes_after_it(tmp_path, start, kept):
    """And what a kill cut in the middle of a line."""
    lines = [json.dumps({"step": s, "loss_d": 1.0}) for s in (2, 4, 6)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 8, "lo')
    make(tmp_path, start_step=start).close()
    assert [r["step"] for r in records(tmp_path)] == kept


@pytest.mark.parametrize(("name", "value"), [("loss_d", np.nan), ("loss_g", np.inf), ("grad_g", -np.inf)])
def test_not_finite_names_the_step_and_the_value(tmp_path, name, value):
    watch = make(tmp_path)
    for step in range(1, 7):
        watch._queue.put(("step", step, values(**{name: value} if step >= 4 else {})))
    with pytest.raises(monitor.NotFiniteError, match=rf"^step 4: {name}={value}$"):
        watch.flush()
    with pytest.raises(monitor.NotFiniteError, match="step 4"):
        watch.step(7, values())
    watch.close()
    assert max(r["step"] for r in records(tmp_path)) < 4, "nothing that is not finite is written"


def test_nothing_is_drawn_after_what_is_not_finite(tmp_path):
    """And the step before it, of a record that is not full, is in the log."""
    watch = make(tmp_path)
    watch._queue.put(("step", 1, values()))
    watch._queue.put(("step", 2, values(loss_g=np.nan)))
    watch._queue.put(("picture", 2, (jnp.full((4, 128, 128, 1), jnp.nan), Calibration(0, 2000))))
    done = threading.Event()
    watch._queue.put(("check", 0, done))
    assert done.wait(60)
    with pytest.raises(monitor.NotFiniteError, match="step 2"):
        watch.flush()
    watch.close()
    assert [r["step"] for r in records(tmp_path)] == [1]
    assert list((tmp_path / "samples").iterdir()) == []


def test_the_loop_does_not_wait_for_the_device(tmp_path, monkeypatch):
    """Values that take a while to come hold up the writing, not the caller."""
    there = threading.Event()
    monkeypatch.setattr(monitor.jax, "device_get", lambda x: (there.wait(10), {k: 0.5 for k in x})[1])
    watch = make(tmp_path)
    began = time.monotonic()
    for step in range(1, 9):
        watch.step(step, values())
    assert time.monotonic() - began < 5
    assert records(tmp_path) == []
    there.set()
    watch.flush()
    watch.close()
    assert [r["step"] for r in records(tmp_path)] == [2, 4, 6, 8]


def test_an_error_in_writing_comes_back_to_the_loop(tmp_path):
    watch = make(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    watch.step(1, values())
    with pytest.raises(IsADirectoryError):
        watch.flush()
    watch.close()
