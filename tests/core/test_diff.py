"""`acon diff`: what differs, by how much, in units of the last place as NumPy's own neighbours count them."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_core import spec
from acon_core.checkpoint import convert, formats, metadata
from acon_core.checkpoint.diff import ABSENT, diff, differences
from acon_core.errors import AconError
from acon_core.networks import create

FLOATS = {"float16": np.uint16, "float32": np.uint32, "float64": np.uint64}


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(FLOATS)),
    start=st.floats(-1e4, 1e4, width=16),
    steps=st.integers(1, 40),
    up=st.booleans(),
)
def test_ulp_are_neighbours(name: str, start: float, steps: int, up: bool) -> None:
    kind = np.dtype(name).type
    a = np.array([3.0, start, -2.0], name)
    b = a.copy()
    for _ in range(steps):
        b[1] = np.nextafter(b[1], kind(np.inf if up else -np.inf))
    (found,) = differences({"w": a}, {"w": b})
    assert (found.count, found.ulp) == (1, steps)
    assert found.largest == abs(float(b[1]) - float(a[1]))


@pytest.mark.parametrize(
    ("a", "b", "ulp"),
    [
        (np.array([0.0, 1], np.float32), np.array([-0.0, 1], np.float32), 0),
        (np.array([5e-324, 1]), np.array([-5e-324, 1]), 2),
        (np.array([np.finfo(np.float64).max]), np.array([np.finfo(np.float64).min]), 2 * (2**63 - 2**52 - 1)),
        (np.array([1.5], ml_dtypes.bfloat16), np.array([1.5078125], ml_dtypes.bfloat16), 1),
        (np.array([1.5], np.float32), np.array([1.5078125], ml_dtypes.bfloat16), 1),
        (np.array([1.25], ml_dtypes.float8_e5m2), np.array([1.0], ml_dtypes.float8_e5m2), 1),
    ],
)
def test_ulp_across_zero_and_dtypes(a: np.ndarray, b: np.ndarray, ulp: int) -> None:
    (found,) = differences({"w": a}, {"w": b})
    assert (found.count, found.ulp) == (1, ulp)


def test_each_kind_of_difference_is_one_line() -> None:
    a = {
        "same": np.ones(3),
        "shape": np.ones((2, 3)),
        "only a": np.ones(1),
        "kind": np.float32([1, 2]),
        "int": np.array([7, 9]),
    }
    b = {
        "same": np.ones(3),
        "shape": np.ones((3, 2)),
        "kind": np.float64([1, 2]),
        "int": np.array([7, 4]),
        "only b": np.ones(1),
    }
    found = {each.name: each for each in differences(a, b)}
    assert list(found) == ["shape", "only a", "kind", "int", "only b"]
    assert str(found["shape"]) == "shape: float64 (2, 3) against float64 (3, 2)"
    assert (found["only a"].b, found["only b"].a) == (ABSENT, ABSENT)
    assert (found["kind"].count, found["kind"].ulp) == (0, 0)
    assert (found["int"].count, found["int"].largest, found["int"].ulp) == (1, 5.0, None)
    quiet, loud = (np.array([word, 1], np.uint32).view(np.float32) for word in (0x7FC00001, 0x7FC00002))
    assert list(differences({"nan": quiet}, {"nan": quiet.copy()})) == []
    (payload,) = differences({"nan": quiet}, {"nan": loud})
    assert (payload.count, payload.largest, payload.ulp) == (1, None, None)
    assert "no numbers" in str(payload)


def test_files_of_two_frameworks_are_compared_as_networks(tmp_path: Path) -> None:
    """One weight moved by one ulp is found under its canonical name, through a transposing format without counters."""
    network = create("acon/shufflenet_v2_x0_5", "acon_c", 3, repeats=(1, 1, 1))
    state = spec.initial_state(network.graph, 5)
    known = formats()
    known["torch"].files.write(tmp_path / "a", known["torch"].layout.to_native(network.graph, state), metadata(network))
    convert(tmp_path / "a", tmp_path / "b", "jax")
    given = {"repeats": (1, 1, 1)}
    same = diff(tmp_path / "a", tmp_path / "b", network.name, "acon_c", (None, None), given)
    assert (same.differences, same.compared_as) == ([], "acon/shufflenet_v2_x0_5")
    counters = [path for path in state if path.endswith("num_batches_tracked")]
    assert same.tensors == len(state) - len(counters)
    assert f"{len(counters)} tensors" in same.notes[0]
    moved = state | {"classifier.0.weight": state["classifier.0.weight"].copy()}
    moved["classifier.0.weight"][2, 5] = np.nextafter(moved["classifier.0.weight"][2, 5], np.float32(9))
    known["jax"].files.write(tmp_path / "c", known["jax"].layout.to_native(network.graph, moved))
    (one,) = diff(tmp_path / "a", tmp_path / "c", network.name, "acon_c", (None, None), given).differences
    assert (one.name, one.count, one.ulp) == ("classifier.0.weight", 1, 1)


def test_files_of_no_network_are_compared_by_their_names(tmp_path: Path) -> None:
    files = formats()["npz"].files
    files.write(tmp_path / "a", {"x": np.float32([1, 2])})
    files.write(tmp_path / "b", {"x": np.float32([1, 3])})
    found = diff(tmp_path / "a", tmp_path / "b", None, None, (None, None), {})
    assert [each.name for each in found.differences] == ["x"]
    assert "names as they stand" in found.compared_as
    with pytest.raises(AconError, match="nearest is acon/dcn"):
        diff(tmp_path / "a", tmp_path / "b", "acon/dcn", None, (None, None), {})
