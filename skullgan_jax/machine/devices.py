"""The devices that JAX was told to use."""

import os
import sys


def missing() -> str:
    """One line on JAX_PLATFORMS where this machine has none of it, else nothing; asked when something failed."""
    asked = os.environ.get("JAX_PLATFORMS")
    if not asked or "jax" not in sys.modules:
        return ""
    try:
        sys.modules["jax"].devices()
        return ""
    except (RuntimeError, AssertionError):  # which of them, differs by platform
        return f"JAX_PLATFORMS={asked}: no such device here, or JAX has no support for it; unset it, or give cpu"
