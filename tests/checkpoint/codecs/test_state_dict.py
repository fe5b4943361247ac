"""The state dict inside a training checkpoint, and notes on the rest."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_samples import module

from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.errors import CheckpointError

W = np.ones(2, np.float32)


def read(tmp_path: Path, value: object) -> CheckpointFile:
    (tmp_path / "a").write_bytes(pickle.dumps(value, 4))
    found = module("megengine").read(tmp_path / "a")
    assert isinstance(found, CheckpointFile)
    return found


def test_bare_state_dict(tmp_path: Path) -> None:
    found = read(tmp_path, {"module.w": W})
    assert (list(found.tensors), found.notes, found.metadata) == (["module.w"], [], {})
    assert "numpy.ndarray" in found.globals_seen


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net", "network", "params", "anything"])
def test_nested_state_dict(tmp_path: Path, key: str) -> None:
    optimizer: dict[str, Any] = {"state": {0: {"momentum_buffer": W}}, "param_groups": [{"lr": 0.1}]}
    found = read(tmp_path, {"epoch": 3, "optimizer": optimizer, key: {"w": W}, 7: None})
    assert list(found.tensors) == ["w"]
    assert found.notes == [f"read the tensors under '{key}'; ignored 'epoch', 'optimizer', 7"]


def test_usual_name_wins(tmp_path: Path) -> None:
    found = read(tmp_path, {"best_acc1": np.float32(7), "ema": {"w": W}, "state_dict": {"w": W + 1}})
    assert found.tensors["w"].tolist() == [2, 2]
    assert found.notes == ["read the tensors under 'state_dict'; ignored 'best_acc1', 'ema'"]


def test_top_level_wins(tmp_path: Path) -> None:
    found = read(tmp_path, {"w": W, "extra": {"v": W}, "epoch": 1})
    assert list(found.tensors) == ["w"]
    assert found.notes == ["ignored what is not a tensor: 'extra', 'epoch'"]


def test_other_values_are_noted(tmp_path: Path) -> None:
    found = read(tmp_path, {"model": {"w": W, "_extra_state": None}})
    assert found.notes == ["read the tensors under 'model'", "ignored what is not a tensor: '_extra_state'"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"generator": {"w": W}, "critic": {"w": W}}, "several dicts of tensors, 'generator', 'critic'"),
        ({"epoch": 1, "lr": 0.1}, "keys 'epoch', 'lr'"),
        ({}, "no dict of tensors"),
        ([W], "found an object of type list"),
        (W, "found an object of type PickledArray"),
        ({"model": {0: W}}, "found 0"),
    ],
)
def test_no_single_state_dict(tmp_path: Path, value: object, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        read(tmp_path, value)
    assert caught.value.kind == "unsupported"
