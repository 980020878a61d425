"""What is private of JAX stands in one file."""

from tests.conftest import ROOT


def test_no_other_file_names_it():
    files = [f for folder in ("skullgan_jax", "configs", "benchmarks", "tests") for f in (ROOT / folder).rglob("*.py")]
    private = "jax." + "_src"
    found = {str(f.relative_to(ROOT)) for f in files if private in f.read_text()}
    # The second is for the tests of a real Slurm alone.
    assert found == {"skullgan_jax/processes/jax_private.py", "tests/processes/programs.py"}
