"""What the loop adds to the step: seconds per step of the bare step and in the loop, and of a checkpoint.

    python benchmarks/loop.py [--ngf=16 --ndf=16 --batch=16 --epochs=9]

Both run in this process on the same phantom, the bare step before and after the loop. A picture, the judging of the
samples and a checkpoint come every third epoch; steps around them are counted apart.
"""

import argparse
import os
import runpy
import sys
import tempfile
import time

from skullgan_jax.nets.pair import Pair, compiler_options, quick_to_compile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ngf", type=int, default=16)
    parser.add_argument("--ndf", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--slices", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=9)
    args = parser.parse_args()
    from skullgan_jax.machine import memory

    memory.keep_memory()
    import jax
    import numpy as np

    from skullgan_jax.train import loop as train
    from skullgan_jax.train import monitor, state, step

    published = runpy.run_path("configs/skull.py")["get_config"]()
    config = runpy.run_path("configs/skull.py")["get_config"]("demo")
    config.recipe.gate_epoch = 10**6  # a gate that shuts would save work in one of the two only
    config.model.ngf, config.model.ndf, config.batch_size = args.ngf, args.ndf, args.batch
    config.data.num, config.epochs, config.final_slices = args.slices, args.epochs, 0
    config.sample_every, config.checkpoint_every = 3, 3
    config.judge_slices = published.judge_slices
    pair = Pair(nz=config.model.nz, ngf=args.ngf, ndf=args.ndf)
    recipe = step.Recipe(**config.recipe)
    per_epoch = args.slices // args.batch

    train_step = step.make_train_step(pair, recipe, seed=config.seed, steps_per_epoch=per_epoch)
    bare = jax.jit(train_step, donate_argnums=0, compiler_options=compiler_options())
    reals = np.zeros((args.batch, 128, 128, 1), np.float32)

    def bare_seconds():
        now = quick_to_compile(lambda: state.create(*pair.init(config.seed), recipe=recipe))()
        for i in range(2 * per_epoch):
            if i == 3:
                start = time.perf_counter()
            now, values = bare(now, {"real": reals, "blur": reals})
            jax.block_until_ready(values)
        return (time.perf_counter() - start) / (2 * per_epoch - 3)

    times = []
    real_step = monitor.Monitor.step

    def timed(self, number, metrics):
        real_step(self, number, metrics)
        times.append(time.perf_counter())

    monitor.Monitor.step = timed
    before = bare_seconds()
    with tempfile.TemporaryDirectory() as workdir:
        train.train(config, workdir)
    after = bare_seconds()
    alone = (before + after) / 2

    # Intervals that end with the steps 1 to 4 of an epoch hold what comes at its begin; two steps are queued ahead.
    intervals = np.diff(times).reshape(-1)[3 * per_epoch + 3 :]  # the first picture and checkpoint compile
    at = np.arange(3 * per_epoch + 4, len(times)) % (3 * per_epoch)
    inside = float(intervals[at > 3].mean())
    events = len(intervals[at == 0])
    event = float((intervals[at <= 3].sum() - inside * (at <= 3).sum()) / events)
    apart = published.checkpoint_every * 2000 // published.batch_size
    print(f"{jax.devices()[0].device_kind}, ngf {args.ngf}, batch {args.batch}, {pair.dtype}: seconds per step")
    print(f"bare {before:.4f} before, {after:.4f} after; in the loop {inside:.4f}: {100 * (inside / alone - 1):+.1f} %")
    print(
        f"a picture, judging and a checkpoint: {event:.2f} s together; every {apart} steps, as published on 2000 "
        f"slices, {100 * event / apart / alone:.1f} %"
    )


if __name__ == "__main__":
    main()
