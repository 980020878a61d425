"""Seconds and peak memory of `prepare`: python benchmarks/prepare.py [INPUT]

INPUT is what --input takes; without it a 512 x 512 x 600 volume is made, a shell of 7 mm in air and soft tissue, 0.6 mm
from slice to slice. In one process and in two: the cutting, the writing of arrays and report, and the whole command,
imports and all.
"""

import contextlib
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import psutil

JOBS = 2


def _made(folder: str) -> pathlib.Path:
    path = pathlib.Path(folder, "head.npy")
    volume = np.lib.format.open_memmap(path, "w+", np.int16, (600, 512, 512))
    y, x = np.meshgrid((np.arange(512) - 256) * 0.45, (np.arange(512) - 256) * 0.45, indexing="ij")
    for i in range(600):
        level = np.sqrt((x / 75) ** 2 + (y / 90) ** 2 + (i * 0.6 / 300) ** 2) * 80
        volume[i] = np.where(level > 86, -1000, np.where((level < 80) & (level > 73), 1500, 40))
    volume.flush()
    return path


class Memory(threading.Thread):
    """The greatest sum of what a process and its children hold of their own and share, proportionally (PSS)."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.process, self.peak, self.done = psutil.Process(pid), 0, threading.Event()

    def run(self):
        while not self.done.wait(0.1):
            total = 0
            with contextlib.suppress(psutil.Error):
                for p in [self.process, *self.process.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        total += p.memory_full_info().pss
            self.peak = max(self.peak, total)


def main():
    with tempfile.TemporaryDirectory() as folder:
        source = sys.argv[1] if sys.argv[1:] else _made(folder)
        command = [sys.executable, "-m", "skullgan_jax.prepare", f"--input={source}", "--spacing=0.6,0.45,0.45"]
        for jobs in (1, JOBS):
            started = time.perf_counter()
            flags = [f"--jobs={jobs}", f"--output={folder}/out{jobs}", "--format=npy"]
            ran = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True)
            memory = Memory(ran.pid)
            memory.start()
            times, said = {}, []
            for line in ran.stderr:
                times[line.split()[0]] = time.perf_counter()
                said.append(line.rstrip())
            memory.done.set()
            total = time.perf_counter() - started
            cutting, rest = times["cut"] - times["looked"], total - (times["cut"] - started)
            print(f"{jobs} processes: {cutting:.1f} s cutting, then {rest:.1f} s writing; {total:.1f} s the command")
            print(f"  peak {memory.peak / 2**30:.2f} GiB in all processes")
        print(*said, sep="\n")


if __name__ == "__main__":
    main()
