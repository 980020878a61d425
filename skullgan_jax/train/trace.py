"""What happens in a few steps, for TensorBoard and Perfetto."""

import pathlib

import jax

from skullgan_jax.command.progress import say

_TRACED = 5  # steps


class Tracer:
    """Traces a few steps once the first have passed."""

    def __init__(self, folder: pathlib.Path, start: int):
        self._folder, self._first, self._last = folder, start + 3, start + 3 + _TRACED
        self._tracing = False

    def __call__(self, step: int, value) -> None:
        """Of the step that makes `step` steps done; value is one of its results."""
        if step not in (self._first, self._last):
            return
        value.block_until_ready()
        if step == self._first:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._tracing = True
        else:
            self.close()
            say(f"traced steps {self._first + 1} to {step} into {self._folder}; docs/scaling.md says how to look at it")

    def close(self) -> None:
        """Write what is traced so far."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
