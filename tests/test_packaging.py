"""The distributions, and the import rules between the packages."""

from __future__ import annotations

import ast
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import acon_core

ROOT = Path(__file__).parents[1]
FRAMEWORKS = {"torch", "jax", "jaxlib", "flax", "optax", "paddle", "megengine"}
BACKENDS = {f"acon_{name}" for name in ("torch", "jax", "paddle", "megengine")}


def imports(path: Path) -> set[str]:
    """Return the top-level packages that a file imports anywhere."""
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
            # Surgery compiles methods of classes that run already, with other calls; no file.
            own = {"compile"} if path == ROOT / "acon_core" / "surgery" / "rewrite.py" else set()
            assert not (names & {"eval", "exec", "compile"}) - own, path


def test_checkpoint_folders_import_without_a_framework() -> None:
    paths = [path.relative_to(ROOT / "backends") for path in sorted((ROOT / "backends").glob("*/checkpoint/*.py"))]
    assert len({path.parts[0] for path in paths}) == len(BACKENDS)
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    code = f"import sys, {', '.join(modules)}; print(sorted(set(sys.modules) & {FRAMEWORKS}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution, unpack it, and build the wheel from it."""
    folder = tmp_path_factory.mktemp("distributions")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t"]
    subprocess.run([*build, "sdist"], check=True, cwd=ROOT)
    (archive,) = folder.glob("acon_ports-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    subprocess.run([*build, "wheel"], check=True, cwd=folder / archive.name.removesuffix(".tar.gz"))
    return folder


@pytest.mark.slow
def test_the_source_distribution_has_every_file_of_the_repository(distributions: Path) -> None:
    (source,) = (path for path in distributions.iterdir() if path.is_dir())
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    files = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    assert "conformance_data/photos_bgr_224.npz" in files
    found = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert found - {"PKG-INFO"} == files


@pytest.mark.slow
def test_the_wheel_holds_code_cases_and_golden_numbers(distributions: Path) -> None:
    (wheel,) = distributions.glob("acon_ports-*.whl")
    assert wheel.stat().st_size < 3_500_000
    names = {name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" not in name}
    assert {name.split("/")[0] for name in names} == {"acon_core", *BACKENDS}
    sources = {name for name in names if name.endswith((".py", ".pyi", "py.typed"))}
    data = {name.removeprefix("acon_core/conformance/data/") for name in names - sources}
    cases = {f"cases/{path.name}" for path in (ROOT / "conformance_data" / "cases").iterdir()}
    assert data == {"schema.json", "golden.safetensors", "curves.json", "digits_8x8.npz", *cases}
    folders = [ROOT / "acon_core", *(ROOT / "backends" / name for name in BACKENDS)]
    paths = (path for folder in folders for suffix in ("*.py", "*.pyi", "py.typed") for path in folder.rglob(suffix))
    assert sources == {path.relative_to(ROOT).as_posix().removeprefix("backends/") for path in paths}


@pytest.mark.slow
def test_the_installed_wheel_converts_and_conforms(distributions: Path, tmp_path: Path) -> None:
    """The wheel is installed in a folder of its own; nothing of this checkout is importable."""
    (wheel,) = distributions.glob("acon_ports-*.whl")
    site, out = tmp_path / "site", tmp_path / "out"
    subprocess.run([sys.executable, "-m", "pip", "-q", "install", "--no-deps", "--target", site, wheel], check=True)
    script = tmp_path / "check.py"
    script.write_text(
        "import sys, pathlib; sys.path.insert(0, sys.argv[1])\n"
        "import acon_core\n"
        "from acon_core.checkpoint import convert, read_network\n"
        "from acon_core.conformance.cases import DATA\n"
        "from acon_core.conformance.runner import run_backend\n"
        "site, out, source = map(pathlib.Path, sys.argv[1:])\n"
        "assert pathlib.Path(acon_core.__file__) == site / 'acon_core' / '__init__.py'\n"
        "assert DATA == site / 'acon_core' / 'conformance' / 'data'\n"
        "for name in ('a.pth', 'a.pkl', 'a.pdparams', 'a.msgpack', 'a.safetensors'):\n"
        "    convert(source, out / name)\n"
        "    assert read_network(out / name).network.name == 'acon/shufflenet_v2_x0_5'\n"
        "assert not run_backend('numpy', select='acon_c/rank').failed\n"
    )
    out.mkdir()
    checkpoint = ROOT / "conformance_data" / "shufflenetv2_acon_0.5x.pth.tar"
    subprocess.run([sys.executable, script, site, out, checkpoint], check=True, cwd=tmp_path)
    command = [sys.executable, "-m", "acon_core.cli", "conformance", "golden", "regenerate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=site)
    assert (done.returncode, done.stdout) == (2, "")
    assert "data: belongs to an installed package; run the command in a checkout" in done.stderr


def test_the_citation_has_the_version() -> None:
    assert f"\nversion: {acon_core.__version__}\n" in (ROOT / "CITATION.cff").read_text()
