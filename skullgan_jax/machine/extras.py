"""Packages that may be missing: light.txt is what sampling needs, `pip install skullgan_jax` brings the rest."""

import importlib.util

from skullgan_jax.errors import InputError

# What a light install leaves out, of what the package imports.
LEFT_OUT = (
    "gdcm",
    "matplotlib",
    "psutil",
    "sklearn",
    "tensorboard",
    "tensorflow",
    "tensorflow_datasets",
    "threadpoolctl",
)


def need(module: str, extra: str = ""):
    """Import a module that may be missing, and return it.

    Args:
      module: e.g. sklearn.
      extra: that of pyproject.toml which brings it, e.g. fid; nothing where a whole install does.

    Raises:
      InputError: it is missing; says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(missing(error.name or module, extra)) from None


def check(*modules: str) -> None:
    """Raise InputError if one of them is missing, before work that would end in vain; imports none."""
    for module in modules:
        if not there(module):
            raise InputError(missing(module))


def there(module: str) -> bool:
    """Whether a module can be imported."""
    return importlib.util.find_spec(module) is not None


def missing(module: str, extra: str = "") -> str:
    """One line on a module that is not there."""
    package = f"'skullgan_jax[{extra}]'" if extra else "skullgan_jax"
    return f"{module.partition('.')[0]} is needed for this and not installed: pip install {package} brings it"
