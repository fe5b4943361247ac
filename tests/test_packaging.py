"""What is shipped and what imports what: the wheel, the golden data in it, and no framework anywhere near the core."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FRAMEWORKS = {"torch", "jax", "jaxlib", "flax", "optax", "paddle", "megengine"}
BACKENDS = {f"acon_{name}" for name in ("torch", "jax", "paddle", "megengine")}


def imports(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere in it, those for type checkers alone apart."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "acon_core").rglob("*.py")), ids=lambda path: path.name)
def test_the_core_imports_no_framework_and_no_backend(path: Path) -> None:
    assert not imports(path) & (FRAMEWORKS | BACKENDS)


@pytest.mark.parametrize("path", sorted((ROOT / "backends").rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_backend_imports_its_own_framework_and_no_other_backend(path: Path) -> None:
    own, *below = path.relative_to(ROOT / "backends").parts
    assert not imports(path) & (BACKENDS - {own})
    allowed = {"acon_jax": {"jax", "flax", "optax"}}.get(own, {own.removeprefix("acon_")})
    assert not imports(path) & (FRAMEWORKS - allowed)
    if below[0] == "checkpoint":
        assert not imports(path) & FRAMEWORKS


def test_nothing_here_unpickles() -> None:
    for folder in ("acon_core", "backends"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not imports(path) & {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "joblib"}, path
            names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
            assert not names & {"eval", "exec", "compile"}, path


def test_checkpoint_folders_import_without_a_framework() -> None:
    paths = [path.relative_to(ROOT / "backends") for path in sorted((ROOT / "backends").glob("*/checkpoint/*.py"))]
    assert len({path.parts[0] for path in paths}) == len(BACKENDS)
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    code = f"import sys, {', '.join(modules)}; print(sorted(set(sys.modules) & {FRAMEWORKS}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_wheel_alone_converts_and_has_the_golden_data(tmp_path: Path) -> None:
    """Installed into a folder of its own, with nothing of this checkout on the path."""
    pip = [sys.executable, "-m", "pip", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("acon_ports-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "golden.safetensors",
        "schema.json",
        "cases/layers.json",
        "shufflenetv2_acon_0.5x.pth.tar",
        "photos_bgr_224.npz",
    ):
        assert f"conformance_data/{name}" in names
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"acon_core", "conformance_data", *BACKENDS}
    assert not [name for name in names if "test" in name]
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], check=True)
    script = tmp_path / "check.py"
    script.write_text(
        "import sys, pathlib; sys.path.insert(0, sys.argv[1])\n"
        "import acon_core, conformance_data\n"
        "assert acon_core.__file__.startswith(sys.argv[1]) and conformance_data.__file__.startswith(sys.argv[1])\n"
        "from acon_core.checkpoint import convert, read_network\n"
        "from acon_core.conformance.cases import DATA\n"
        "from acon_core.conformance.runner import run_backend\n"
        "source = DATA / 'shufflenetv2_acon_0.5x.pth.tar'\n"
        "for name in ('a.pth', 'a.pkl', 'a.pdparams', 'a.msgpack', 'a.safetensors'):\n"
        "    convert(source, pathlib.Path(sys.argv[2]) / name)\n"
        "    assert read_network(pathlib.Path(sys.argv[2]) / name).network.name == 'acon/shufflenet_v2_x0_5'\n"
        "assert not run_backend('numpy', select='acon_c/rank').failed\n"
    )
    (tmp_path / "out").mkdir()
    subprocess.run([sys.executable, script, tmp_path / "site", tmp_path / "out"], check=True, cwd=tmp_path)
