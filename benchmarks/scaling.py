"""What many devices bring: measured on this machine, predicted for GPUs and TPUs, and what it costs.

    python benchmarks/scaling.py measure      # the training command on 1 core, 2 cores, 2 processes of a core each
    python benchmarks/scaling.py model        # step times, images/s, hours and money as Markdown
    python benchmarks/scaling.py hlo --devices=8 --batch=16 --output=DIR    # the step's HLO, see `hlo`

Assumptions and sources stand in docs/scaling.md and beside the numbers below.
"""

import argparse
import collections
import itertools
import json
import math
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile

from skullgan_jax.nets.pair import Pair

ROOT = pathlib.Path(__file__).resolve().parents[1]
BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
_COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all|collective-broadcast)(?:-start)?\("
)
Collective = collections.namedtuple("Collective", "operation arrays times bytes")  # arrays: (type, shape) each


# --- what a step communicates ----------------------------------------------------------------------------------------


def hlo(form: str, dtype: str, devices: int, batch: int, sizes: dict, output: pathlib.Path) -> None:
    """Write the training step's HLO on virtual CPU devices: partitioned.txt and, after all passes, optimised.txt.

    The first is what XLA's partitioner says, which is common to all platforms. form "cpu" is the program of a CPU,
    "accelerator" that of a GPU or TPU, which has other layers.
    """
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={devices} --xla_dump_to={output}/dump "
        "--xla_dump_hlo_pass_re=spmd-partitioning --xla_dump_hlo_module_re=jit_.*step"
    )
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp

    from skullgan_jax.train import sharding, state, step

    jax.config.update("jax_enable_compilation_cache", False)  # what is not compiled is not dumped
    pair, recipe, mesh = Pair(**sizes, dtype=dtype), step.Recipe(), sharding.mesh()
    everywhere, by_image = sharding.everywhere(mesh), sharding.by_image(mesh)
    places = {"in_shardings": (everywhere, by_image), "out_shardings": everywhere, "donate_argnums": 0}
    run = jax.jit(step.make_train_step(pair, recipe, seed=0, steps_per_epoch=125), **places)
    image = jax.ShapeDtypeStruct((batch, 128, 128, pair.nc), jnp.float32)
    now = jax.eval_shape(lambda: state.create(*pair.init(0), recipe=recipe))
    inputs = now, {"real": image, "blur": image}
    if form == "accelerator":
        anywhere = [jax.export.DisabledSafetyCheck.platform()]
        exported = jax.export.export(run, platforms=["cuda"], disabled_checks=anywhere)(*inputs)

        def exported_step(*inputs):
            return exported.call(*inputs)

        run = jax.jit(exported_step, **places)
    # The level is of LLVM, after all that is looked at here.
    compiled = run.lower(*inputs).compile({"xla_backend_optimization_level": 0})
    (output / "optimised.txt").write_text(compiled.as_text())
    (partitioned,) = (output / "dump").glob("*step.*after_spmd-partitioning*.txt")
    shutil.move(partitioned, output / "partitioned.txt")
    shutil.rmtree(output / "dump")


def shapes(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """The arrays of an HLO type, e.g. (f32[8]{0}, bf16[4,4]{1,0})."""
    found = re.findall(r"\b(pred|bf16|f16|f32|f64|s32|s64|u32|u64)\[([\d,]*)\]", text)
    return [(kind, tuple(int(n) for n in dims.split(",") if n)) for kind, dims in found]


def collectives(text: str) -> list[Collective]:
    """Every collective operation of an HLO module.

    `times` is how often it runs a step: the turns of the loops around it, one where the compiler does not know them,
    which are the gates of the two nets.
    """
    callers, found, inside, entry = collections.defaultdict(list), [], None, None
    for line in text.splitlines():
        if header := re.match(r"(ENTRY )?%?([\w.-]+) .*\{$", line):
            inside = header[2]
            entry = inside if header[1] else entry
        if " while(" in line:
            known = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
            body = re.search(r"body=%?([\w.-]+)", line)[1]
            callers[body].append((inside, int(known[1]) if known else 1))
        for called in re.findall(r"(?:to_apply|calls|true_computation|false_computation)=%?([\w.-]+)", line):
            callers[called].append((inside, 1))
        for branches in re.findall(r"branch_computations=\{([^}]*)\}", line):
            for branch in branches.split(","):
                callers[branch.strip(" %")].append((inside, 1))
        if match := _COLLECTIVE.search(line):
            found.append((inside, match[2], shapes(match[1])))

    def times(name):
        return 1 if name == entry else sum(times(caller) * turns for caller, turns in callers[name])

    return [
        Collective(operation, arrays, times(name), sum(BYTES[kind] * math.prod(shape) for kind, shape in arrays))
        for name, operation, arrays in found
    ]


def compile_elsewhere(output: pathlib.Path, **options) -> None:
    """`hlo` in a process of its own, which virtual devices need."""
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, __file__, "hlo", f"--output={output}", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- the model -------------------------------------------------------------------------------------------------------

# name: devices, peak bf16 FLOP/s, memory bytes/s, ring bytes/s a device, seconds of a small all-reduce, kind.
# H100 SXM: 989 TFLOP/s dense and 3.35 TB/s, NVIDIA's data sheet (1,979 with sparsity). NVLink: 900 GB/s, half of it in
# each direction. Between nodes each GPU has a 400 Gb/s port, and eight rings leave a node by eight ports. Latency: the
# tree of NCCL's own model, 6.8 + 2 (7 x 0.6 + 5 log2(nodes)) us (src/graph/tuning.cc, as in NVIDIA/nccl issue 1334).
# TPU v5e: 197 TFLOP/s, 819 GB/s, 1600 Gb/s between chips over four links in a 2-D torus, cloud.google.com/tpu/docs/v5e;
# a 2 x 4 slice is a ring of two links each. Its latency, 1 us a hop and 2 x half a ring along each axis, is assumed.
MACHINES = {
    "1 H100": (1, 989e12, 3.35e12, math.inf, 0.0, "h100"),
    "8 H100, one node": (8, 989e12, 3.35e12, 450e9, 15.2e-6, "h100"),
    "64 H100, 8 nodes": (64, 989e12, 3.35e12, 400e9, 45.2e-6, "h100"),
    "v5e-8": (8, 197e12, 819e9, 100e9, 6e-6, "v5e"),
    "v5e-16": (16, 197e12, 819e9, 200e9, 8e-6, "v5e"),
    "v5e-256": (256, 197e12, 819e9, 200e9, 32e-6, "v5e"),
}
FRACTIONS = (0.5, 0.3)  # of the peak, better and worse case; assumed, not measured
STEPS, SLICES = 125_000, 10**6  # 2,000 slices, 1,000 epochs, batch 16
# A step's traffic in bytes a parameter: float32 weight read, bfloat16 copy written and read forward and backward;
# gradient written and read in bfloat16; Adam reads weight and two moments and writes them.
STATE_BYTES = (4 + 2 + 2 + 2) + (2 + 2) + (12 + 12)


def flop(nz=200, ngf=256, ndf=64, nc=1) -> tuple[float, float]:
    """FLOP (two per multiply-add, borders included) of a sampled image and of an image in a training step."""
    first = nz * 256 * ngf
    g = first + sum(16 * (16 * ngf >> i) * (8 * ngf >> i) * (4 << i) ** 2 for i in range(5))
    widths = [ngf >> i for i in range(1, 5)] + [nc]
    g += sum(9 * a * b * 128**2 for a, b in itertools.pairwise(widths))
    widths = [nc] + [ndf << i for i in range(5)]
    d_layers = [16 * a * b * (64 >> i) ** 2 for i, (a, b) in enumerate(itertools.pairwise(widths))]
    d_layers.append(256 * ndf)
    d = sum(d_layers)
    # G: forward and both gradients, but for that of the latent. D: forward thrice, both gradients twice without that of
    # the image, and the gradient of the image once.
    return 2 * g, 2 * (3 * g - first + 3 * d + 2 * (2 * d - d_layers[0]) + d)


def step_seconds(machine: str, images: float, found: dict, better: bool) -> dict[str, float]:
    """Seconds of a training step at `images` a device, and its parts; `better` hides the ring behind the arithmetic."""
    n, peak, memory, ring, latency, _ = MACHINES[machine]
    compute = images * flop()[1] / (FRACTIONS[0 if better else 1] * peak)
    state = STATE_BYTES * found["parameters"] / memory
    wire = 2 * (n - 1) / n * found["bytes"] / ring
    waits = found["operations"] * latency
    whole = state + waits + (max(compute, wire) if better else compute + wire)
    return {"compute": compute, "state": state, "ring": wire, "latency": waits, "step": whole}


def model(args) -> None:
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        compile_elsewhere(folder, form="accelerator", dtype="bfloat16", devices=8, batch=16, sizes="{}")
        moved = collectives((folder / "partitioned.txt").read_text())
        operations = len(collectives((folder / "optimised.txt").read_text()))
    kernels = sum(BYTES[k] * math.prod(s) for c in moved for k, s in c.arrays if k == "bf16")
    total = sum(c.bytes * c.times for c in moved)
    found = {"bytes": total, "operations": operations, "parameters": 192_002_304 + 11_164_353}
    sampled, trained = flop()
    print(f"A step all-reduces {total / 1e6:.1f} MB a device in {operations} operations: {kernels / 1e6:.1f} MB of")
    print(f"gradients in bfloat16, {(total - kernels) / 1e6:.3f} MB of statistics and scalars in float32.")
    print(f"{sampled / 1e9:.1f} GFLOP a sampled image, {trained / 1e9:.1f} a training image.\n")
    head = "| devices | images a device | compute | state | ring | latency | ms a step | images/s | of n times one |"
    print(head, "|---" * 9 + "|", sep="\n")
    alone = {}
    plans = [("1 H100", 16), ("8 H100, one node", 2), ("v5e-8", 2), ("v5e-16", 1)]
    plans += [("8 H100, one node", 16), ("64 H100, 8 nodes", 16), ("v5e-8", 16), ("v5e-256", 16)]
    for name, images in plans:
        n, kind = MACHINES[name][0], MACHINES[name][5]
        both = [step_seconds(name, images, found, better) for better in (True, False)]
        cells = [_span(b[part] * 1e3 for b in both) for part in ("compute", "state", "ring", "latency", "step")]
        rates = [n * images / b["step"] for b in both]
        # The rate of one device with 16 images, which communicates with nobody.
        for b, parts in zip((True, False), both, strict=True):
            compute = 16 * trained / (FRACTIONS[0 if b else 1] * MACHINES[name][1])
            alone[kind, b] = 16 / (compute + parts["state"])
        shares = [100 * r / n / alone[kind, b] for b, r in zip((True, False), rates, strict=True)]
        print("|", " | ".join([name, str(images), *cells, _span(rates), _span(shares) + " %"]), "|")
    print("\n| on | published run, hours | cost, USD | 10^6 slices, hours | cost, USD |", "|---" * 5 + "|", sep="\n")
    hours = STEPS * 16 / args.cpu_train / 3600, SLICES / args.cpu_sample / 3600
    cells = [f"{h:.3g} | {h * args.cpu_price:.3g}" for h in hours]
    print(f"| 2 CPU cores, measured: {args.cpu_train} and {args.cpu_sample} images/s | {' | '.join(cells)} |")
    prices = {"h100": args.h100_price, "v5e": args.v5e_price}
    for name, (n, peak, *_, kind) in MACHINES.items():
        draw = [SLICES * sampled / (n * peak * fraction) / 3600 for fraction in FRACTIONS]
        cells = ["16 images do not divide", ""]
        if 16 % n == 0:
            train = [STEPS * step_seconds(name, 16 / n, found, better)["step"] / 3600 for better in (True, False)]
            cells = [_span(train), _span(h * n * prices[kind] for h in train)]
        print("|", " | ".join([name, *cells, _span(draw), _span(h * n * prices[kind] for h in draw)]), "|")
    print(f"\nUSD an hour: CPU {args.cpu_price}, H100 {args.h100_price} a GPU, v5e {args.v5e_price} a chip.")


def _span(values) -> str:
    a, b = (f"{v:,.0f}" if v >= 100 else f"{v:.2g}" for v in values)
    return a if a == b else f"{a} to {b}"


# --- the measurement -------------------------------------------------------------------------------------------------


def train(cores: list[str], batch: int, compiled: str, args) -> float:
    """Images/s of the training command with a process on each of `cores`, e.g. ["0,1"] or ["0", "1"].

    Of its best four steps in a row, since other work may share the machine. `compiled` keeps programs between runs.
    """
    with tempfile.TemporaryDirectory() as workdir:
        config = {"batch_size": batch, "data.num": 4 * batch, "epochs": args.epochs, "final_slices": 0}
        config |= {"model.ngf": args.ngf, "model.ndf": args.ngf, "sample_every": 10**6, "checkpoint_every": 10**6}
        config |= {"log_every": 4, "judge_slices": 16, "recipe.gate_epoch": 10**6}  # a gate that shuts saves work
        command = [sys.executable, "-m", "skullgan_jax.main", "--config=configs/skull.py:demo", f"--workdir={workdir}"]
        command += [f"--config.{name}={value}" for name, value in config.items()]
        place = {"JAX_COMPILATION_CACHE_DIR": compiled}
        if len(cores) > 1:
            command.append("--distributed")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                place["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{probe.getsockname()[1]}"
            place["JAX_NUM_PROCESSES"] = str(len(cores))
        running = [
            subprocess.Popen(
                ["taskset", "-c", cpus, *command],
                cwd=ROOT,
                env=os.environ | place | ({"JAX_PROCESS_ID": str(i)} if len(cores) > 1 else {}),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i, cpus in enumerate(cores)
        ]
        for process in running:
            said = process.communicate()[1]
            assert process.returncode == 0, said
        records = [json.loads(line) for line in pathlib.Path(workdir, "metrics.jsonl").read_text().splitlines()]
    rates = [r["images_per_s"] for r in records if "images_per_s" in r]
    return max(rates[1:])  # the first ones wait for the first picture


def measure(args) -> None:
    plans = {
        "1 process on 1 core": (["0"], args.batch),
        "1 process on 2 cores": (["0,1"], args.batch),
        "2 processes, a core each, the same batch (strong)": (["0", "1"], args.batch),
        "2 processes, a core each, twice the batch (weak)": (["0", "1"], 2 * args.batch),
    }
    rates = {name: [] for name in plans}
    with tempfile.TemporaryDirectory() as compiled:
        for _ in range(args.repeats):  # in turn, so that what else runs hits all of them
            for name, plan in plans.items():
                rates[name].append(train(*plan, compiled, args))
    alone = max(rates["1 process on 1 core"])
    print(f"| ngf {args.ngf} | batch | images/s | of 1 process on 1 core |", "|---" * 4 + "|", sep="\n")
    for name, found in rates.items():
        print(f"| {name} | {plans[name][1]} | {max(found):.1f} | {max(found) / alone:.2f} |")
    print(f"\nThe best four steps of {args.repeats} runs each.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "model", "hlo"])
    parser.add_argument("--ngf", type=int, default=16, help="measure: width of both nets")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=8, help="measure: of four batches each")
    parser.add_argument("--repeats", type=int, default=3, help="measure: runs of each kind")
    parser.add_argument("--cpu_train", type=float, default=2.97, help="images/s of docs/speed.md")
    parser.add_argument("--cpu_sample", type=float, default=8.9, help="slices/s of docs/sampling.md, written")
    parser.add_argument("--cpu_price", type=float, default=0.1, help="USD an hour of two cores")
    parser.add_argument("--h100_price", type=float, default=3.0, help="USD an hour of one GPU")
    parser.add_argument("--v5e_price", type=float, default=1.2, help="USD an hour of one chip")
    parser.add_argument("--form", default="accelerator", choices=["accelerator", "cpu"], help="hlo: whose program")
    parser.add_argument("--dtype", default="bfloat16", help="hlo: what convolutions compute in")
    parser.add_argument("--devices", type=int, default=8, help="hlo: virtual ones")
    parser.add_argument("--sizes", type=json.loads, default={}, help='hlo: of the pair, e.g. {"ngf": 16}')
    parser.add_argument("--output", type=pathlib.Path, help="hlo: an existing folder")
    args = parser.parse_args()
    if args.what == "hlo":
        hlo(args.form, args.dtype, args.devices, args.batch, args.sizes, args.output)
    else:
        {"model": model, "measure": measure}[args.what](args)


if __name__ == "__main__":
    main()
