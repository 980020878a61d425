"""Training data: skull slices in HU, CelebA, the built-in phantom."""
