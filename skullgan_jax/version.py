"""The version, also of what is written."""

__version__ = "0.1.0"
