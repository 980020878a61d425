"""Training step and sampling of the pair: against PyTorch in the same run and against the device's limits.

    python benchmarks/pair.py                          # CPU, full size, alternating with PyTorch, medians
    python benchmarks/pair.py --torch=tuned            # PyTorch with our allocator settings, too
    python benchmarks/pair.py --torch=best             # and in whichever of its modes is fastest, by name
    python benchmarks/pair.py --torch=none --dtype=bfloat16 --batches=16,64,256     # GPU or TPU
    python benchmarks/pair.py --what=recipes --nz=64 --ngf=16 --ndf=16    # the step of small_data.py:demo by the other
    python benchmarks/pair.py --what=compile --nz=64 --ngf=16 --ndf=16    # what it takes to compile the two

Rates are images per second. Arithmetic is counted from the published shapes (24.7 GFLOP per sampled image, 83 per
training image at full size), whatever the form that computes them; `peak` is a matrix product of 8192 (CPU: 2048) in
the same dtype, timed in the same run. The process restarts itself with the allocator settings of the training command;
PyTorch runs in a process of its own, by default as it comes, and in each of its modes in another, which ends before the
next begins: at full size five would not fit beside ours. The two take turns, one is idle while the other runs.
"""

import argparse
import dataclasses
import functools
import itertools
import os
import resource
import subprocess
import sys
import time

import numpy as np

from skullgan_jax.nets.pair import Pair, compiler_options, quick_to_compile

MODES = ("float32", "channels_last", "bfloat16", "compiled", "compiled bfloat16")  # of PyTorch, for --torch=best


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", default="sample,step")
    parser.add_argument("--batches", default="16,64", help="batch sizes to sample; steps are at --batch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--nz", type=int, default=200)
    parser.add_argument("--ngf", type=int, default=256)
    parser.add_argument("--ndf", type=int, default=64)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--torch", default="plain", choices=["plain", "tuned", "best", "none"], help="its malloc, modes"
    )
    parser.add_argument("--serve-torch", choices=MODES, help=argparse.SUPPRESS)
    return parser.parse_args()


class TorchFailed(Exception):
    """A mode of PyTorch does not work here; the message says why."""


class Torch:
    """A pair in PyTorch, in one of its modes and a process of its own, which runs what it is told and answers then.

    malloc: plain, as PyTorch comes; else with our settings, which this process has.
    """

    def __init__(self, *, nz: int, ngf: int, ndf: int, mode: str = MODES[0], malloc: str = "plain"):
        self.mode = mode
        environment = {k: v for k, v in os.environ.items() if malloc != "plain" or k != "GLIBC_TUNABLES"}
        command = [sys.executable, __file__, f"--serve-torch={mode}", f"--nz={nz}", f"--ngf={ngf}", f"--ndf={ndf}"]
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, what: str, batch: int):
        try:
            self.process.stdin.write(f"{what} {batch}\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer != "done\n":
            raise TorchFailed(f"PyTorch, {self.mode}: {answer.strip() or 'the process failed'}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self.process:
            self.process.stdin.close()


def serve_torch(args):
    """The other end of `Torch`."""
    import torch
    from torch import nn

    from benchmarks import torch_peer

    torch.set_num_threads(os.cpu_count())

    class InMode(nn.Module):
        """A network that computes as the mode says; what it gives is float32."""

        def __init__(self, net: nn.Module):
            super().__init__()
            mode = args.serve_torch
            self.net = net.to(memory_format=torch.channels_last) if "channels_last" in mode else net
            self.call = torch.compile(net, dynamic=False) if "compiled" in mode else net
            self.cast = "bfloat16" in mode

        def forward(self, *inputs):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.cast):
                return self.call(*inputs).float()

    @functools.cache
    def generator():
        return InMode(torch_peer.init_weights(torch_peer.Generator(nz=args.nz, ngf=args.ngf)))

    @functools.cache
    def trainer():
        net_d = InMode(torch_peer.init_weights(torch_peer.Discriminator(ndf=args.ndf)))
        return torch_peer.Trainer(generator().train(), net_d)

    def run(what, batch):
        z = torch.rand(batch, args.nz, 1, 1) * 2 - 1
        if what == "sample":
            net = generator().eval()
            with torch.inference_mode():
                net(z)
        else:
            reals = torch.tanh(torch.randn(batch, 1, 128, 128))
            trainer().step(reals, reals, z, None, 0)

    for line in sys.stdin:  # nothing is made before, so that the peak is measured on an idle machine
        what, batch = line.split()
        try:
            run(what, int(batch))
        except Exception as error:  # a mode may not work here, the others do
            print(repr(error).replace("\n", " ")[:200], flush=True)
        else:
            print("done", flush=True)


def alternate(contestants: dict, rounds: int, calls: int = 3, turn: float = 2.0) -> dict[str, list[float]]:
    """Seconds of each call of each function, warmed up, taking turns of some calls, and of so many seconds at least.

    No turn is much longer: a kernel may take memory back, or split its huge pages, where a process is idle for long,
    which a user's loop does not pay for.
    """
    times = {name: [] for name in contestants}
    for f in contestants.values():
        f()
    for _ in range(rounds):
        for name, f in contestants.items():
            began, done = time.perf_counter(), 0
            while done < calls or time.perf_counter() - began < turn:
                start = time.perf_counter()
                f()
                times[name].append(time.perf_counter() - start)
                done += 1
    return times


def flop_per_image(ngf: int, nz: int, ndf: int) -> tuple[float, float]:
    """Forward FLOP of the generator and of the discriminator for one image."""
    g = 2 * nz * 16 * 16 * ngf + sum(2 * (4 << i) ** 2 * (16 * ngf >> i) * (8 * ngf >> i) * 16 for i in range(5))
    widths = [ngf // 2, ngf // 4, ngf // 8, ngf // 16, 1]
    g += sum(2 * 128 * 128 * 9 * a * b for a, b in itertools.pairwise(widths))
    d_widths = [1, *(ndf << i for i in range(5))]
    d = sum(2 * (64 >> i) ** 2 * 16 * d_widths[i] * d_widths[i + 1] for i in range(5)) + 2 * 16 * d_widths[-1]
    return float(g), float(d)


def main():
    args = parse()
    if args.serve_torch:
        serve_torch(args)
        return
    from skullgan_jax.machine import memory

    memory.keep_memory()
    import jax
    import jax.numpy as jnp

    from skullgan_jax.model import draw
    from skullgan_jax.train import relativistic, state, step
    from skullgan_jax.train.recipe import Relativistic, discriminator

    device = jax.devices()[0]
    pair = Pair(nz=args.nz, ngf=args.ngf, ndf=args.ndf, dtype=args.dtype)
    recipe = step.Recipe(gate_epoch=10**6)  # both nets step, as for the first ten epochs
    modes = {"none": (), "best": MODES}.get(args.torch, MODES[:1])

    n = 8192 if device.platform != "cpu" else 2048
    a = jax.random.normal(jax.random.key(0), (n, n), jnp.dtype(args.dtype))
    product = jax.jit(jnp.matmul)
    times = alternate({"product": lambda: product(a, a).block_until_ready()}, 10, turn=0)["product"]
    peak = 2 * n**3 / np.median(times)
    g_flop, d_flop = flop_per_image(args.ngf, args.nz, args.ndf)
    print(f"{device.device_kind}, {args.dtype}, ngf {args.ngf}, ndf {args.ndf}; peak {peak / 1e12:.3g} TFLOP/s")
    print(f"{'':10} {'batch':>6} {'ours':>10} {'of peak':>8} {'torch':>10} {'ratio':>6}")

    def report(name, batch, flop, seconds):
        ours = batch / seconds["ours"]
        line = f"{name:10} {batch:6} {ours:10.2f} {ours * flop / peak:8.2f}"
        if theirs := {mode: taken for mode, taken in seconds.items() if mode != "ours"}:
            best = min(theirs, key=theirs.get)
            line += f" {batch / theirs[best]:10.2f} {theirs[best] / seconds['ours']:6.2f}"
            line += f"  {best} of {', '.join(f'{m} {batch / t:.2f}' for m, t in theirs.items())}" * (len(theirs) > 1)
        print(line, flush=True)

    def contest(what, num, ours) -> dict[str, float]:
        """Median seconds of ours and of PyTorch in each of the modes that are asked for and work here."""
        times = {"ours": []}
        for mode in modes:
            try:
                with Torch(nz=args.nz, ngf=args.ngf, ndf=args.ndf, mode=mode, malloc=args.torch) as peer:
                    found = alternate({"ours": ours, mode: functools.partial(peer.run, what, num)}, args.rounds)
            except TorchFailed as error:
                print(error, flush=True)
            else:
                times["ours"] += found.pop("ours")
                times |= found
        if not times["ours"]:
            times = alternate({"ours": ours}, args.rounds)
        return {name: float(np.median(t)) for name, t in times.items()}

    reals = np.tanh(np.random.default_rng(0).standard_normal((args.batch, 128, 128, 1), np.float32))
    batch = {"real": jnp.asarray(reals), "blur": jnp.asarray(reals)}
    published = step.make_train_step(pair, recipe, seed=0, steps_per_epoch=125)

    def stepping(pair, recipe, train_step):
        """A function that takes a step, from its own first state on, compiled as the training command does."""
        run = jax.jit(train_step, donate_argnums=0, compiler_options=compiler_options())
        holder = [quick_to_compile(lambda: state.create(*pair.init(0), recipe=recipe))()]

        def advance():
            holder[0], values = run(holder[0], batch)
            jax.block_until_ready(values)

        return advance

    steps = {"published": (pair, recipe, published)}  # name: pair, recipe and step
    air = np.zeros((128, 128), bool)
    air[64:] = True
    for name, small in {"small data": Relativistic(), "batch std": Relativistic(batch_std=8)}.items():
        smooth = dataclasses.replace(pair, **discriminator(dataclasses.asdict(small)))
        train_step = relativistic.make_train_step(smooth, small, seed=0, steps=1000, floor=-0.8, air=air)
        steps[name] = smooth, small, train_step

    def compiling(name, pair, recipe, train_step):
        """Print what the stages of compiling a step take, and how long its optimised program is."""
        like = jax.eval_shape(lambda: state.create(*pair.init(0), recipe=recipe))
        stages = {
            "tracing": lambda _: jax.jit(train_step).trace(like, batch),
            "lowering": lambda traced: traced.lower(),
            "XLA": lambda lowered: lowered.compile(compiler_options()),
        }
        made, line = None, f"{name:10}"
        for stage, make in stages.items():
            start = time.perf_counter(), time.process_time()
            made = make(made)
            clock, cores = time.perf_counter() - start[0], time.process_time() - start[1]
            line += f"  {stage} {clock:.1f} s ({cores:.1f} s of all cores)"
        text = made.as_text()
        print(f"{line}  {text.count(' fusion(')} fusions, {text.count(' dot(')} products", flush=True)

    if "compile" in args.what:
        for name, about in steps.items():
            compiling(name, *about)
    if "recipes" in args.what:
        contestants = {name: stepping(*about) for name, about in steps.items()}
        seconds = {name: np.median(times) for name, times in alternate(contestants, args.rounds).items()}
        for name, median in seconds.items():
            times = median / seconds["published"]
            print(f"{name:10}  {median:.3f} s a step, {times:.2f} times the published one", flush=True)
        contestants.clear()
    if "sample" in args.what:
        g_params, g_stats, *_ = quick_to_compile(lambda: pair.init(0))()
        generate = draw.generator(pair)
        for num in map(int, args.batches.split(",")):

            def ours(num=num):
                generate(g_params, g_stats, draw.key(0), jnp.arange(num)).block_until_ready()

            report("sample", num, g_flop, contest("sample", num, ours))
        del g_params, g_stats, ours
    if "step" in args.what:
        # Forward and both gradients of G; D on reals and fakes with both, and once more for the gradient of its input.
        seconds = contest("step", args.batch, stepping(*steps["published"]))
        report("step", args.batch, 3 * g_flop + 8 * d_flop, seconds)
    memory = device.memory_stats() or {}
    in_use = memory.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    print(f"our peak memory {in_use / 1e9:.2f} GB")


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    main()
