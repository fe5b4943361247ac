"""The state dict inside a training checkpoint, and notes on the rest."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import enum
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_samples import module

from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.errors import CheckpointError

W = np.ones(2, np.float32)


def read(tmp_path: Path, value: object, key: str = "", format: str = "megengine") -> CheckpointFile:
    (tmp_path / "a").write_bytes(pickle.dumps(value, 4))
    found = module(format).read(tmp_path / "a", key)
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
        ({"a": {"model": {"w": W}}, "b": {"model": {"w": W}}}, "several dicts of tensors, 'a.model', 'b.model'"),
        ({"state_dict": {"w": W}, "state_dict_ema": {"w": W}}, "'state_dict', 'state_dict_ema'; pass --key"),
        ({"state": {0: {"m": W}}, "param_groups": []}, "the state of an optimizer"),
        ([{"w": W}, 1], "pass --key with the index of one in it"),
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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("student.model", 1),
        ("student", 1),  # the only state dict below it
        ("teacher", 2),
        ("teacher.x", 2),  # of the names in it
        ("runs.1", 3),
        ("7.x", 4),
        ("a.b", 5),  # one key with a dot
    ],
)
def test_key(tmp_path: Path, key: str, value: int) -> None:
    tree = {
        "student": {"model": {"w": W}, "epoch": 3},
        "teacher": {"x.w": W * 2},
        "runs": [None, {"w": W * 3}],
        7: {"x": {"w": W * 4}},
        "a.b": {"w": W * 5},
    }
    found = read(tmp_path, tree, key)
    assert [array.tolist() for array in found.tensors.values()] == [[value, value]]
    assert list(found.tensors) == ["x.w" if key == "teacher" else "w"]
    assert found.place in (key, "student.model")


@pytest.mark.parametrize("key", ["x", "student", "teacher.y", "runs.2", "student.epoch", "teacher.x.w"])
def test_key_that_is_not_there(tmp_path: Path, key: str) -> None:
    tree = {"student": {"epoch": 3}, "teacher": {"x.w": W}, "runs": [{"w": W}]}
    with pytest.raises(CheckpointError, match=rf"a: --key {key}: no dict of tensors there; found 'teacher'"):
        read(tmp_path, tree, key)


def test_nested_deeper(tmp_path: Path) -> None:
    found = read(tmp_path, {"checkpoint": {"model": {"w": W}, "epoch": 3}, "optimizer": {"state": {0: {"m": W}}}})
    assert list(found.tensors) == ["w"]
    assert found.notes == ["read the tensors under 'checkpoint.model'; ignored 'optimizer', 'checkpoint.epoch'"]


class Mode(enum.Enum):
    TRAIN = 1


class Settings(dict):  # type: ignore[type-arg]
    pass


@dataclasses.dataclass
class Options:
    path: Path
    mode: Mode


@dataclasses.dataclass(slots=True)
class Slots:
    rate: float


Pair = collections.namedtuple("Pair", "first second")
BESIDE = {
    "keys": {(1, (2.5, None)): 1, b"x": 2, True: 3, None: 4, -1: 5, 140245678901234: 6, 0.5: 7},
    "enum": Mode.TRAIN,
    "enum as key": {Mode.TRAIN: 1},
    "dict of a class": Settings(a=Settings(b=1)),
    "dataclass": Options(Path("x"), Mode.TRAIN),
    "slots": Slots(0.5),
    "named tuple": Pair(1, 2),
    "class": Options,
    "standard library": [
        *(Path("x"), datetime.datetime(2020, 1, 2), datetime.timedelta(1), argparse.Namespace(a=Path("y"))),
        *(collections.Counter("aab"), collections.defaultdict(list, a=[1]), {1, 2}, frozenset({3}), 1 + 2j, range(3)),
    ],
    "objects": np.array([{}, None], object),
    "dates": np.array(["2020-01-02"], "M8[D]"),
    "random": np.random.default_rng(3),
}


@pytest.mark.parametrize("format", ["megengine", "paddle"])
@pytest.mark.parametrize("name", BESIDE)
def test_what_is_not_needed_is_not_judged(tmp_path: Path, format: str, name: str) -> None:
    found = read(tmp_path, {"state_dict": {"w": W, "v": W + 1}, "beside": BESIDE[name]}, format=format)
    assert [array.tolist() for array in found.tensors.values()] == [[1, 1], [2, 2]]
    assert bool(found.foreign_globals) == (name not in ("keys", "standard library", "objects", "dates"))
    assert any("none was imported or called" in note for note in found.notes) == bool(found.foreign_globals)


@pytest.mark.parametrize("name", ["objects", "dates"])
def test_what_is_needed_is_judged(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=r"a: v: (an array of Python objects|dtype)") as caught:
        read(tmp_path, {"w": W, "v": BESIDE[name]})
    assert caught.value.kind == "unsupported"


def test_functions_are_refused_beside_weights(tmp_path: Path) -> None:
    for function in (eval, pickle.loads, __import__, getattr):
        with pytest.raises(CheckpointError, match="nothing was run") as caught:
            read(tmp_path, {"state_dict": {"w": W}, "beside": function})
        assert caught.value.kind == "unsafe"


@pytest.mark.parametrize("key", [("x" * 5000,) * 2000, 1 << 60])
def test_keys_that_cost_much(tmp_path: Path, key: object) -> None:
    with pytest.raises(CheckpointError, match="dict key") as caught:
        read(tmp_path, {"state_dict": {"w": W}, "beside": {key: 1}})
    assert caught.value.kind == "corrupt"
