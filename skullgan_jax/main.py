"""Train SkullGAN.

Example, the published training on your own slices (.npy or .npz of (N, 128, 128) HU):

  python -m skullgan_jax.main --config=configs/skull.py --workdir=runs/skull --config.data.path=slices.npy

A laptop-size run on the built-in phantom, no data needed:

  python -m skullgan_jax.main --config=configs/skull.py:demo --workdir=runs/demo

The same command again resumes an interrupted run. Every field of the config is a flag: --config.batch_size=32,
--config.epochs=100, --config.pretrained=runs/celeba, --config.model.dtype=bfloat16; the config file says what each is.

Several processes, on one host or many, train one pair with --distributed; launch/ has the scripts that start them.
"""

import contextlib
import sys

from absl import app, flags
from ml_collections import config_flags

from skullgan_jax.command.flags import fail, refusing, typed
from skullgan_jax.train import config

_CONFIG = config_flags.DEFINE_config_file("config", None, "The configuration, e.g. configs/skull.py.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, logs, pictures, the exported model.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "This is one of several processes that train one pair.")
_PROFILE = flags.DEFINE_bool("profile", False, "Trace a few steps into WORKDIR/profile, for TensorBoard or Perfetto.")


def _main(_) -> None:
    from skullgan_jax.processes import distributed
    from skullgan_jax.train.loop import train

    with distributed.job() if _DISTRIBUTED.value else contextlib.nullcontext():
        train(_CONFIG.value, _WORKDIR.value, profile=_PROFILE.value)


def _parse(argv: list[str]) -> list[str]:
    """Flags of argv, or one line and exit 2."""
    try:
        rest = flags.FLAGS(config.found(argv))
        for flag in ("config", "workdir"):
            if not flags.FLAGS[flag].value and not _asks_for_help():
                raise flags.Error(f"--{flag} is missing; see --help")
        if rest[1:]:
            raise flags.Error(f"{rest[1]!r} is no flag; flags begin with --")
        if _CONFIG.value is not None:
            _CONFIG.value.to_dict()  # a config file that failed to load says so when it is used
        if flags.FLAGS["verbosity"].using_default_value:
            flags.FLAGS.verbosity = -1  # warnings; absl would show what libraries tell, too
        return rest
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        fail(error)


def _asks_for_help() -> bool:
    return any(name in flags.FLAGS and flags.FLAGS[name].value for name in ("help", "helpshort", "helpfull", "helpxml"))


def run(argv: list[str] | None = None) -> None:
    """The command; argv defaults to sys.argv."""
    sys.modules["__main__"].__doc__ = __doc__  # what --help shows, also of the console script
    with refusing():
        app.run(_main, argv=argv, flags_parser=_parse)


if __name__ == "__main__":
    typed(run, keep_memory=True)
