"""What a conversion may change, and only when it is asked: dtypes, shards, what the input must be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from acon_core import spec
from acon_core.checkpoint import NetworkQuery, convert, formats, load_network, metadata, read_network
from acon_core.checkpoint.metadata import parse_input
from acon_core.errors import AconError, CheckpointError
from acon_core.networks import Network, Preprocessing, create
from acon_core.verification.run import check_images

RGB = Preprocessing("RGB", (0.0, 1.0), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), 192, 208)
OPTIONS = {"repeats": (1, 1, 1)}


def acon(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "acon_core.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def made(dtype: str) -> tuple[Network, dict[str, np.ndarray]]:
    network = create("acon/shufflenet_v2_x0_5", "acon_c", 3, **OPTIONS)
    state = spec.initial_state(network.graph, 5, "float64")
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    return network, {path: array if array.dtype == np.int64 else array.astype(kind) for path, array in state.items()}


def written(path: Path, format: str, dtype: str) -> dict[str, np.ndarray]:
    network, state = made(dtype)
    known = formats()[format]
    known.codec.write(path, known.layout.to_native(network.graph, state), metadata(network))
    return state


@pytest.mark.parametrize(
    ("dtype", "to", "becomes"),
    [
        ("float64", "megengine", "float32"),
        ("bfloat16", "megengine", "float32"),
        ("bfloat16", "npz", "float32"),
        ("float8_e4m3fn", "paddle", "float16"),
        ("float8_e5m2", "torch_legacy", "float16"),
    ],
)
def test_what_a_format_cannot_hold_is_cast_when_asked_and_refused_when_not(
    tmp_path: Path, dtype: str, to: str, becomes: str
) -> None:
    state = written(tmp_path / "a", "safetensors", dtype)
    with pytest.raises(CheckpointError, match=rf"cannot store {dtype}.*--cast"):
        convert(tmp_path / "a", tmp_path / "b", to)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    done = convert(tmp_path / "a", tmp_path / "b", to, cast=True)
    assert any(f"tensors from {dtype} to {becomes}" in note for note in done.notes)
    again = read_network(tmp_path / "b", "acon/shufflenet_v2_x0_5", "acon_c", **OPTIONS).state
    for path, array in state.items():
        if array.dtype != np.int64:
            assert again[path].dtype == np.dtype(becomes)
            np.testing.assert_array_equal(again[path], array.astype(becomes))


def test_a_cast_that_would_be_another_number_is_refused(tmp_path: Path) -> None:
    network, state = made("float64")
    state["first_conv.2.p1"][0, 3, 0, 0] = 1e300
    known = formats()["safetensors"]
    known.codec.write(tmp_path / "a", state, metadata(network))
    with pytest.raises(CheckpointError, match=r"first_conv\.2\.p1: cannot cast 1e\+300 to float32: out of range"):
        convert(tmp_path / "a", tmp_path / "b", "megengine", cast=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_contract_of_one_s_own_travels_and_is_told(tmp_path: Path) -> None:
    """Through the command line and every format that holds metadata; whoever loads it is told that it is not the published."""
    written(tmp_path / "a.safetensors", "safetensors", "float32")
    text = json.dumps({"order": "RGB", "range": [0.0, 1.0], "mean": RGB.mean, "std": RGB.std, "size": 192, "resize": 208})
    done = acon("convert", tmp_path / "a.safetensors", tmp_path / "b.pth", "--input", text)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "b.pth"
    for to in ("megengine", "paddle", "npz", "safetensors_sharded", "safetensors"):
        convert(path, tmp_path / to, to)
        path = tmp_path / to
    checkpoint = read_network(path)
    assert checkpoint.network.input == RGB
    assert "acon/shufflenet_v2_x0_5 was published with BGR" in checkpoint.warnings[0]
    with pytest.warns(UserWarning, match="the input must be RGB, 0 to 1, mean"):
        load_network(path, NetworkQuery(), ())
    images = tmp_path / "x.npz"
    np.savez(images, x=np.full((1, 3, 32, 48), 200, np.uint8))
    refused = acon("run", path, "--input", images, "--output", tmp_path / "y.npz")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "values from 200 to 200, expected -2 to 3" in refused.stderr
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"order": "GBR"}, "order must be"),
        ({"range": [0.0]}, "range must be 2 numbers"),
        ({"range": [1.0, 0.0]}, "must ascend"),
        ({"mean": [0.0, "x", 1.0]}, "mean must be 3 numbers"),
        ({"std": [1.0, 0.0, 1.0]}, "must be positive"),
        ({"std": [1.0, float("nan"), 1.0]}, "finite"),
        ({"size": -4}, "pixels"),
        ({"resize": 100}, "resize at least size"),
        ({"more": 1}, "unexpected keyword"),
    ],
)
def test_a_contract_that_is_none_is_refused(tmp_path: Path, change: dict[str, object], what: str) -> None:
    fields = {"order": "RGB", "range": [0.0, 1.0], "mean": RGB.mean, "std": RGB.std, "size": 192, "resize": 208}
    assert parse_input(json.dumps(fields)) == RGB
    with pytest.raises(CheckpointError, match=what):
        parse_input(json.dumps(fields | change))
    network, state = made("float32")
    formats()["safetensors"].codec.write(tmp_path / "a", state, metadata(network) | {"input": json.dumps(fields | change)})
    with pytest.raises(CheckpointError, match=rf"{tmp_path / 'a'}: invalid input .*{what}"):
        read_network(tmp_path / "a")


def test_a_file_that_says_another_number_of_classes_is_corrupt(tmp_path: Path) -> None:
    network, state = made("float32")
    formats()["safetensors"].codec.write(tmp_path / "a", state, metadata(network) | {"num_classes": "4"})
    with pytest.raises(CheckpointError, match="metadata say 4 classes, but the tensors have 3"):
        read_network(tmp_path / "a")


def test_images_are_held_to_the_contract() -> None:
    bgr = create("acon/resnet50").input
    photo = np.linspace(0, 255, 3 * 8 * 6).reshape(1, 3, 8, 6)
    assert check_images(bgr, photo, Path("x.npz")) == []
    assert "values from 0 to 1 only" in check_images(bgr, photo / 255, Path("x.npz"))[0]
    with pytest.raises(AconError, match="expected 0 to 255"):
        check_images(bgr, photo - 30, Path("x.npz"))
    assert RGB.bounds == pytest.approx((-2.0, (1 - 0.4) / 0.2))
    assert check_images(RGB, (photo / 255 - 0.5) / 0.25, Path("x.npz")) == []
    assert check_images(None, photo * 1e6, Path("x.npz")) == []


def test_shards_of_a_size_where_the_format_has_them(tmp_path: Path) -> None:
    state = written(tmp_path / "a.safetensors", "safetensors", "float32")
    refused = acon("convert", tmp_path / "a.safetensors", tmp_path / "b.pth", "--shard-size", "1MB")
    assert "format torch has no shards; expected a target that ends in .safetensors.index.json" in refused.stderr
    assert "expected a size such as 500MB" in acon("convert", tmp_path / "a.safetensors", "b", "--shard-size", "0x3").stderr
    done = acon("convert", tmp_path / "a.safetensors", tmp_path / "b.safetensors.index.json", "--shard-size", "300KB")
    assert done.returncode == 0, done.stderr
    shards = [path for path in tmp_path.iterdir() if path.name.endswith(".safetensors") and path.name.startswith("b-")]
    sizes = [[array.nbytes for array in formats()["safetensors"].codec.read(shard).tensors.values()] for shard in shards]
    assert len(shards) > 1
    assert all(sum(shard) <= 300_000 or len(shard) == 1 for shard in sizes)
    again = read_network(tmp_path / "b.safetensors.index.json").state
    assert all(again[path].tobytes() == array.tobytes() for path, array in state.items())
    compared = acon("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors.index.json", "--json")
    assert (compared.returncode, json.loads(compared.stdout)["differences"]) == (0, [])


def test_check_says_of_each_file_whether_it_is_safe(tmp_path: Path) -> None:
    written(tmp_path / "a.pkl", "megengine", "float32")
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(X\x04\x00\x00\x00truetR.")
    (tmp_path / "cut.pkl").write_bytes((tmp_path / "a.pkl").read_bytes()[:5000])
    (tmp_path / "page.pth").write_bytes(b"<!DOCTYPE html>")
    np.savez_compressed(tmp_path / "late.npz", w=np.arange(4000.0))
    content = bytearray((tmp_path / "late.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "late.npz").write_bytes(content)
    late = acon("check", tmp_path / "late.npz")
    assert (late.returncode, late.stdout[:7]) == (1, "corrupt")
    assert "late.npz: w" in late.stdout
    good = acon("check", tmp_path / "a.pkl")
    assert (good.returncode, good.stderr) == (0, "")
    assert "a.pkl: safe, megengine" in good.stdout
    assert "numpy.core.multiarray._reconstruct" in good.stdout
    bad = acon("check", *(tmp_path / name for name in ("a.pkl", "cut.pkl", "page.pth")), "--json")
    assert bad.returncode == 1
    assert [each["verdict"] for each in json.loads(bad.stdout)] == ["safe", "corrupt", "unsupported"]
    evil = acon("check", tmp_path / "evil.pkl")
    assert evil.returncode == 1
    assert "evil.pkl" in evil.stdout
