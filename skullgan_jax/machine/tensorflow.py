"""TensorFlow's import: it takes seconds, and only what trains or reads TFDS needs it."""

import logging
import os
import sys

from skullgan_jax.machine.extras import need


def import_tensorflow():
    """TensorFlow, quiet at start-up and blind to accelerators: those belong to JAX.

    Raises:
      InputError: it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" not in sys.modules:
        # What its C++ logs while it is loaded (which instructions it found) heeds no setting.
        sys.stderr.flush()
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            need("tensorflow")
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    logging.getLogger("absl").addFilter(_is_for_users)
    return tf


def _is_for_users(record: logging.LogRecord) -> bool:
    """TFDS warns of what TFDS itself does."""
    return "`FeatureConnector.dtype` is deprecated" not in str(record.msg)
