"""The size of a slice."""

SIZE = 128  # pixels along each side
PIXEL_MM = 0.46875  # edge of a pixel where nothing else is said: 60 mm / 128
