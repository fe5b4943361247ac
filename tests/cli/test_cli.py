"""The commands of `acon` in real processes on real files.

An invalid file or option gives one line on stderr, status 2, and no output file.
"""

from __future__ import annotations

import importlib.metadata
import json
import pickle
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hidden import without
from repository import DATA

import acon_core
from acon_core import spec
from acon_core.checkpoint.codecs import safetensors_file
from acon_core.conformance import golden
from acon_core.conformance.cases import load_cases

CHECKPOINT = DATA / "shufflenetv2_acon_0.5x.pth.tar"
PHOTOS = DATA / "photos_bgr_224.npz"


def acon(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "acon_core.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Assert one line on stderr that contains `parts`, status 2, and empty stdout."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("acon: ")
    for part in parts:
        assert part in lines[0]


def test_list() -> None:
    listed = [name for name in acon("list").stdout.split() if name.startswith("acon/")]
    widths = ("0_5", "1_0", "1_5", "2_0")
    resnets = [f"acon/resnet{depth}" for depth in (18, 34, 50, 101, 152)]
    assert listed == [*(f"acon/shufflenet_v2_x{w}" for w in widths), *resnets, *(f"acon/tfnet_{w}" for w in widths), "acon/dcn"]
    assert set(spec.ACTIVATIONS) == set(acon("list", "activations").stdout.split())
    listed = acon("list", "backends").stdout.splitlines()
    assert {"numpy", "torch", "jax", "paddle", "megengine"} == {line.split()[0] for line in listed}
    assert_refused(acon("list", "everything"), "networks, activations, backends")


def test_inspect() -> None:
    done = acon("inspect", CHECKPOINT)
    assert done.returncode == 0, done.stderr
    assert "network: acon/shufflenet_v2_x0_5 with acon_c, 1000 classes" in done.stdout
    assert "input: BGR, 0 to 255, not normalised, resize shorter side to 256, center-crop 224" in done.stdout
    assert "size: 5.6 MB" in done.stdout
    assert "first_conv" not in done.stdout
    listed = acon("inspect", CHECKPOINT, "--tensors").stdout
    assert listed.endswith(done.stdout)
    rows = [line.split() for line in listed.removesuffix(done.stdout).splitlines()]
    assert len(rows) == 505
    assert ["first_conv.2.p1", "float32", "(1,", "24,", "1,", "1)", "96", "bytes"] in rows
    facts = json.loads(acon("inspect", CHECKPOINT, "--json").stdout)
    assert len(facts["tensors"]) == 505
    assert facts["tensors"]["classifier.0.weight"] == {"shape": [1000, 1024], "dtype": "float32", "bytes": 4_096_000}


def test_summary_has_published_counts() -> None:
    done = acon("summary", "acon/shufflenet_v2_x0_5", "--act", "meta_acon")
    assert done.returncode == 0, done.stderr
    numbers = [line.split(":") for line in done.stdout.splitlines()[1:-1]]
    assert len({len(line) for line in done.stdout.splitlines()[1:-1]}) == 1, "the numbers are right-aligned"
    counts = {label: number.strip() for label, number in numbers}
    assert counts["parameters"] == "1,686,620"
    assert counts["conv and linear weights only"] == "1,657,616"
    assert counts["MACs (conv and linear)"] == "40,776,224"
    assert counts["state keys"] == "986"
    assert counts["bytes in float32"] == "6,805,456"
    assert "acon/tfnet_0_5 with acon_frelu(stride=1), 1000 classes" in acon("summary", "acon/tfnet_0_5").stdout
    rows = acon("summary", "acon/shufflenet_v2_x0_5", "--layers").stdout
    assert "│ features.3.branch_main.0 " in rows
    assert "│        600 │   451,584 │" in rows


@pytest.mark.slow
def test_convert_verify_and_run(tmp_path: Path) -> None:
    done = acon("convert", CHECKPOINT, tmp_path / "a.safetensors", "--verify")
    assert done.returncode == 0, done.stderr
    assert "505 tensors, read back and identical bit for bit" in done.stdout
    assert "verified" in done.stdout
    done = acon("run", tmp_path / "a.safetensors", "--input", PHOTOS, "--output", tmp_path / "y.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "y.npz") as found, np.load(DATA / "shufflenetv2_acon_0.5x.out.npz") as published:
        assert found["logits"].dtype == np.float64
        assert np.abs(found["logits"] - published["logits"]).max() <= 1e-9 * np.abs(published["logits"]).max()


def test_conformance_and_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = acon("conformance", "--backend", "numpy", "--case", "acon_c/rank", "--report", path)
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(path.read_text())
    assert entry["counts"] == {"pass": 8}
    assert acon("report", path, path).returncode == 0
    assert acon("report", "--markdown", path).stdout.startswith("| backend |")
    entry["results"][0]["status"] = "fail"
    path.write_text(json.dumps([entry]))
    assert acon("report", path).returncode == 1
    path.write_text("{}")
    assert_refused(acon("report", path), "report.json: expected a report")
    assert_refused(acon("conformance", "--case", "no such case"), "no such case")


def test_missing_backend(tmp_path: Path) -> None:
    env = without(tmp_path / "hook", "torch", "jax")
    done = acon("conformance", "--backend", "torch", env=env)
    assert_refused(done, "'torch' cannot be used here", "pip install 'acon-ports[torch]'")
    assert_refused(acon("conformance", "--backend", "tensorflow", env=env), "'tensorflow' is not known")
    done = acon("run", CHECKPOINT, "--input", PHOTOS, "--output", tmp_path / "y.npz", "--backend", "jax", env=env)
    assert_refused(done, "'jax' cannot be used here")
    assert [path.name for path in tmp_path.iterdir()] == ["hook"]


def truncated(folder: Path) -> Path:
    path = folder / "bad.pth"
    path.write_bytes(CHECKPOINT.read_bytes()[:100_000])
    return path


def other_zip(folder: Path) -> Path:
    (folder / "content").mkdir()
    (folder / "content" / "hello.txt").write_text("hello")
    shutil.make_archive(str(folder / "bad"), "zip", folder / "content")
    shutil.rmtree(folder / "content")
    return folder / "bad.zip"


class _Payload:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, (f"touch {self.sentinel}",)


def hostile(folder: Path) -> Path:
    path = folder / "bad.pkl"
    path.write_bytes(pickle.dumps({"first_conv.0.weight": _Payload(folder.parent / "executed")}))
    return path


def empty(folder: Path) -> Path:
    (folder / "bad.pth").touch()
    return folder / "bad.pth"


def web_page(folder: Path) -> Path:
    (folder / "bad.pth").write_text("<!DOCTYPE html><html>404</html>")
    return folder / "bad.pth"


def missing(folder: Path) -> Path:
    return folder / "bad.pth"


@pytest.mark.parametrize("bad", [truncated, other_zip, hostile, empty, web_page, missing], ids=lambda f: f.__name__)
@pytest.mark.parametrize("command", ["convert", "inspect", "run"])
def test_invalid_file_gives_one_line_error(tmp_path: Path, bad: Callable[[Path], Path], command: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path, out = bad(folder), tmp_path / "out.safetensors"
    arguments = {"convert": [out], "inspect": [], "run": ["--input", PHOTOS, "--output", out]}[command]
    assert_refused(acon(command, path, *arguments), str(path))
    assert not out.exists()
    assert not (tmp_path / "executed").exists()
    assert [each.name for each in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--to", "tensorflow"], ["--to tensorflow", "torch"]),
        (["--network", "acon/resnet_9"], ["'acon/resnet_9' is not known"]),
        (["--network", "acon/shufflenet_v2_x2_0"], ["no network has exactly these 505 tensors"]),
        (["--act", "gelu2"], ["'gelu2' is not known"]),
        (["--nothing"], ["--nothing"]),
    ],
)
def test_invalid_usage_gives_one_line_error(tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    assert_refused(acon("convert", CHECKPOINT, tmp_path / "out.safetensors", *arguments), *parts)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_target(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert_refused(acon("convert", CHECKPOINT, tmp_path / "folder", "--to", "jax"), f"{tmp_path / 'folder'}: is a folder")
    assert_refused(acon("convert", CHECKPOINT, tmp_path / "no" / "a.pkl"), f"{tmp_path / 'no' / 'a.pkl'}: cannot be written")
    assert_refused(acon("convert", CHECKPOINT, tmp_path / "a.xyz"), "a.xyz: unknown suffix")
    (tmp_path / "a.pkl").write_bytes(b"old")

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    done = acon("convert", CHECKPOINT, tmp_path / "a.pkl", preexec_fn=small_disk)
    assert_refused(done, f"{tmp_path / 'a.pkl'}: cannot be written")
    assert (tmp_path / "a.pkl").read_bytes() == b"old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.pkl", "folder"]
    same = tmp_path / "b.safetensors"
    assert acon("convert", CHECKPOINT, same).returncode == 0
    assert_refused(acon("convert", same, same), "is the source file")


def test_invalid_images(tmp_path: Path) -> None:
    for name, arrays, part in (
        ("two", {"a": np.ones((1, 3, 8, 8)), "b": np.ones(2)}, "expected one array, found 2"),
        ("flat", {"a": np.ones((3, 8, 9))}, "one image without a batch; add the axis: images[None]"),
        ("image", {"a": np.ones((8, 9, 3))}, "add the axis: images.transpose(2, 0, 1)[None]"),
        ("last", {"a": np.ones((2, 8, 9, 3))}, "the channels are last; move them: images.transpose(0, 3, 1, 2)"),
        ("objects", {"a": np.array([{}, 1])}, "objects.npz: damaged, or not of numbers: ValueError; expected an .npz"),
        ("ints", {"a": np.ones((1, 3, 8, 8), np.int32)}, "found int32"),
        ("grey", {"a": np.ones((1, 1, 64, 64))}, "expected (N, 3, H, W)"),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        assert_refused(acon("run", CHECKPOINT, "--input", tmp_path / f"{name}.npz", "--output", tmp_path / "y.npz"), part)
    assert_refused(
        acon("run", CHECKPOINT, "--input", CHECKPOINT, "--output", tmp_path / "y.npz"), "expected one array, found 511"
    )
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.writestr("hello.txt", "hello")
    assert_refused(
        acon("run", CHECKPOINT, "--input", tmp_path / "one.zip", "--output", tmp_path / "y.npz"), "hello.txt is not an array"
    )
    (tmp_path / "text.npz").write_text("hello")
    assert_refused(
        acon("run", CHECKPOINT, "--input", tmp_path / "text.npz", "--output", tmp_path / "y.npz"), "expected an .npz"
    )
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.parametrize("position", [0, 2])
def test_debug_shows_the_traceback(tmp_path: Path, position: int) -> None:
    arguments = ["inspect", truncated(tmp_path)]
    arguments.insert(position, "--debug")
    done = acon(*arguments)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_version() -> None:
    assert acon("--version").stdout == f"acon-ports {acon_core.__version__}\n"
    assert importlib.metadata.version("acon-ports") == acon_core.__version__


def test_help_without_a_command() -> None:
    for command in ([], ["conformance", "golden"]):
        done = acon(*command)
        assert (done.returncode, done.stderr) == (2, "")
        assert done.stdout.startswith("Usage: acon")
        assert not [line for line in done.stdout.splitlines()[1:] if "..." in line]
    short = acon("-h").stdout
    assert short == acon("--help").stdout == acon().stdout
    assert "--debug" in short
    assert "--install-completion" in short
    done = subprocess.run([sys.executable, "-m", "acon_core", "-V"], capture_output=True, text=True, check=True)
    assert done.stdout == f"acon-ports {acon_core.__version__}\n"


def test_golden_of_named_cases(tmp_path: Path) -> None:
    done = acon("conformance", "golden", "make", tmp_path / "two.safetensors", "acon_c/rank_4", "acon_c/rank_2")
    assert done.returncode == 0, done.stderr
    made, stored = safetensors_file.read(tmp_path / "two.safetensors").tensors, golden.stored()
    assert set(made) == {key for key in stored if key.partition(":")[0] in ("acon_c/rank_4", "acon_c/rank_2")}
    assert len(made) == 18  # y, dx and the gradients of p1, p2 and beta, each with its scale
    for key, array in made.items():
        np.testing.assert_allclose(array, stored[key], rtol=1e-11, atol=1e-11)
    assert acon("conformance", "golden", "check").stdout == f"check: {len(load_cases())} cases, nothing wrong\n"
    assert_refused(acon("conformance", "golden", "make", tmp_path / "none.safetensors", "no such case"), "no such case")
    assert_refused(acon("conformance", "--case", "acon_c", "golden", "check"), "omit it")
