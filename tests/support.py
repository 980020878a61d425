"""What several tests share: programs that compile fast, and weights and inputs from a closed formula.

The formula makes tests/data/torch_facts.npz small: the file holds what torch answers, not what it was asked.
"""

import contextlib
import functools
import zlib

import jax
import numpy as np

from skullgan_jax.model import pytorch_names
from skullgan_jax.nets import networks
from skullgan_jax.nets.pair import Pair
from skullgan_jax.train import step


def _known(options: dict) -> dict:
    """Those of the options that the installed XLA has: their names come and go."""
    trial = jax.jit(lambda: 0).lower()
    known = {}
    for name, value in options.items():
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # no such compile option
            trial.compile({name: value})
            known[name] = value
    return known


# The tiny nets of the tests run for milliseconds; a CPU's optimiser would take ten times as long as they do, and the
# emitters of fused loops, without it, as long again.
QUICK = _known({"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False})
_jit = jax.jit  # in whose place tests put the next


def quick_jit(f, *, compiler_options=None, **options):
    """jax.jit with these options above those of the program."""
    return _jit(f, compiler_options={**(compiler_options or {}), **QUICK}, **options)


def ended(process, returncode: int, *, within: float = 300) -> str:
    """What a process of the `start` fixture said on stderr until it ended, as it should; within so many seconds."""
    _, said = process.communicate(timeout=within)
    assert process.returncode == returncode, said
    return said


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in (-1, 1) that look uniform and independent and depend on the name and the shape alone.

    Element k is (h + 1/2) / 2^23 - 1 with h the top 24 bits of the murmur3 finaliser of k + crc32(name), all in uint32
    arithmetic: the same bits on every machine and in every version of numpy.
    """
    h = np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint32)
    h *= np.uint32(0x9E3779B1)
    h += np.uint32(zlib.crc32(name.encode()))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h ^= h >> np.uint32(shift)
        h *= np.uint32(factor)
    h ^= h >> np.uint32(16)
    h >>= np.uint32(8)
    x = h.astype(np.float32)
    x += np.float32(0.5)
    x *= np.float32(2.0**-23)
    x -= np.float32(1)
    return x.reshape(shape)


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weight of a key of a published state dict.

    Kernels keep the variance of what they are given, so that every layer matters to the output: uniform of variance
    1/fan_in. Scales lie in 1 +- 0.1, shifts, biases and running means in +-0.1, running variances in 1 +- 0.5.
    """
    u = uniform(key, shape)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if len(shape) == 4:
        if key == "main1.0.weight":
            fan_in = shape[0]
        elif key.endswith(".0.weight") and key != "main.0.weight":  # a transposed convolution: 4 of 16 taps meet
            fan_in = 4 * shape[0]
        else:
            fan_in = shape[1] * shape[2] * shape[3]
        u *= np.float32(np.sqrt(3 / fan_in))
        return u
    if key.endswith("running_var"):
        return 1 + np.float32(0.5) * u
    is_scale = key.endswith(".weight")  # the only weights with one axis
    return np.float32(is_scale) + np.float32(0.1) * u


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A state dict from key -> shape."""
    return {key: weight(key, tuple(shape)) for key, shape in shapes.items()}


def inputs(name: str, batch: int, sizes: dict[str, int]) -> dict:
    """z, the two noise arrays (variance 1), real images and images to blur, B H W C; sizes has nc, nz and ngf."""
    images = {k: uniform(f"{name} {k}", (batch, 128, 128, sizes["nc"])) for k in ("real", "blur")}
    noise = [
        np.float32(np.sqrt(3)) * uniform(f"{name} noise {i}", (batch, 128, 128, c))
        for i, c in enumerate((sizes["ngf"] // 2, sizes["ngf"] // 8))
    ]
    return {"z": uniform(f"{name} z", (batch, sizes["nz"])), "noise": noise, **images}


def pair_weights(pair: Pair):
    """(g_params, g_stats, d_params, d_stats) of the formula, without allocating anything else."""
    g_params, g_stats, d_params, d_stats = jax.tree.map(
        lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), jax.eval_shape(pair.init, 0)
    )
    result = []
    for net, params, stats in (("generator", g_params, g_stats), ("discriminator", d_params, d_stats)):
        shapes = {key: array.shape for key, array in pytorch_names.to_torch(net, params, stats).items()}
        result += pytorch_names.from_torch(net, weights(shapes), pair)[:2]
    return tuple(result)


@functools.cache
def forward(pair: Pair, net: str, train: bool):
    """Compiled (params, stats, *inputs) -> (output, stats) of one network."""
    g_graph, d_graph = pair.graphs()
    graph = g_graph if net == "generator" else d_graph
    return quick_jit(functools.partial(networks.apply, graph, train=train))


@functools.cache
def advance(pair: Pair, patience: int):
    """Compiled (state, inputs, epoch, gate_loss) -> (state, metrics): the adversarial step."""
    graphs = pair.graphs()

    def run(state, x, epoch, gate_loss):
        recipe = step.Recipe(patience=patience, gate_loss=gate_loss)
        return step.adversarial_step(
            state, x["real"], x["blur"], x["z"], x["noise"], epoch, graphs=graphs, recipe=recipe
        )

    return quick_jit(run)


def bright_block(pair: Pair, background: float) -> dict[str, np.ndarray]:
    """A generator's state dict whose samples are a bright block on a ground of one value, whatever the latent.

    One of the 4 x 4 places of main1 gets z and -z in turn, so that ReLU leaves something positive; all else adds up
    positive weights, and the bias of conv3 moves the ground.
    """
    state_dict = {}
    for key, shape in pytorch_names.shapes("generator", pair).items():
        state_dict[key] = np.zeros(shape, np.int64 if key.endswith("tracked") else np.float32)
        if key.endswith((".1.weight", "running_var")):
            state_dict[key][:] = 1
    first = state_dict["main1.0.weight"]
    first[0, ::2, 1, 1], first[0, 1::2, 1, 1] = 4, -4
    gains = {6: 0.01}  # the texture noise goes with the square of what it is added to
    for i in range(2, 7):
        kernel = state_dict[f"main{i}.0.weight"]
        kernel[:] = gains.get(i, 1) / kernel.shape[0]
    gains = {4: 5000}
    for i in range(1, 5):
        kernel = state_dict[f"conv{i}.weight"]
        kernel[:, :, 1, 1] = gains.get(i, 1) / kernel.shape[1]
    state_dict["conv3.bias"][:] = np.arctanh(background) / 5000
    return state_dict
