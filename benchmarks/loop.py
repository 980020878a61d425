"""What the loop adds to the step: seconds per step with logs, pictures and checkpoints, and of the bare step.

    python benchmarks/loop.py [--ngf=16 --ndf=16 --batch=16 --epochs=8]

Both run in this process on the same phantom; the loop's figure is the wall time from its first to its last record.
"""

import argparse
import os
import runpy
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ngf", type=int, default=16)
    parser.add_argument("--ndf", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--slices", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    from skullgan_jax import host

    host.keep_memory()
    import jax
    import numpy as np

    from skullgan_jax import monitor, state, step, train

    times = []
    real_step = monitor.Monitor.step

    def timed(self, number, metrics):
        real_step(self, number, metrics)
        times.append(time.perf_counter())

    monitor.Monitor.step = timed
    config = runpy.run_path("configs/skull.py")["get_config"]("demo")
    config.recipe.gate_epoch = 10**6  # a gate that shuts would save work in one of the two only
    config.model.ngf, config.model.ndf, config.batch_size = args.ngf, args.ndf, args.batch
    config.data.num, config.epochs, config.final_slices = args.slices, args.epochs, 0
    config.sample_every, config.checkpoint_every = 2, 2
    pair = state.Pair(nz=config.model.nz, ngf=args.ngf, ndf=args.ndf)
    recipe = step.Recipe(**config.recipe)
    per_epoch = args.slices // args.batch
    with tempfile.TemporaryDirectory() as workdir:
        train.train(config, workdir)
    loop = (times[-1] - times[per_epoch]) / (len(times) - 1 - per_epoch)  # after the first epoch, which compiles

    now = state.quick_to_compile(lambda: state.create(*pair.init(config.seed), adam=recipe.adam, lr=recipe.lr))()
    bare = jax.jit(step.make_train_step(pair, recipe, seed=config.seed, steps_per_epoch=per_epoch), donate_argnums=0)
    reals = np.zeros((args.batch, 128, 128, 1), np.float32)
    seconds = []
    for _ in range(2 * per_epoch):
        start = time.perf_counter()
        now, values = bare(now, {"real": reals, "blur": reals})
        jax.block_until_ready(values)
        seconds.append(time.perf_counter() - start)
    alone = float(np.mean(seconds[3:]))
    print(f"{jax.devices()[0].device_kind}, ngf {args.ngf}, batch {args.batch}: seconds per step")
    print(f"bare step {alone:.4f}, in the loop {loop:.4f}, of it the loop's own {100 * (loop / alone - 1):.1f} %")


if __name__ == "__main__":
    main()
