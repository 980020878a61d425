"""The tf.data input: batches as a function of (seed, step) and nothing else.

TensorFlow is imported inside functions: it takes seconds, and only what trains needs it.
"""

import functools
import weakref
import zlib
from collections.abc import Iterator

import numpy as np

from skullgan_jax.errors import InputError
from skullgan_jax.machine.tensorflow import import_tensorflow
from skullgan_jax.slices.calibration import Calibration

_BLOCK = 64  # slices per stream and call: 4 MiB


def order(num: int, seed: int, stream: str, epoch: int) -> np.ndarray:
    """A permutation of range(num), (num,) intp: a function of its arguments on any machine.

    It sorts raw Philox bits, which numpy promises never to change (NEP 19); `Generator.permutation` it may.
    """
    bits = np.random.Philox([seed, zlib.crc32(stream.encode()), epoch])
    return np.argsort(bits.random_raw(num), kind="stable")


def num_steps_per_epoch(num: int, batch_size: int) -> int:
    """Whole batches in `num` slices; the rest is left out, another rest each epoch.

    Raises:
      InputError: the batch is larger than the data, or smaller than 1.
    """
    if batch_size < 1:
        raise InputError(f"config.batch_size is {batch_size}: give 1 or more")
    if num < batch_size:
        raise InputError(f"{num} slices do not fill one batch of {batch_size}: lower config.batch_size")
    return num // batch_size


def batches(
    images,
    calibration: Calibration,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_steps: int,
    process_index: int = 0,
    process_count: int = 1,
    streams: tuple[str, ...] = ("real", "blur"),
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of steps start_step .. num_steps - 1, shuffled over the whole data anew in every epoch.

    A batch depends on (images, batch_size, seed, step) alone, so a run that resumes at step k sees exactly
    what it would have seen, and P processes together see what one would.

    Args:
      images: (N, 128, 128) HU, any real dtype; random access, so memory-mapped is fine.
      calibration: the HU of -1 and +1.
      batch_size: slices in the global batch.
      seed: of the shuffling, 0 or more.
      start_step: the first step, 0-based.
      num_steps: the steps of the whole run, those before start_step included.
      process_index: p of P; it gets rows [p b, (p + 1) b) of the global batch, b = batch_size / P.
      process_count: P.
      streams: what a batch has; each is an independent draw of the slices.

    Returns:
      An iterator of dicts of the streams: float32 (b, 128, 128, 1) in [-1, 1], read-only; `blur` is for the published
      step to blur.

    Raises:
      InputError: fewer slices than a batch, or a batch that P does not divide.
    """
    num = len(images)
    steps_per_epoch = num_steps_per_epoch(num, batch_size)
    if batch_size % process_count:
        raise InputError(f"config.batch_size {batch_size} does not divide over {process_count} processes")
    local = batch_size // process_count
    if isinstance(images, np.memmap):
        images = images.view(np.ndarray)  # each index into a memmap costs Python time for the subclass
    epoch_order = functools.lru_cache(maxsize=4)(functools.partial(order, num, seed))

    def rows(stream: str, step: int) -> np.ndarray:
        epoch, position = divmod(step, steps_per_epoch)
        first = position * batch_size + process_index * local
        return epoch_order(stream, epoch)[first : first + local]

    # A call into Python from tf.data costs as much as 16 slices do, so one call serves several steps.
    block = max(1, _BLOCK // local)

    def gather(step: np.int64) -> list[np.ndarray]:
        steps = range(step, min(step + block, num_steps))
        chosen = (np.stack([rows(stream, t) for t in steps]) for stream in streams)
        return [calibration.to_unit(images[c])[..., None] for c in chosen]  # each (steps, b, 128, 128, 1)

    tf = import_tensorflow()
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 2  # on a laptop the cores belong to XLA
    options.threading.max_intra_op_parallelism = 1
    load = functools.partial(tf.numpy_function, gather, Tout=[tf.float32] * len(streams))
    blocks = tf.data.Dataset.range(start_step, num_steps, block).with_options(options)
    blocks = blocks.map(lambda step: load([step]), num_parallel_calls=2, deterministic=True).prefetch(2)

    # The threads of tf.data must be gone before the interpreter is, or the process hangs at its end. So this
    # list holds the only reference to their iterator, and is emptied when the batches are dropped or at exit.
    source = [blocks.as_numpy_iterator()]

    def split() -> Iterator[dict[str, np.ndarray]]:
        while source and (block := next(source[0], None)):
            for drawn in zip(*block, strict=True):
                yield dict(zip(streams, drawn, strict=True))

    iterator = split()
    weakref.finalize(iterator, source.clear)
    return iterator
