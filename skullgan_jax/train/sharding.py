"""Where arrays live: one axis of devices, over which batches are divided, and weights, too, if asked for."""

import dataclasses

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from skullgan_jax.train.state import TrainState

_LEAST = 1 << 14  # elements; smaller arrays are not worth a message


def mesh() -> Mesh:
    """All devices of the job along `data`, those of a process beside each other, as its rows of a batch are."""
    devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def everywhere(mesh: Mesh) -> NamedSharding:
    """A copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def by_image(mesh: Mesh) -> NamedSharding:
    """A batch divided over the devices along B."""
    return NamedSharding(mesh, PartitionSpec("data"))


def placed(shapes, mesh: Mesh, *, shard_state: bool):
    """A TrainState of shapes with where each array lives.

    Args:
      shapes: the TrainState as ShapeDtypeStructs.
      mesh: the devices.
      shard_state: divide each large array along its longest axis that the devices divide (ZeRO, arXiv 1910.02054, as in
        fully sharded data parallelism), in place of a copy of everything on each device.

    Returns:
      The same ShapeDtypeStructs with a sharding each.
    """

    def place(leaf) -> NamedSharding:
        axes = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
        if not shard_state or leaf.size < _LEAST or not axes:
            return everywhere(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*(None,) * longest, "data"))

    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place(leaf)), shapes)


def of(like):
    """The shardings of what `placed` gives."""
    return jax.tree.map(lambda leaf: leaf.sharding, like)


def gathered(step, mesh: Mesh):
    """`step(state, batch)` on whole weights: collected for the step, while what Adam keeps and does stays divided."""

    def run(state: TrainState, batch):
        moved = {name: getattr(state, name) for name in state.MOVED}
        return step(dataclasses.replace(state, **jax.lax.with_sharding_constraint(moved, everywhere(mesh))), batch)

    return run
