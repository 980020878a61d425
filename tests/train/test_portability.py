"""The training step and the sampler as programs for GPUs and TPUs, made on a machine that has neither."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from skullgan_jax.model import draw
from skullgan_jax.nets.pair import Pair
from skullgan_jax.slices.calibration import Calibration
from skullgan_jax.train import sharding, state, step
from tests import support

SIZES = {"small": {"nz": 20, "ngf": 16, "ndf": 8}, "published": {}}
BATCH = 16
CASES = [("small", "float32", 1), ("small", "bfloat16", 4), ("published", "bfloat16", 8)]
of_cases = pytest.mark.parametrize(("size", "dtype", "devices"), CASES)
on_accelerators = pytest.mark.parametrize("platform", ["cuda", "tpu"])


def mesh_of(devices: int) -> AbstractMesh:
    return AbstractMesh((devices,), ("data",), axis_types=(AxisType.Auto,))


def placed(shapes, where):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes)


@functools.cache
def step_on(pair: Pair, devices: int):
    """The step on a mesh, its batch divided over the devices, as the training command makes it, and what it takes."""
    mesh, recipe = mesh_of(devices), step.Recipe()
    everywhere, by_image = sharding.everywhere(mesh), sharding.by_image(mesh)
    train_step = step.make_train_step(pair, recipe, seed=0, steps_per_epoch=125)
    now = jax.eval_shape(lambda: state.create(*pair.init(0), recipe=recipe))
    leaves, tree = jax.tree.flatten(now)  # a file of an exported program knows lists and dicts, not a TrainState

    def run(leaves, batch):
        now, metrics = train_step(tree.unflatten(leaves), batch)
        return jax.tree.leaves(now), metrics

    run = jax.jit(run, in_shardings=(everywhere, by_image), out_shardings=everywhere, donate_argnums=0)
    image = jax.ShapeDtypeStruct((BATCH, 128, 128, pair.nc), jnp.float32)
    return run, (leaves, {"real": image, "blur": image})


@functools.cache
def sampler_on(pair: Pair, devices: int):
    """The sampler's program, a batch on each device, weights folded, measures included."""
    mesh = mesh_of(devices)
    run = draw._program(pair, True, Calibration(0, 2734.53), 0.46875, BATCH, mesh)
    params, stats = jax.eval_shape(lambda: pair.init(0)[:2])
    params = jax.eval_shape(draw._fold(pair.dtype, sharding.everywhere(mesh)), params, stats)
    key = jax.eval_shape(lambda: draw.key(0))
    starts = placed(jax.ShapeDtypeStruct((devices,), jnp.uint32), sharding.by_image(mesh))
    return run, (*placed((params, key), sharding.everywhere(mesh)), starts)


def exported(program, platform: str) -> jax.export.Exported:
    """For a platform; two of them share what is traced."""
    run, inputs = program
    return jax.export.export(run, platforms=[platform])(*inputs)


def layers(pair: Pair) -> tuple[list, list, list]:
    """Input, kernel and output of each convolution of G, of D and of D on reals and fakes together.

    E.g. 16x4x4x256, 4x4x256x128, 16x8x8x128.
    """

    def layer(size, taps, cin, cout, scale, batch=BATCH):
        return (
            f"{batch}x{size}x{size}x{cin}",
            f"{taps}x{taps}x{cin}x{cout}",
            f"{batch}x{int(size * scale)}x{int(size * scale)}x{cout}",
        )

    g = [layer(4 << i, 4, 16 * pair.ngf >> i, 8 * pair.ngf >> i, 2) for i in range(5)]
    widths = [pair.ngf >> i for i in range(1, 5)] + [pair.nc]
    g += [layer(128, 3, cin, cout, 1) for cin, cout in itertools.pairwise(widths)]
    widths = [pair.nc] + [pair.ndf << i for i in range(5)]
    d, both = (
        [layer(128 >> i, 4, *pair_of, 0.5, batch) for i, pair_of in enumerate(itertools.pairwise(widths))]
        for batch in (BATCH, 2 * BATCH)
    )
    return g, d, both


def step_convolutions(pair: Pair) -> set[tuple[str, str]]:
    """Both operands of every convolution of a step: forward, by the input and by the kernel."""
    g, d, both = layers(pair)
    everything = {operands for net in (g, d, both) for x, k, y in net for operands in ((x, k), (y, k), (x, y))}
    return everything - unused(pair)


def unused(pair: Pair) -> set[tuple[str, str]]:
    """The gradients that nothing asks for: D's kernels by G's loss, and the images by D's.

    JAX 0.10 leaves them to XLA to drop, JAX 0.12 drops them itself.
    """
    _, d, both = layers(pair)
    _, first_kernel, first_y = both[0]
    return {(x, y) for x, _, y in d} | {(first_y, first_kernel)}


def step_products(pair: Pair) -> set[tuple[str, str]]:
    """The same of main1, whose input has no gradient, and of D's last layer, whose kernel has one of both together."""
    z, kernel, x = f"{BATCH}x{pair.nz}", f"{pair.nz}x{256 * pair.ngf}", f"{BATCH}x{256 * pair.ngf}"
    column, sizes = f"{256 * pair.ndf}x1", (BATCH, 2 * BATCH)
    last, logits = zip(*((f"{batch}x{256 * pair.ndf}", f"{batch}x1") for batch in sizes), strict=True)
    return {(z, kernel), (x, z), (logits[1], last[1])} | {(a, column) for a in (*last, *logits)}


def operand_types(text: str, operation: str) -> list[tuple[str, str]]:
    """The types of both operands of each `operation`, e.g. 16x8x8x64xbf16."""
    return re.findall(rf"stablehlo\.{operation}\b.* : \(tensor<([^>]*)>, tensor<([^>]*)>\) ->", text)


def check(exported, platform: str, dtype: str, devices: int, convolutions: set, products: set, idle: set) -> str:
    """What holds for every program for an accelerator, with all the `idle` convolutions or none; its text."""
    text = exported.mlir_module()
    assert exported.platforms == (platform,)
    assert exported.nr_devices == devices
    # These and no other: each layer is a convolution of the whole batch in the dtype asked for, not the many products
    # that a CPU takes in its place, nor one for each image.
    ending = {"float32": "xf32", "bfloat16": "xbf16"}[dtype]
    for operation, expected in (("convolution", convolutions), ("dot_general", products)):
        found = operand_types(text, operation)
        assert len(found) == text.count(f"stablehlo.{operation}")
        may, must = ({(x + ending, y + ending) for x, y in each} for each in (idle, expected))
        assert set(found) in (must, must | may)
    assert not re.search(r"[<x]f64>", text)
    assert "custom_call" not in text  # of which host callbacks would be one
    assert not re.search(r"stablehlo\.(infeed|outfeed|send|recv)\b", text)
    again = jax.export.deserialize(exported.serialize())
    assert (again.platforms, again.nr_devices) == (exported.platforms, exported.nr_devices)
    assert again.mlir_module() == text
    return text


@on_accelerators
@of_cases
def test_step_lowers(size, dtype, devices, platform):
    pair = Pair(**SIZES[size], dtype=dtype)
    found = exported(step_on(pair, devices), platform)
    text = check(found, platform, dtype, devices, step_convolutions(pair), step_products(pair), unused(pair))
    # The two arrays of the batch come in divided, nothing else does.
    main = re.search(r"func\.func public @main\((.*?)\) ->", text, re.DOTALL).group(1)
    divided = re.findall(r"tensor<([^>]*)> \{[^}]*@mesh, \[\{\"data\"", main)
    assert divided == ["16x128x128x1xf32"] * 2
    if devices > 1:
        assert f'["data"={devices}]' in text
    assert {a.dtype for a in found.out_avals} == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}


@on_accelerators
@of_cases
def test_sampler_lowers(size, dtype, devices, platform):
    pair = Pair(**SIZES[size], dtype=dtype)
    found = exported(sampler_on(pair, devices), platform)
    forward = {(x, kernel) for x, kernel, _ in layers(pair)[0]}
    first = (f"{BATCH}x{pair.nz}", f"{pair.nz}x{256 * pair.ngf}")
    text = check(found, platform, dtype, devices, forward, {first}, set())
    assert found.out_avals[0].str_short() == f"int16[{devices * BATCH},128,128]"
    # Devices say nothing to each other.
    assert not re.search(r"stablehlo\.(all_|collective_|reduce_scatter)", text)


def test_program_for_a_gpu_draws_the_same_samples():
    """Run here: other forms of all layers, the same images but where the edge of the noise's mask decides.

    A CPU runs it as it is, since nothing in it belongs to a GPU alone.
    """
    pair = Pair(**SIZES["small"])
    g_params, g_stats, _, _ = support.pair_weights(pair)
    inputs = (g_params, g_stats, draw.key(1), jnp.arange(4))
    generate = draw.generator(pair)
    anywhere = [jax.export.DisabledSafetyCheck.platform()]
    found = jax.export.export(generate, platforms=["cuda"], disabled_checks=anywhere)(*inputs)
    assert "stablehlo.convolution" in found.mlir_module()
    options = {"compiler_options": {"xla_backend_optimization_level": 0}}
    there = np.asarray(jax.jit(found.call, **options)(*inputs))
    here = np.asarray(generate.lower(*inputs).compile(support.QUICK)(*inputs))
    assert np.std(here) > 0.1
    apart = np.abs(there - here)
    assert np.mean(apart > 1e-4) < 1e-3
