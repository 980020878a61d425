"""The networks: layers, the pair, random streams."""
