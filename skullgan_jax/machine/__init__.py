"""The machine: memory, TensorFlow's import, files written whole."""
