"""The weights of the published pair under PyTorch's names and under ours: a table, read in both directions."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from skullgan_jax.errors import InputError
from skullgan_jax.nets.networks import Weights
from skullgan_jax.nets.pair import Pair

NETS = ("generator", "discriminator")
_UP = (0, 2, 3, 1)  # (Cin, Cout, kH, kW) -> (Cin, kH, kW, Cout)
_SAME = (2, 3, 1, 0)  # (Cout, Cin, kH, kW) -> (kH, kW, Cin, Cout)
_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
_COUNT = "num_batches_tracked"
_FIRST = {"generator": "main1.0.weight", "discriminator": "main.0.weight"}  # no other network has a key of this end


def table(net: str) -> Iterator[tuple[str, tuple[str, str], tuple[int, ...] | None]]:
    """Rows (torch key, path here, axes to transpose or None); num_batches_tracked has no counterpart."""
    if net == "generator":
        convs = [(f"main{i}.0", f"main{i}", _UP, False) for i in range(1, 7)]
        convs += [(f"conv{i}", f"conv{i}", _SAME, i < 4) for i in range(1, 5)]
        norms = [(f"main{i}.1", f"norm{i}") for i in range(1, 6)]
    else:
        convs = [(f"main.{k}", f"conv{i}", _SAME, True) for i, k in enumerate((0, 2, 5, 8, 11, 14), 1)]
        norms = [(f"main.{k}", f"norm{i}") for i, k in enumerate((3, 6, 9, 12), 2)]
    for theirs, ours, axes, has_bias in convs:
        yield f"{theirs}.weight", (ours, "kernel"), axes
        if has_bias:
            yield f"{theirs}.bias", (ours, "bias"), None
    for theirs, ours in norms:
        for name, leaf in _NORM.items():
            yield f"{theirs}.{name}", (ours, leaf), None


def _counts(net: str) -> list[str]:
    return [key.replace("running_var", _COUNT) for key, (_, leaf), _ in table(net) if leaf == "var"]


def shapes(net: str, pair: Pair) -> dict[str, tuple[int, ...]]:
    """Shapes in torch by key, num_batches_tracked included."""
    trees = jax.eval_shape(lambda: pair.init(0))
    params, stats = trees[:2] if net == "generator" else trees[2:]
    result: dict[str, tuple[int, ...]] = {key: () for key in _counts(net)}
    for key, (layer, leaf), axes in table(net):
        shape = (stats if leaf in ("mean", "var") else params)[layer][leaf].shape
        result[key] = shape if axes is None else tuple(shape[i] for i in np.argsort(axes))
    return result


def find(net: str, tree) -> dict:
    """The state dict of a network in what a file holds, its keys as published.

    It may lie one or two dicts deep, under any key, and its own keys may share a prefix, as `module.` of DataParallel.

    Raises:
      InputError: there is none, or more than one.
    """
    first = _FIRST[net]
    found, keys, seen = {}, [], set()

    def search(node, where, depth):
        if not isinstance(node, dict) or id(node) in seen:  # a dict may be there a million times
            return
        seen.add(id(node))
        keys.extend(f"{where}{key}" for key in node)
        mine = [key for key in node if isinstance(key, str) and (key == first or key.endswith(f".{first}"))]
        if mine:
            for key in mine:
                prefix = key.removesuffix(first)
                foreign = [k for k in node if not (isinstance(k, str) and k.startswith(prefix))]
                if foreign:
                    raise InputError(f"{where}{foreign[0]} is no key of the network of {where}{key}; save that alone")
                found[f"{where}{prefix}"] = {k.removeprefix(prefix): v for k, v in node.items()}
        elif depth < 2:
            for key, value in node.items():
                search(value, f"{where}{key} > ", depth + 1)

    search(tree, "", 0)
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise InputError(f"holds {len(found)} {net}s ({', '.join(map(repr, found))}); save the one that you want")
    (other,) = set(NETS) - {net}
    if any(key.endswith(_FIRST[other]) for key in keys):
        raise InputError(f"holds a {other}, not a {net}; give it as --{other}")
    listed = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "") if keys else "nothing"
    raise InputError(
        f"holds no {net}: there is no {first} in it, but {listed[:200]}; give a .pth of the published pair"
    )


def sizes(state_dicts: dict[str, dict]) -> Pair:
    """nc, nz, ngf, ndf, read off the shapes of one or both networks; ndf is the default without a discriminator.

    Raises:
      InputError: the shapes are not those of any pair.
    """

    def size(net, key, axis):
        shape = np.shape(state_dicts[net].get(key, ()))
        if len(shape) != 4:
            raise InputError(f"{key} of the {net} has shape {shape}, not four axes; give a .pth of the published pair")
        return shape[axis]

    given: dict[str, Any] = {}
    if "generator" in state_dicts:
        given |= {"nz": size("generator", "main1.0.weight", 0), "ngf": size("generator", "main1.0.weight", 1) // 16}
        given["nc"] = size("generator", "conv4.weight", 0)
    if "discriminator" in state_dicts:
        nc = size("discriminator", "main.0.weight", 1)
        if nc != given.setdefault("nc", nc):
            raise InputError(f"the generator makes {given['nc']} channels, the discriminator sees {nc}; give one pair")
        given["ndf"] = size("discriminator", "main.0.weight", 0)
    pair = Pair(**given)
    pair.graphs()  # refuses sizes that the architecture cannot have
    return pair


def from_torch(net: str, state_dict: dict, pair: Pair) -> tuple[Weights, Weights, list[int]]:
    """A published state dict as (params, stats, batches tracked by each BatchNorm).

    Args:
      net: "generator" or "discriminator".
      state_dict: torch key -> array of a floating dtype; num_batches_tracked may be missing.
      pair: the sizes that the shapes must have.

    Returns:
      Nested dicts of float32 copies, and a list of numbers.

    Raises:
      InputError: keys are missing or unexpected, shapes are wrong, values are not finite or variances negative; all is
        listed in one line.
    """
    expected, counts = shapes(net, pair), _counts(net)
    wrong = [f"missing {key}" for key in expected if key not in state_dict and key not in counts]
    wrong += [f"unexpected {key}" for key in state_dict if key not in expected]
    for key, shape in expected.items():
        value = state_dict.get(key, np.zeros((), np.int64))
        kinds = "iu" if key in counts else "fV"  # V: ml_dtypes.bfloat16
        if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
            wrong.append(f"{key} is no array of numbers")
        elif key in state_dict and value.shape != shape:
            wrong.append(f"{key} has shape {value.shape} in place of {shape}")
    if wrong:
        raise InputError(
            f"is not a {net} of nc={pair.nc} nz={pair.nz} ngf={pair.ngf} ndf={pair.ndf}: {'; '.join(wrong)}"
        )
    params: Weights = {}
    stats: Weights = {}
    negative = []
    for key, (layer, leaf), axes in table(net):
        array = state_dict[key]
        array = _aligned(array if axes is None else array.transpose(axes))
        if not np.isfinite([array.min(), array.max()]).all():  # both pass a NaN on
            wrong.append(key)
        elif leaf == "var" and array.min() < 0:
            negative.append(key)
        target = stats if leaf in ("mean", "var") else params
        target.setdefault(layer, {})[leaf] = array
    if wrong:
        raise InputError(f"holds NaN or infinite weights in {', '.join(wrong)}; take an earlier checkpoint")
    if negative:
        raise InputError(f"holds negative variances in {', '.join(negative)}; take an earlier checkpoint")
    return params, stats, [int(state_dict.get(key, 0)) for key in counts]


def _aligned(array: np.ndarray) -> np.ndarray:
    """A float32 copy on a boundary of 64 bytes, which JAX on a CPU takes as it is; others it copies once more."""
    buffer = np.empty(4 * array.size + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    copy = buffer[start : start + 4 * array.size].view(np.float32).reshape(array.shape)
    np.copyto(copy, array, casting="same_kind")
    return copy


def to_torch(
    net: str, params: Weights, stats: Weights, batches_tracked: list[int] | None = None
) -> dict[str, np.ndarray]:
    """The inverse of `from_torch`; batches_tracked are zeros if not given."""
    state_dict = {}
    for key, (layer, leaf), axes in table(net):
        array = np.asarray(jax.device_get((stats if leaf in ("mean", "var") else params)[layer][leaf]))
        state_dict[key] = array if axes is None else np.ascontiguousarray(array.transpose(np.argsort(axes)))
    counts = _counts(net)
    for key, count in zip(counts, batches_tracked or [0] * len(counts), strict=True):
        state_dict[key] = np.asarray(count, np.int64)
    return state_dict
