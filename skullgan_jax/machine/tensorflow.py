"""TensorFlow's import: it takes seconds, and only what trains or reads TFDS needs it."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from skullgan_jax.machine.extras import need
from skullgan_jax.machine.quiet import quiet


def import_tensorflow():
    """TensorFlow, blind to accelerators: those belong to JAX.

    It is quiet from its first line on: what it logs is not for who trains, or reads a notebook.

    Raises:
      InputError: it is not installed.
    """
    if "tensorflow" not in sys.modules:
        with _unheard():
            need("tensorflow")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    logging.getLogger("absl").addFilter(_is_for_users)  # which a logger takes once
    return tf


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """While it is loaded: its C++ reads its level once, and until then says which instructions it found, whatever that.

    That goes to the process's stderr, which is closed for these seconds.
    """
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = level or "2"
    try:
        with quiet():
            yield
    finally:
        if level is None:
            del os.environ["TF_CPP_MIN_LOG_LEVEL"]


def _is_for_users(record: logging.LogRecord) -> bool:
    """TFDS warns of what TFDS itself does."""
    return "`FeatureConnector.dtype` is deprecated" not in str(record.msg)
