"""What lies in a folder."""

import pathlib


def files(folder, *, but="\0"):
    """The bytes of all files below by name, without those whose names begin with `but`."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in pathlib.Path(folder).rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if not name.startswith(but)}
