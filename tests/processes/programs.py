"""For tests: the processes of a job on one machine share their compiled programs."""

# Private of JAX. An option of the compilation cache to leave the devices out of its keys would replace it.
from jax._src import cache_key


def share() -> None:
    """On a CPU, JAX tells the programs of a job's processes apart by the process, and only the first writes them.

    All others would compile at each start. On GPUs the key leaves the devices out, as it does from now on.
    """
    options = cache_key._hash_serialized_compile_options
    cache_key._hash_serialized_compile_options = lambda h, o, **_: options(h, o, strip_device_assignment=True)
    cache_key._hash_accelerator_config = lambda *_: None
