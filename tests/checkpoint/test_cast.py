"""`acon convert --cast`: dtypes that a format cannot store."""

from __future__ import annotations

import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from small_checkpoints import OPTIONS, smallest, write, write_smallest

from acon_core import spec
from acon_core.checkpoint import convert, formats, metadata, read_network
from acon_core.errors import CheckpointError
from acon_core.networks import create


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
def test_cast_to_supported_dtype(tmp_path: Path, dtype: str, to: str, becomes: str) -> None:
    network, state = smallest(dtype)
    write(tmp_path / "a", "safetensors", network, state)
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


def test_cast_out_of_range(tmp_path: Path) -> None:
    network, state = smallest("float64")
    state["first_conv.2.p1"][0, 3, 0, 0] = 1e300
    known = formats()["safetensors"]
    known.codec.write(tmp_path / "a", state, metadata(network))
    with pytest.raises(CheckpointError, match=r"first_conv\.2\.p1: cannot cast 1e\+300 to float32: out of range"):
        convert(tmp_path / "a", tmp_path / "b", "megengine", cast=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_cast_notes_only_stored_tensors(tmp_path: Path) -> None:
    """Counters are int64, which MegEngine does not store."""
    done = convert(write_smallest(tmp_path / "a"), tmp_path / "b", "megengine", cast=True)
    assert not any("cast" in note for note in done.notes)


def test_cast_signalling_nan(tmp_path: Path) -> None:
    network = create("acon/shufflenet_v2_x0_5", "acon_c", 3, repeats=(1, 1, 1))
    state = spec.initial_state(network.graph, 5)
    narrow = {path: array.astype(ml_dtypes.bfloat16) if array.dtype.kind == "f" else array for path, array in state.items()}
    narrow["classifier.0.weight"].view(np.uint16)[1, 2] = 0x7F81
    known = formats()
    layout = known["safetensors"].layout
    known["safetensors"].codec.write(tmp_path / "a", layout.to_native(network.graph, narrow), metadata(network))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(tmp_path / "a", tmp_path / "b", "npz", cast=True)
    found = read_network(tmp_path / "b", network.name, "acon_c", repeats=(1, 1, 1)).state["classifier.0.weight"]
    assert found.dtype == np.float32
    assert np.argwhere(np.isnan(found)).tolist() == [[1, 2]]
