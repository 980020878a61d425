"""How the house is built: who imports whom, inside functions too, is read from the sources and held to the floors."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1] / "skullgan_jax"
# From the top. A room, or a module at the top of the package, imports only what is on a floor below its own; so rooms
# of one floor do not import each other.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("__init__", "main", "prepare", "convert", "sample", "evaluate.__main__", "acoustics.__main__"),
    ("train", "evaluate", "acoustics"),
    ("sampling",),
    ("model", "data", "ct", "processes"),
    ("nets",),
    ("slices",),
    ("command",),
    ("machine",),
    ("errors", "version"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def _modules() -> dict[str, pathlib.Path]:
    """Name in the package -> file, e.g. train.loop; a package's own file has the name of its folder."""
    names = {}
    for file in ROOT.rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if parts[0] not in ("configs", "notebooks"):  # of an installed package
            names[".".join(parts[:-1] if parts[1:] and parts[-1] == "__init__" else parts)] = file
    return names


def _imports(name: str, file: pathlib.Path, modules) -> set[str]:
    """The modules of the package that one imports anywhere in its source."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno}: a relative import; name the package"
            wanted = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        inside = {w.removeprefix("skullgan_jax").lstrip(".") or "__init__" for w in wanted if _is_ours(w)} & modules
        # `from skullgan_jax.train import loop` needs train/__init__.py, too, but means loop.
        found |= inside if len(inside) == 1 else {i for i in inside if i != "__init__" and not _holds(i, inside)}
    return found - {name}


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "skullgan_jax"


def _holds(package: str, names: set[str]) -> bool:
    return any(name.startswith(f"{package}.") for name in names)


def _room(name: str) -> str:
    return name if name in FLOOR else name.partition(".")[0]


@pytest.fixture(scope="module")
def house() -> dict[str, set[str]]:
    modules = _modules()
    return {name: _imports(name, file, modules.keys()) for name, file in modules.items()}


def test_every_room_has_a_floor(house):
    assert {_room(name) for name in house} - FLOOR.keys() == set(), "give it a floor above"
    assert len(house) > 60
    assert {"nets.pair", "errors"} <= house["model.pytorch_names"]  # imports are found
    assert "train.loop" in house["main"]  # those in functions, too


def test_no_import_runs_upwards_or_between_rooms_of_one_floor(house):
    wrong = [
        f"{name} imports {other}"
        for name, others in house.items()
        for other in others
        if _room(name) != _room(other) and FLOOR[_room(other)] <= FLOOR[_room(name)]
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_no_module_imports_itself_by_way_of_others(house):
    try:
        graphlib.TopologicalSorter(house).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))
