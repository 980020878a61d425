"""Slices from a generator at scale: drawn on all devices, kept in a store, selected, written in others' formats."""
