"""What the devices of a training step tell each other, and that they divide the work: read from its HLO."""

import collections
import json
import math
import re

import jax
import pytest

from benchmarks import scaling
from skullgan_jax.nets.pair import Pair

PAIR = Pair(nz=16, ngf=16, ndf=8)
SIZES = json.dumps({"nz": 16, "ngf": 16, "ndf": 8})
IMAGES, DEVICES = 7, 19  # of a device, and how many: primes that are in no other size
FORMS = [("accelerator", "float32"), pytest.param("accelerator", "bfloat16", marks=pytest.mark.all)]


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A function of form and dtype: the step's HLO after partitioning and after all passes."""
    known = {}

    def compiled(form, dtype):
        key = form, dtype
        if key not in known:
            folder = tmp_path_factory.mktemp("hlo")
            options = {"form": form, "dtype": dtype, "devices": DEVICES, "batch": IMAGES * DEVICES, "sizes": SIZES}
            scaling.compile_elsewhere(folder, **options)
            known[key] = [(folder / f"{name}.txt").read_text() for name in ("partitioned", "optimised")]
        return known[key]

    return compiled


def parameters():
    """Shapes of the kernels and of the biases of G and of D, without scale and shift of BatchNorm."""
    g, _, d, _ = jax.eval_shape(PAIR.init, 0)
    flat = [(path, leaf.shape) for net in (g, d) for path, leaf in jax.tree.leaves_with_path(net)]
    convolutions = [shape for path, shape in flat if not path[0].key.startswith("norm")]
    return [s for s in convolutions if len(s) > 1], [s for s in convolutions if len(s) == 1]


def channels():
    """Channels that BatchNorm sees in a step: of G, of D where its weights get gradients, of D where they do not."""
    g, d = sum(16 * PAIR.ngf >> i for i in range(5)), sum(2 * PAIR.ndf << i for i in range(4))
    return g, 2 * d, d


@pytest.mark.parametrize(("form", "dtype"), FORMS)
def test_gradients_and_statistics_are_summed_and_nothing_else(programs, form, dtype):
    """Every array that is communicated: no image, no activation, no noise, no weight, no latent.

    Kernels' gradients to the element, D's of reals and fakes together. BatchNorm forward: mean and variance. Backward:
    the gradients of scale and shift, and those of variance and mean.
    """
    partitioned, optimised = programs(form, dtype)
    found = scaling.collectives(partitioned)
    assert {c.operation for c in found} == {"all-reduce"}
    assert {c.times for c in found} == {1}
    by_rank = collections.defaultdict(list)
    for kind, shape in (array for c in found for array in c.arrays):
        rank = len(shape) - (shape[:-1] == (2,))  # channels, of reals and of fakes
        by_rank[min(rank, 2)].append((kind, math.prod(shape)))

    kernels, biases = parameters()
    width = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    assert collections.Counter(by_rank[2]) == collections.Counter((width, math.prod(s)) for s in kernels)

    vectors = sum(size for _, size in by_rank[1])
    g, d, d_frozen = channels()
    biases = sum(math.prod(s) for s in biases)
    most = biases + 2 * (g + d + d_frozen) + 4 * (g + d) + 3 * d_frozen
    least = biases + 2 * (g + d + d_frozen) + 2 * (g + d)
    assert least <= vectors <= most
    # Statistics, and what follows from them, in float32 whatever the convolutions compute in.
    assert sum(size for kind, size in by_rank[1] if kind == "f32") >= least - biases

    assert len(by_rank[0]) <= 8  # means of losses and of D's outputs
    if dtype == "float32":  # a CPU sums bfloat16 as float32, other platforms as it is
        total = sum(c.bytes for c in found)
        assert sum(c.bytes * c.times for c in scaling.collectives(optimised)) == total
        exact = sum(math.prod(s) for s in kernels)
        assert 4 * (exact + least) <= total <= 4 * (exact + most + 8)


@pytest.mark.parametrize(("form", "dtype"), FORMS)
def test_work_is_divided(programs, form, dtype):
    """Texture noise, layers and losses are computed for a device's own images alone."""
    check_divided(programs(form, dtype)[1])


@pytest.mark.slow
def test_program_of_a_cpu(programs):
    """Wide layers are many products of transformed kernels, 9/4 of the weights at most, which are summed one by one.

    Those of the layers that run image by image are summed after each image: the gradient of main6 to conv4.
    """
    optimised = programs("cpu", "float32")[1]
    check_divided(optimised)
    found = scaling.collectives(optimised)
    assert {c.operation for c in found} == {"all-reduce"}
    assert {c.times for c in found} <= {1, IMAGES}
    kernels, biases = parameters()
    of_last = [
        PAIR.ngf * 16 * PAIR.ngf // 2,
        *(9 * (PAIR.ngf >> i) * max(PAIR.ngf >> (i + 1), 1) for i in (1, 2, 3, 4)),
    ]
    repeated = sum(c.bytes * c.times for c in found if c.times > 1)
    assert 0 < repeated <= 4 * IMAGES * (9 / 4) * (sum(of_last) + 7)
    once = sum(c.bytes for c in found if c.times == 1)
    exact = 4 * sum(math.prod(s) for s in kernels)
    g, d, d_frozen = channels()
    assert exact / 2 < once <= 9 / 4 * exact + 4 * (sum(map(math.prod, biases)) + 6 * (g + d + d_frozen) + 8)


def check_divided(optimised: str) -> None:
    """No array holds the images of all devices, whatever its axes were folded into."""
    seen = {size for _, shape in scaling.shapes(optimised) for size in shape if size}
    assert {IMAGES, 2 * IMAGES} <= seen  # those of a device, and its reals and fakes in turns
    assert not {size for size in seen if size % (IMAGES * DEVICES) == 0}
    # The bits of the texture noise, of which an element of two takes one.
    bits = {shape for line in re.findall(r"= (u32\S*) xor\(", optimised) for _, shape in scaling.shapes(line)}
    noise = {shape for shape in bits if math.prod(shape) > 10_000}
    assert noise == {(IMAGES, 64, 128, PAIR.ngf // 2), (IMAGES, 64, 128, PAIR.ngf // 8)}
