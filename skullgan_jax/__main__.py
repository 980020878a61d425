"""python -m skullgan_jax is skullgan."""

from skullgan_jax.cli import main

if __name__ == "__main__":
    main()
