"""An import points only to a lower layer, and rooms of one layer do not know each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sb3_vgs_ppo

PACKAGE = Path(sb3_vgs_ppo.__file__).parent
LAYERS = {
    "errors": 0,
    "glossary": 0,
    "_alarms": 0,
    "_types": 0,
    "_files": 0,
    "_compile": 0.5,  # between: it needs errors, and optim needs it
    "_numba": 0.5,  # likewise, and scaling too
    "_flat": 0,
    "_hints": 0,
    "_values": 1,
    "presets": 1,
    "distributional": 1,
    "optim": 1,
    "plasticity": 1,
    "scaling": 1,
    "checkpoint": 1,
    "envs": 1,
    "callbacks": 2,
    "change": 2,
    "ppo": 2,
    "studies": 2,
    "migration": 3,
    "runs": 4,
    "zoo": 5,
    "cli": 6,
}


def room_of(module: str) -> str | None:
    """The room of a dotted module of the package, None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def imported_rooms(source: str) -> set[str]:
    """Rooms that a module's source imports, wherever in the file the import stands."""
    rooms: set[str | None] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"relative import in line {node.lineno}: write the full name")
            module = node.module or ""
            modules = [f"{module}.{alias.name}" for alias in node.names] if module == "sb3_vgs_ppo" else [module]
        else:
            continue
        rooms |= {room_of(name) for name in modules if name.split(".")[0] == "sb3_vgs_ppo"}
    return {room for room in rooms if room is not None and not room.startswith("__version__")}


def violations(room: str, source: str) -> list[str]:
    return sorted(other for other in imported_rooms(source) if other != room and not (LAYERS[other] < LAYERS[room]))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
        return  # the package's front doors may open on any room
    assert room in LAYERS, f"{room} is not a known room; give it a layer"
    assert violations(room, path.read_text()) == []


@pytest.mark.parametrize(
    ("room", "source", "expected"),
    [
        ("scaling", "from sb3_vgs_ppo.optim import UPGD", ["optim"]),
        ("scaling", "from sb3_vgs_ppo import optim", ["optim"]),
        ("scaling", "def f():\n    import sb3_vgs_ppo.runs.loop", ["runs"]),
        ("ppo", "from sb3_vgs_ppo.scaling import VarianceGradientScaler", []),
        ("runs", "from sb3_vgs_ppo import __version__", []),
        ("studies", "from sb3_vgs_ppo.ppo import DistributionalPPO", ["ppo"]),
    ],
)
def test_the_reader_sees_violations(room: str, source: str, expected: list[str]) -> None:
    assert violations(room, source) == expected
