"""A trained pair: on disk, from PyTorch, from a run; draws slices."""
