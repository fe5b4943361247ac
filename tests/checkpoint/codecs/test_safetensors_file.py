"""Safetensors files and their headers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import assert_same, limited, module
from hostile_safetensors import WEIGHT, blob, entry

from acon_core.errors import CheckpointError


def refused(path: Path, content: bytes, kind: str = "corrupt") -> str:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=str(path)) as caught:
        module("safetensors").read(path)
    assert caught.value.kind == kind, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_valid_file(tmp_path: Path) -> None:
    for content in (blob(entry()), blob(b"  " + json.dumps(entry()).encode() + b"   ")):
        (tmp_path / "a").write_bytes(content)
        assert_same(module("safetensors").read(tmp_path / "a").tensors, {"w": WEIGHT})


def test_unknown_dtype(tmp_path: Path) -> None:
    assert "w: dtype 'F6_E2M3'" in refused(tmp_path / "a", blob(entry("F6_E2M3")), "unsupported")


def test_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(blob({"w": entry(span=(8, 16))["w"], "v": entry()["w"]}, bytes(8) + WEIGHT.tobytes()))
    assert_same(module("safetensors").read(tmp_path / "b").tensors, {"w": WEIGHT, "v": np.zeros(2, np.float32)})


def test_message_names_key(tmp_path: Path) -> None:
    message = refused(tmp_path / "a", blob(entry(shape=[3])))
    assert message == f"{tmp_path / 'a'}: w: shape (3,) of float32 needs 12 bytes, found 8"


def test_truncated(tmp_path: Path) -> None:
    module("safetensors").write(tmp_path / "good", {"w": WEIGHT, "v": WEIGHT}, {"a": "b"})
    content = (tmp_path / "good").read_bytes()
    for end in range(1, len(content)):
        refused(tmp_path / "a", content[:end])


def test_limits(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(blob(entry()))
    for limit in ("header_bytes", "file_bytes"):
        with limited(**{limit: 10}), pytest.raises(CheckpointError) as caught:
            module("safetensors").read(tmp_path / "a")
        assert caught.value.kind == "unsupported"
