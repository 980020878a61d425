"""Train SkullGAN.

Example, the published training on your own slices (.npy or .npz of (N, 128, 128) HU):

  python -m skullgan_jax.main --config=configs/skull.py --workdir=runs/skull --config.data.path=slices.npy

A laptop-size run on the built-in phantom, no data needed:

  python -m skullgan_jax.main --config=configs/skull.py:demo --workdir=runs/demo

The same command again resumes an interrupted run. Every field of the config is a flag: --config.batch_size=32,
--config.epochs=100, --config.pretrained=runs/celeba, --config.model.dtype=bfloat16. With --dry_run it tells what it
would do, how much memory and time that takes, and ends.

Several processes, on one host or many, train one pair with --distributed; launch/ has the scripts that start them.
"""

from skullgan_jax.machine import signals

if __name__ == "__main__":
    signals.hold()  # what follows takes a while

import contextlib
import sys

from absl import app, flags
from ml_collections import config_flags

from skullgan_jax.command.flags import GOES_ON, at_home, fail, is_utf8, not_utf8, refusing, typed
from skullgan_jax.train import config, fields

_CONFIG = config_flags.DEFINE_config_file("config", None, "The configuration, e.g. configs/skull.py.", lock_config=True)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run, or gs://: checkpoints, logs, pictures, the exported model."
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "This is one of several processes that train one pair.")
_PROFILE = flags.DEFINE_bool("profile", False, "Trace a few steps into WORKDIR/profile, for TensorBoard or Perfetto.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Tell config, data, devices, memory and time of the run, and write nothing."
)
_FLAGS = ("config", "workdir", "distributed", "profile", "dry_run")


def _main(_) -> None:
    from skullgan_jax.processes import distributed
    from skullgan_jax.train.dry_run import dry_run
    from skullgan_jax.train.loop import train

    with distributed.job() if _DISTRIBUTED.value else contextlib.nullcontext():
        if _DRY_RUN.value:
            dry_run(_CONFIG.value, _WORKDIR.value)
        else:
            train(_CONFIG.value, _WORKDIR.value, profile=_PROFILE.value)


def _parse(argv: list[str]) -> list[str]:
    """Flags of argv, or one line and exit 2."""
    for word in argv[1:]:
        if not is_utf8(word):
            fail(not_utf8(word))
    argv = at_home(argv)
    try:
        rest = flags.FLAGS(config.found(argv))
        for flag in ("config", "workdir"):
            if not flags.FLAGS[flag].value:
                raise flags.Error(f"--{flag} is missing; see --help")
        if rest[1:]:
            raise flags.Error(f"{rest[1]!r} is no flag; flags begin with --")
        _CONFIG.value.to_dict()  # a config file that failed to load says so when it is used
        if flags.FLAGS["verbosity"].using_default_value:
            flags.FLAGS.verbosity = -1  # warnings; absl would show what libraries tell, too
        return rest
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        fail(fields.told(argv, error))


def run(argv: list[str] | None = None) -> None:
    """The command; argv defaults to sys.argv."""
    argv = argv or sys.argv
    with refusing(GOES_ON):
        if fields.ask_for_help(argv):
            print(fields.help_text(argv, __doc__, {name: flags.FLAGS[name].help for name in _FLAGS}))
            return
        app.run(_main, argv=argv, flags_parser=_parse)


if __name__ == "__main__":
    typed(run, keep_memory=True)
