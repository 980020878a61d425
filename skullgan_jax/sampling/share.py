"""Which of the processes that share a job this one is: flags, or the environment of what started them."""

import argparse
import os

from skullgan_jax.errors import InputError


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--process and --processes."""
    parser.add_argument("--process", type=int, help="which one this is, from 0")
    parser.add_argument("--processes", type=int, help="how many share the job")


def of(flags) -> tuple[int, int]:
    """Which process this is, and of how many. Raises InputError."""
    if (flags.process is None) != (flags.processes is None):
        raise InputError("--process and --processes belong together; give both")
    if flags.process is not None:
        process, processes = flags.process, flags.processes
    else:
        # A script that Slurm runs without srun has SLURM_NTASKS, too, but is alone.
        names = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        if names[0] not in os.environ:
            names = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
        try:
            processes = int(os.environ.get(names[0], 1))
            process = int(os.environ.get(names[1], 0)) if processes > 1 else 0
        except ValueError:
            told = " ".join(f"{name}={os.environ.get(name)}" for name in names)
            raise InputError(f"{told} in the environment: give numbers, or --process and --processes") from None
    if not 0 <= process < processes:
        raise InputError(f"--process={process} --processes={processes}: give 0 to {processes - 1} of 1 or more")
    return process, processes
