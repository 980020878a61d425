"""Weights between torch's state dicts and this project's parameters: a table, read in both directions."""

import jax
import numpy as np

_UP = (0, 2, 3, 1)  # (Cin, Cout, kH, kW) -> (Cin, kH, kW, Cout)
_SAME = (2, 3, 1, 0)  # (Cout, Cin, kH, kW) -> (kH, kW, Cin, Cout)
_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def _table(net: str):
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


def from_torch(net: str, state_dict: dict) -> tuple[dict, dict]:
    """A published state dict as (params, stats).

    Args:
      net: "generator" or "discriminator".
      state_dict: torch key -> array.

    Raises:
      KeyError: a key is missing.
    """
    params, stats = {}, {}
    for key, (layer, leaf), axes in _table(net):
        array = np.asarray(state_dict[key], np.float32)
        target = stats if leaf in ("mean", "var") else params
        target.setdefault(layer, {})[leaf] = array if axes is None else np.ascontiguousarray(array.transpose(axes))
    return params, stats


def to_torch(net: str, params: dict, stats: dict, batches_tracked: int = 0) -> dict:
    """The inverse of `from_torch`: torch key -> numpy array, num_batches_tracked included."""
    state_dict = {}
    for key, (layer, leaf), axes in _table(net):
        array = np.asarray(jax.device_get((stats if leaf in ("mean", "var") else params)[layer][leaf]))
        state_dict[key] = array if axes is None else np.ascontiguousarray(array.transpose(np.argsort(axes)))
        if leaf == "var":
            state_dict[key.replace("running_var", "num_batches_tracked")] = np.asarray(batches_tracked, np.int64)
    return state_dict
