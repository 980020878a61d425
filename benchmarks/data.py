"""How fast the input pipeline feeds a training step: python benchmarks/data.py

A step at batch 16 takes 16 reals and 16 reals to blur from a memory-mapped file of 2,000 slices, int16; the rate counts
the 16 only. CelebA: 2,000 JPEGs of 178 x 218 are decoded once into a uint8 file, which later epochs read alike.
"""

import os
import tempfile
import time
from collections.abc import Callable

import numpy as np

from skullgan_jax.data.arrays import open_slices
from skullgan_jax.data.batches import batches, import_tensorflow, order
from skullgan_jax.data.celeba import open_celeba
from skullgan_jax.slices.calibration import Calibration

BATCH, NUM, SECONDS = 16, 2000, 3


def measure(name: str, step: Callable[[], object]):
    """Prints one row: mean wall and CPU time of `step`, which is one training step's worth of work."""
    for _ in range(100):
        step()
    count, wall, cpu = 0, time.perf_counter(), time.process_time()
    while (passed := time.perf_counter() - wall) < SECONDS:
        step()
        count += 1
    cpu = time.process_time() - cpu
    print(f"{name:36} {passed / count * 1e6:9.0f} {cpu / count * 1e6:9.0f} {BATCH * count / passed:12,.0f}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/slices.npy"
        np.save(path, np.random.default_rng(0).integers(-1000, 3000, (NUM, 128, 128), np.int16))
        images, calibration = open_slices(path), Calibration(-1000, 2999)
        memory = images.view(np.ndarray)
        rows = [order(NUM, 0, stream, 0)[:BATCH] for stream in ("real", "blur")]
        feed = batches(images, calibration, batch_size=BATCH, seed=0, num_steps=1 << 40)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print(f"{'per step':36} {'wall us':>9} {'CPU us':>9} {'slices/s':>12}")
        measure("gather int16", lambda: [memory[r] for r in rows])
        measure("gather, scale to float32", lambda: [calibration.to_unit(memory[r]) for r in rows])
        measure("batches(): the same through tf.data", lambda: next(feed))
        tf = import_tensorflow()
        faces = np.random.default_rng(0).integers(0, 255, (NUM, 27, 22, 3), np.uint8).repeat(8, 1).repeat(8, 2)
        for i, face in enumerate(faces[:, :, :178]):
            tf.io.write_file(f"{folder}/faces/{i:06}.jpg", tf.io.encode_jpeg(face))
        started = time.perf_counter()
        faces = open_celeba(f"{folder}/faces", NUM)
        print(f"CelebA, decoding once: {NUM / (time.perf_counter() - started):,.0f} images/s")
        feed = batches(faces, Calibration(0, 255), batch_size=BATCH, seed=0, num_steps=1 << 40)
        measure("CelebA after that, through tf.data", lambda: next(feed))


if __name__ == "__main__":
    main()
