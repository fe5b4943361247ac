"""The layers of acon_core: a module imports its own package and lower floors, nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. A module belongs to the room with the longest name that fits. "" is the
# package itself.
# docs/architecture.md shows this table.
FLOORS: tuple[dict[str, str], ...] = (
    {"": "the version", "errors": "the exceptions", "random": "reproducible random numbers"},
    {"tensors": "arrays that load on demand", "training": "the published training recipe"},
    {"spec": "networks, layers and activations as data", "checkpoint.codecs": "file formats without a network"},
    {
        "networks": "the registry of networks",
        "layout": "canonical and native names and arrays",
        "framework": "what a framework adds to public signatures and docstrings",
        "building": "what all backends share to build modules and to observe them",
        "numerics": "test states and the measure of an error",
        "kernels": "plans of calls of the kernel library",
        "discovery": "which packages are registered as backends",
    },
    {
        "backends": "the interface of a backend, and its discovery",
        "gpu": "how kernels on a GPU divide an array",
    },
    {"checkpoint": "recognition, conversion and comparison of files"},
    {"reference": "every node in NumPy float64", "surgery": "operations on native modules"},
    {"frontend": "the public functions and classes of every backend"},
    {"conformance": "cases, golden numbers, runner", "verification": "running a checkpoint before and after conversion"},
    {"cli": "the command `acon`"},
    {"__main__": "the same, as `python -m acon_core`"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# What a backend builds on: it knows neither the reference nor what runs backends.
FOR_BACKENDS = set(FLOOR) - {"reference", "conformance", "verification", "cli"}


def modules(folder: Path) -> dict[str, Path]:
    """Return the modules of a package by dotted name."""
    paths = {path.relative_to(folder.parent).with_suffix(""): path for path in sorted(folder.rglob("*.py"))}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in paths.items()}


CORE = modules(ROOT / "acon_core")


def imported(path: Path) -> Iterator[str]:
    """Yield the modules of acon_core that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "acon_core")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            if (node.module or "").partition(".")[0] == "acon_core":
                names = (f"{node.module}.{alias.name}" for alias in node.names)
                yield from (name if name in CORE else str(node.module) for name in names)


def room(module: str) -> str | None:
    """Return the room of a module, or None."""
    parts = module.split(".")[1:]
    found = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in found if name in FLOOR), None if parts else "")


def test_every_module_has_a_floor() -> None:
    rooms = {module: room(module) for module in CORE}
    assert [module for module, name in rooms.items() if name is None] == []
    assert set(FLOOR) == set(rooms.values()), "a room without modules"


@pytest.mark.parametrize("module", CORE)
def test_imports_point_down(module: str) -> None:
    own = room(module)
    for target in imported(CORE[module]):
        other = room(target)
        assert other == own or FLOOR[str(other)] < FLOOR[str(own)], f"{module} imports {target}, which is not below it"


@pytest.mark.parametrize("name", ["acon_torch", "acon_jax", "acon_paddle", "acon_megengine"])
def test_backends_import_their_foundation(name: str) -> None:
    for module, path in modules(ROOT / "backends" / name).items():
        for target in imported(path):
            assert room(target) in FOR_BACKENDS, f"{module} imports {target}"


def test_checkpoints_load_without_the_floors_above() -> None:
    """`acon convert` does not need the reference, surgery or the conformance suite."""
    code = "import sys, acon_core.checkpoint; print(*(name for name in sys.modules if name.startswith('acon_core')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {room(module) for module in done.stdout.split()}
    assert "checkpoint" in loaded
    assert not [name for name in loaded if FLOOR[str(name)] > FLOOR["checkpoint"]]


def test_documentation_shows_the_floors() -> None:
    lines = ["| folder or file of `acon_core` | what |", "|---|---|"]
    for rooms in reversed(FLOORS):
        names = ", ".join(f"`{name.replace('.', '/') or '__init__'}`" for name in rooms)
        lines.append(f"| {names} | {'; '.join(rooms.values())} |")
    table = "\n".join(lines)
    text = (ROOT / "docs" / "architecture.md").read_text()
    shown = text.partition("<!-- floors: begin -->")[2].partition("<!-- floors: end -->")[0].strip()
    assert shown == table, f"docs/architecture.md: put this between the marks:\n{table}"
