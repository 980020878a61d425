"""What the user sees of a run: progress lines, metrics.jsonl, TensorBoard, sample grids, curves.

All of it happens in background threads: one waits for the device in place of the loop that feeds it, one draws.
"""

import json
import pathlib
import queue
import threading
import time
from concurrent import futures

import jax
import numpy as np

from skullgan_jax.command import progress
from skullgan_jax.machine import files

LINE_SECONDS = 5.0  # at most one progress line in this time
COLLAPSED = 0.7  # samples are that much nearer to one another than real slices are, or more: see fidelity.Gram.spread


class NotFiniteError(Exception):
    """A loss or a gradient is NaN or infinite; the message names the step."""


class Monitor:
    """Collects metrics of steps and pictures of samples, and writes them behind the loop's back.

    Args:
      workdir: where metrics.jsonl, samples/ and tensorboard/ go.
      start_step: records from here on are dropped from an earlier metrics.jsonl.
      total_steps: of the run.
      steps_per_epoch: of the run.
      batch_size: for images/s.
      log_every: steps per record, each the mean over them.
      remedy: what is said of a collapse beside: which other run may not.
    """

    def __init__(self, workdir, *, start_step, total_steps, steps_per_epoch, batch_size, log_every, remedy=""):
        self.workdir = pathlib.Path(workdir)
        self.total, self.per_epoch, self.batch, self.every = total_steps, steps_per_epoch, batch_size, log_every
        self.remedy = remedy
        (self.workdir / "samples").mkdir(parents=True, exist_ok=True)
        self._jsonl = self.workdir / "metrics.jsonl"
        kept = [r for r in read_records(self._jsonl) if r["step"] <= start_step]
        files.write_text(self._jsonl, "".join(json.dumps(r) + "\n" for r in kept))
        self._checkpoints = [r for r in kept if "spread" in r]
        from skullgan_jax.machine.tensorflow import import_tensorflow

        self._summary = import_tensorflow().summary
        self._writer = self._summary.create_file_writer(str(self.workdir / "tensorboard"))
        self._window, self._since, self._last_line = [], time.monotonic(), -np.inf
        self._queue = queue.Queue(maxsize=64)
        self._error = None
        self._painter, self._painted = futures.ThreadPoolExecutor(1, "pictures"), None
        self._thread = threading.Thread(target=self._work, name="monitor", daemon=True)
        self._thread.start()

    def step(self, step: int, metrics: dict) -> None:
        """Take the metrics (device scalars) of the step that made `step` steps done. Never waits for the device."""
        self._put(("step", step, metrics))

    def picture(self, step: int, images, calibration) -> None:
        """Write samples/STEP.png of images (B, 128, 128, nc) in [-1, 1] on the device."""
        self._put(("picture", step, (images, calibration)))

    def judged(self, step: int, numbers: dict[str, float]) -> None:
        """Record what a checkpoint was judged by, and raise the alarm where the generator has collapsed.

        That is where `spread` is below COLLAPSED at this checkpoint and at the one before: `collapse` is 1 then. In the
        first tenth of a run, where a generator may not have learned to vary yet, it must have been above before.
        """
        self._put(("judged", step, numbers))

    def check(self) -> None:
        """Return when all numbers given so far are written. Raises NotFiniteError as all methods do."""
        done = threading.Event()
        self._put(("check", 0, done))
        done.wait()
        self._raise()

    def flush(self) -> None:
        """Return when everything given so far is written, pictures, too."""
        self.check()
        if self._painted:
            self._painted.result()
        self._writer.flush()
        self._raise()

    def close(self) -> None:
        self._queue.put(("stop", 0, None))
        self._thread.join()
        self._painter.shutdown()
        self._writer.close()

    def _put(self, item) -> None:
        self._raise()
        self._queue.put(item)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            kind, step, value = self._queue.get()
            if kind == "stop":
                return
            if kind == "check":  # what was good before an error is written all the same
                self._told(self._record)
                self._told(self._writer.flush)
                value.set()
            elif self._error is None:
                self._told(getattr(self, f"_{kind}"), step, value)

    def _told(self, write, *args) -> None:
        """Write; what goes wrong is told to the loop at its next call."""
        try:
            write(*args)
        except Exception as error:
            self._error = self._error or error

    def _step(self, step, metrics) -> None:
        values = {k: float(v) for k, v in jax.device_get(metrics).items()}
        if not np.all(np.isfinite(list(values.values()))):
            bad = ", ".join(f"{k}={v}" for k, v in values.items() if not np.isfinite(v))
            raise NotFiniteError(f"step {step}: {bad}")
        self._window.append((step, values))
        if len(self._window) >= self.every or step == self.total:
            self._record()

    def _record(self) -> None:
        if not self._window:
            return
        now = time.monotonic()
        step = self._window[-1][0]
        values = {k: float(np.mean([v[k] for _, v in self._window])) for k in self._window[0][1]}
        values |= {k: self._window[-1][1][k] for k in ("lr_d", "lr_g")}
        rate = self.batch * len(self._window) / max(now - self._since, 1e-9)
        record = {"step": step, "epoch": (step - 1) // self.per_epoch, **values, "images_per_s": rate}
        self._window, self._since = [], now
        self._write(record)
        if now - self._last_line > LINE_SECONDS or step == self.total:
            self._last_line = now
            progress.write(f"{self._line(record)}\n")

    def _write(self, record) -> None:
        with open(self._jsonl, "a") as f:
            f.write(json.dumps({k: _round(v) for k, v in record.items()}) + "\n")
        with self._writer.as_default(step=record["step"]):
            for name, value in record.items():
                if name != "step":
                    self._summary.scalar(name, value)

    def _line(self, r) -> str:
        eta = (self.total - r["step"]) * self.batch / r["images_per_s"]
        return (
            f"epoch {r['epoch'] + 1}/{self.total // self.per_epoch}  step {r['step']}/{self.total}  "
            f"loss D {r['loss_d']:.3f} G {r['loss_g']:.3f}  D(x) {r['d_real']:.2f}  D(G(z)) {r['d_fake']:.2f}  "
            f"lr D {r['lr_d']:.1e} G {r['lr_g']:.1e}  {r['images_per_s']:.1f} images/s  ETA {progress.duration(eta)}"
        )

    def _judged(self, step, numbers) -> None:
        spreads = [*(r["spread"] for r in self._checkpoints), numbers["spread"]]
        collapse = max(spreads[-2:]) < COLLAPSED and len(spreads) > 1
        collapse &= step > self.total / 10 or max(spreads) >= COLLAPSED
        record = {"step": step, "epoch": (step - 1) // self.per_epoch, **numbers, "collapse": int(collapse)}
        told = any(r["collapse"] for r in self._checkpoints[-1:])
        self._checkpoints.append(record)
        self._write(record)
        progress.say(f"checkpoint of step {step}: {words(numbers)}")
        if collapse and not told:
            progress.say(
                f"warning: step {step}: the generator has collapsed: at two checkpoints running its samples are "
                f"{spreads[-2]:.2f} and {spreads[-1]:.2f} as far from one another as real slices (alarm below "
                f"{COLLAPSED}); the best checkpoint is kept, the run goes on" + (self.remedy and f"; {self.remedy}")
            )

    def _picture(self, step, value) -> None:
        """Have it drawn, when all numbers before it are good, and one at a time."""
        if self._painted:
            self._painted.result()
        self._painted = self._painter.submit(self._told, self._paint, step, *value)

    def _paint(self, step, images, calibration) -> None:
        from skullgan_jax.slices import pictures

        hu = calibration.to_hu(np.asarray(images)[..., 0])
        path = self.workdir / "samples" / f"{step:08d}.png"
        pictures.grid(path, hu, calibration, title=f"epoch {step // self.per_epoch}, step {step}")
        grey = np.clip(np.asarray(images) / 2 + 0.5, 0, 1)
        with self._writer.as_default(step=step):
            self._summary.image("samples", grey, max_outputs=4)


class Silent:
    """The monitor of a process that does not write: one of a job does, and all have the same numbers."""

    def __init__(self, workdir, **_):
        pass

    def step(self, *_) -> None:
        """Nothing."""

    picture = judged = check = flush = close = step


def words(judged: dict[str, float]) -> str:
    """What a checkpoint was judged by, as people read it; those of before have SWD alone."""
    shown = {"kid": "KID {:.3g}", "coverage": "coverage {:.0%}", "spread": "spread {:.2f}", "swd": "SWD {:.3g}"}
    return ", ".join(text.format(judged[name]) for name, text in shown.items() if name in judged).replace("%", " %")


def read_records(path) -> list[dict]:
    """The records of a metrics.jsonl; a last line cut off by a kill is left out."""
    records = []
    if pathlib.Path(path).exists():
        for line in pathlib.Path(path).read_text().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return records


def _round(value):
    return float(f"{value:.6g}") if isinstance(value, float) else value
