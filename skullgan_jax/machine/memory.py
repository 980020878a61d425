"""The machine: the memory of the process, which on a CPU is also the device's, and what kind of CPU it has."""

import ctypes
import hashlib
import os
import pathlib
import platform
import sys

_MALLOC = {"hugetlb": 1, "mmap_threshold": 1 << 34, "trim_threshold": 1 << 34}


def keep_memory() -> None:
    """Start the process again with a malloc that keeps its memory and takes it in huge pages.

    XLA's CPU backend allocates the buffers of a program anew at each call. glibc by default returns large ones to the
    kernel, which then has to clear gigabytes a step: at full size that doubles the time of a step. glibc reads
    these settings only when a process starts. Does nothing where there is no glibc, or where GLIBC_TUNABLES is set.
    """
    if platform.libc_ver()[0] != "glibc" or "GLIBC_TUNABLES" in os.environ:
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(f"glibc.malloc.{k}={v}" for k, v in _MALLOC.items())
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def release_memory() -> None:
    """Give the kernel back what `keep_memory` keeps but nothing uses, e.g. after a checkpoint was read."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def kind() -> str:
    """A name for machines that can run each other's compiled programs, as far as their CPU goes."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    features = [line for line in lines if line.startswith(("flags", "Features"))][:1]
    return f"{platform.machine()}-{hashlib.sha256(''.join(features).encode()).hexdigest()[:8]}"
