"""What the package takes of JAX that has no public name; all of it is named here, and nowhere else."""

# The key-value store and the barriers of a job, and the place of a process in it before any device is asked for: Orbax
# takes them from here, too. A public client of jax.distributed would replace `client`; jax.process_index() and
# jax.process_count() would replace the numbers if they did not start the backends.
from jax._src.distributed import global_state

__all__ = ["global_state"]
