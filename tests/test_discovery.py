"""Backends of other distributions: installed for real, in processes of their own.

Whatever is wrong with one, every other command works, and `acon list backends` says what it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_checkpoints import write_smallest

HEALTHY = """
from acon_core import spec
from acon_core.errors import SpecError
from acon_core.reference.backend import ReferenceBackend


class Mine(ReferenceBackend):
    name = "mine"
    dtypes = ("float32", "float64", "bfloat16")

    def build(self, node, *, dtype="float64", seed=0, compiled=False):
        for _, each in spec.walk(node):
            if isinstance(each, spec.PReLU):
                raise SpecError("mine has no rule for PReLU")
        if dtype == "bfloat16" and isinstance(node, spec.AconA):
            raise NotImplementedError
        if dtype == "bfloat16":
            raise NotImplementedError("AconB in bfloat16")
        return super().build(node, dtype=dtype, seed=seed)


backend = Mine()
"""

CODEC = """
SUFFIXES, FRAMEWORK, IS_DIRECTORY, DTYPES = (".pth", ".mine"), "", False, ("float32",)


def sniff(path):
    raise RuntimeError("not written yet")


def read(path): ...
def write(path, tensors, metadata=None): ...
"""


class Site:
    """A folder of installed distributions, first on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def install(self, distribution: str, entry_points: str | bytes, metadata: str | None = "", **files: str) -> None:
        """Install a distribution as pip does: its files, and a folder with its metadata.

        `a__b` is the file a/b.py.
        """
        for name, text in files.items():
            parts = name.replace("____init__", "__INIT").replace("__", "/").replace("INIT", "__init__")
            path = self.folder / f"{parts}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        info = self.folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        if isinstance(entry_points, str):
            entry_points = f"[acon.backends]\n{entry_points}\n".encode()
        (info / "entry_points.txt").write_bytes(entry_points)
        if metadata is not None:
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n{metadata}")

    def run(self, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(filter(None, (str(self.folder), os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "acon_core", *map(str, arguments)]
        # PyTorch reads all entry points by itself, and a broken file of them stops its import.
        env = os.environ | {"PYTHONPATH": path, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=cwd)

    def backends(self) -> dict[str, list[dict[str, object]]]:
        done = self.run("list", "backends", "--json")
        assert done.returncode == 0, done.stderr
        listed: dict[str, list[dict[str, object]]] = {}
        for each in json.loads(done.stdout)["backends"]:
            listed.setdefault(each["name"], []).append(each)
        return listed


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def install_broken(site: Site) -> dict[str, str]:
    """Install backends, each broken in its own way; return a part of what is said of it."""
    site.install("acon-gone", "gone = acon_gone")
    site.install("acon-half", "half = acon_half", acon_half____init__="def unfinished(:\n")
    site.install("acon-quits", "quits = acon_quits", acon_quits____init__="print('hello')\nraise SystemExit(3)\n")
    site.install("acon-empty", "empty = acon_empty", acon_empty____init__="", acon_empty__backend="")
    site.install(
        "acon-less", "less = acon_less", acon_less____init__="", acon_less__backend="class backend:\n    name = 'less'\n"
    )
    site.install("acon-module", "single = acon_module", acon_module="import no_such_framework\n")
    site.install("acon-crash", "crash = acon_crash", acon_crash____init__="", acon_crash__backend="import os; os._exit(7)\n")
    site.install("acon-odd", "odd = acon_odd:backend\nodder\n= nameless")
    site.install("acon-two-a", "two = acon_two_a", acon_two_a____init__="")
    site.install("acon-two-b", "two = acon_two_b", acon_two_b____init__="")
    site.install("acon-bare", "bare = acon_bare", None)
    site.install("acon-bytes", b"\xff\xfe[acon.backends]\nbytes = x\n")
    return {
        "gone": "No module named 'acon_gone'; it belongs to the distribution acon-gone",
        "half": "SyntaxError",
        "quits": "SystemExit: 3",
        "empty": "has no object `backend`",
        "less": "its object `backend` lacks dtypes, waivers, build",
        "single": "No module named 'no_such_framework'",
        "crash": "ended with status 7",
        "odd": "expected NAME = PACKAGE",
        "odder": "expected NAME = PACKAGE",
        "": "expected NAME = PACKAGE",
        "two": "registers a name that is taken, by acon-two-",
        "bare": "No module named 'acon_bare'; it belongs to the distribution acon-bare",
    }


def test_broken_backends_break_nothing_else(site: Site, tmp_path: Path) -> None:
    expected = install_broken(site)
    listed = site.backends()
    assert set(listed) == {"numpy", "torch", "jax", "paddle", "megengine", *expected}
    for name, part in expected.items():
        for each in listed[name]:
            assert each["usable"] is False
            assert part in str(each["status"])
            assert "pip install" not in str(each["status"])
    assert len(listed["two"]) == 2
    write_smallest(tmp_path / "a.pth", "torch")
    np.savez(tmp_path / "x.npz", x=np.linspace(0, 255, 3 * 40 * 48).reshape(1, 3, 40, 48))
    for arguments in (
        ("inspect", "a.pth"),
        ("convert", "a.pth", "b.safetensors", "--verify"),
        ("run", "a.pth", "--input", "x.npz", "--output", "y.npz"),
        ("conformance", "--case", "relu/kink"),
    ):
        done = site.run(*arguments, cwd=tmp_path)
        assert done.returncode == 0, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
    for name, part in (("two", "is taken"), ("half", "SyntaxError"), ("gone", "acon_gone"), ("less", "lacks dtypes")):
        done = site.run("conformance", "--backend", name, "--case", "relu/kink")
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert part in line
    done = site.run("convert", "a.pth", "b", "--to", "half", cwd=tmp_path)
    assert done.returncode == 2
    assert "--to half: backend 'half' cannot be used here: SyntaxError" in done.stderr


def test_a_name_that_is_taken_stays_ours(site: Site, tmp_path: Path) -> None:
    """The site comes first on the path."""
    ran = tmp_path / "ran"
    evil = f"open({str(ran)!r}, 'w').close()\n"
    for name in ("numpy", "torch"):
        site.install(f"acon-{name}-2", f"{name} = evil_{name}", **{f"evil_{name}____init__": evil})
    listed = site.backends()
    for name in ("numpy", "torch"):
        ours, theirs = listed[name]
        assert (ours["distribution"], theirs["distribution"]) == ("acon-ports", f"acon-{name}-2")
        assert theirs["usable"] is False
        assert f"acon-{name}-2 registers a name that is taken, by acon-ports" in str(theirs["status"])
    assert listed["numpy"][0]["usable"] is True
    write_smallest(tmp_path / "a.pth", "torch")
    assert site.run("inspect", "a.pth", cwd=tmp_path).returncode == 0
    assert site.run("conformance", "--case", "relu/kink").returncode == 0
    assert not ran.exists()


def test_a_format_that_is_taken_or_broken(site: Site, tmp_path: Path) -> None:
    extra = f"{CODEC}\nimport sys\nEXTRA_CODECS = {{'torch_legacy': sys.modules[__name__], 'less': object()}}\n"
    site.install(
        "acon-aaa",
        "aaa = acon_aaa",
        acon_aaa____init__="",
        acon_aaa__checkpoint____init__="",
        acon_aaa__checkpoint__codec=extra,
    )
    write_smallest(tmp_path / "a.pth", "torch")
    done = site.run("inspect", "a.pth", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "format: torch\n" in done.stdout
    done = site.run("convert", "a.pth", "b.pth", cwd=tmp_path)
    assert "b.pth (torch): " in done.stdout
    done = site.run("convert", "a.pth", "c", "--to", "less", cwd=tmp_path)
    assert "--to less: the codec of backend 'aaa' is not complete: SUFFIXES, FRAMEWORK" in done.stderr
    done = site.run("convert", "a.pth", "c", "--to", "aaa", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    (tmp_path / "text").write_text("hello")
    done = site.run("inspect", "text", cwd=tmp_path)
    assert "format aaa could not say: RuntimeError: not written yet" in done.stderr


def test_what_a_backend_does_not_build_is_unsupported(site: Site) -> None:
    site.install("acon-mine", "mine = acon_mine", "Provides-Extra: mine\n", acon_mine____init__="", acon_mine__backend=HEALTHY)
    assert site.backends()["mine"][0]["usable"] is True
    done = site.run("conformance", "--backend", "mine", "--case", "act/prelu", "--json")
    (result,) = json.loads(done.stdout)["backends"]
    assert done.returncode == 0
    assert set(result["counts"]) == {"unsupported"}
    assert {each["message"] for each in result["results"] if each["dtype"] == "float32"} == {
        "mine does not build it: mine has no rule for PReLU"
    }
    done = site.run("conformance", "--backend", "mine", "--case", "act/acon_a", "--json")
    (result,) = json.loads(done.stdout)["backends"]
    messages = {each["dtype"]: each["message"] for each in result["results"]}
    assert messages["float64"] == ""
    assert messages["bfloat16"] == "mine does not build it: AconA in bfloat16"
    assert messages["float16"] == "mine does not compute in float16"
    assert set(result["counts"]) == {"pass", "unsupported"}


def test_an_extra_is_named_only_if_it_exists(site: Site) -> None:
    init = "import no_such_framework\n"
    site.install("acon-mine", "mine = acon_mine", "Provides-Extra: mine\n", acon_mine____init__=init)
    site.install("acon-other", "other = acon_other", "Provides-Extra: test\n", acon_other____init__=init)
    listed = site.backends()
    assert "pip install 'acon-mine[mine]'" in str(listed["mine"][0]["status"])
    assert "pip install" not in str(listed["other"][0]["status"])


@pytest.mark.skipif(sys.version_info[:2] == (3, 10), reason="MegEngine runs on this Python")
def test_megengine_names_the_python_that_it_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "acon_core", "conformance", "--backend", "megengine", "--case", "relu/kink"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    for part in ("it needs Python 3.10, this is 3.", "'acon-ports[megengine]'", "ACON_PYTHON_MEGENGINE="):
        assert part in done.stderr
    command = [sys.executable, "-c", "import acon_megengine; acon_megengine.AconC"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "it needs Python 3.10, this is 3." in done.stderr.splitlines()[-1]
