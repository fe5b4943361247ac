"""`acon diff`: which tensors differ and by how much, in ulp as `np.nextafter` counts them."""

from __future__ import annotations

import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_core import spec
from acon_core.checkpoint import NetworkQuery, convert, formats, metadata
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
def test_ulp_of_neighbours(name: str, start: float, steps: int, up: bool) -> None:
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


KINDS_OF_FLOAT = [
    *("float16", "bfloat16", "float8_e4m3", "float8_e4m3fn", "float8_e5m2", "float8_e3m4", "float4_e2m1fn", "float6_e2m3fn"),
    *("float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e4m3b11fnuz"),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", KINDS_OF_FLOAT)
def test_ulp_of_narrow_floats(name: str) -> None:
    """Sort all values of a dtype: the distance in ulp is the difference of ranks, without -0."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    bits = ml_dtypes.finfo(dtype).bits
    with np.errstate(invalid="ignore"):
        values = np.arange(1 << bits, dtype=f"u{dtype.itemsize}").view(dtype).astype(np.float64)
    numbers = np.unique(values[np.isfinite(values)])
    places = np.random.default_rng(3).integers(0, len(numbers), (2, 60))
    for one, two in [*places.T, (0, len(numbers) - 1)]:
        if one != two:
            a, b = (numbers[[place]] for place in (one, two))
            apart = abs(int(two) - int(one))
            (found,) = differences({"w": a.astype(dtype)}, {"w": b.astype(dtype)})
            assert (found.ulp, found.largest) == (apart, float(abs(a[0] - b[0])))
            for left, right in ((a.astype(dtype), b), (b, a.astype(dtype))):
                (found,) = differences({"w": left}, {"w": right})
                assert found.ulp == apart


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("a", "b", "largest", "ulp"),
    [
        (np.float16([1.5, 2]), np.array([1.5078125, 2], ml_dtypes.bfloat16), 0.0078125, None),  # neither contains the other
        (np.array([1.5], ml_dtypes.float8_e4m3fn), np.array([1.25], ml_dtypes.float8_e5m2), 0.25, None),
        (np.array([2], ml_dtypes.float8_e8m0fnu), np.array([1.5], ml_dtypes.float8_e4m3fn), 0.5, None),
        (np.float64([1e300, 2]), np.float32([1e30, 2]), 1e300 - float(np.float32(1e30)), None),  # overflows float32
        (np.float32([-3]), np.array([4], ml_dtypes.float8_e8m0fnu), 7.0, None),
        (np.float32([1e5]), np.array([3], ml_dtypes.float8_e5m2fnuz), 99997.0, None),
        (np.float64([1.0000000001]), np.float32([1]), 1.0000000001 - 1, 0),
    ],
)
def test_two_dtypes(a: np.ndarray, b: np.ndarray, largest: float, ulp: int | None) -> None:
    for one, two in ((a, b), (b, a)):
        (found,) = differences({"w": one}, {"w": two})
        assert (found.count, found.largest, found.ulp) == (1, largest, ulp)


def test_nan_has_no_distance() -> None:
    """In the fnuz dtypes 0x80 is the only NaN. A signalling NaN causes no warning."""
    for name in ("float8_e4m3fnuz", "float8_e5m2fnuz"):
        a, b = (np.array([word, 3], np.uint8).view(getattr(ml_dtypes, name)) for word in (0x80, 0x00))
        (found,) = differences({"w": a}, {"w": b})
        assert (found.count, found.largest, found.ulp) == (1, None, None)
    loud = np.array([0x7F81, 0x3F80], np.uint16).view(ml_dtypes.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = differences({"w": loud}, {"w": np.float32([2, 1])})
    assert (found.count, found.largest, found.ulp) == (1, None, None)


BIG = 2**53


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("a", "b", "largest"),
    [
        (np.int64([BIG + 1, 3]), np.int64([BIG, 3]), 1),
        (np.uint64([2**64 - 1, 3]), np.uint64([2**64 - 2, 3]), 1),
        (np.int64([2**63 - 1, 3]), np.int64([-(2**63), 3]), 2**64 - 1),
        (np.uint64([2**63 + 1, 3]), np.int64([2**63 - 1, 3]), 2),
        (np.int64([-5, 3]), np.uint64([2**64 - 1, 3]), 2**64 + 4),
        (np.int64([BIG + 1, 3]), np.float64([BIG, 3]), 1.0),
        (np.int64([BIG + 1, 3]), np.array([BIG, 3], ml_dtypes.bfloat16), 1.0),
        (np.int64([BIG + 1, 3]), np.int32([7, 3]), BIG - 6),
        (np.int64([4, 3]), np.float32([4.25, 3]), 0.25),
        (np.uint8([255, 3]), np.uint8([1, 3]), 254),
        (np.int32([2**31 - 1, 3]), np.int32([-(2**31), 3]), 2**32 - 1),
        (np.array([True, False]), np.array([False, False]), 1),
    ],
)
def test_integers(a: np.ndarray, b: np.ndarray, largest: int | float) -> None:
    for one, two in ((a, b), (b, a)):
        (found,) = differences({"w": one}, {"w": two})
        assert (found.count, found.largest, found.ulp) == (1, largest, None)
        assert type(found.largest) is type(largest)
    assert str(found).endswith(f"by up to {largest}" if isinstance(largest, int) else f"by up to {largest:g}")


def test_equal_integers_of_two_dtypes() -> None:
    (found,) = differences({"w": np.int64([2**53 + 2, -7])}, {"w": np.float64([2**53 + 2, -7])})
    assert (found.count, str(found)) == (0, "w: int64 (2,) vs float64 (2,): 0 values differ, by up to 0")
    (found,) = differences({"w": np.int64([2, 3])}, {"w": np.complex64([2, 3])})
    assert str(found) == "w: int64 (2,) vs complex64 (2,)"
    (found,) = differences({"w": np.float64([2, 3])}, {"w": np.complex64([2 + 1j, 3])})
    assert (found.count, found.largest, found.ulp) == (1, 1.0, None)


def test_one_line_per_difference() -> None:
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
    assert str(found["shape"]) == "shape: float64 (2, 3) vs float64 (3, 2)"
    assert (found["only a"].b, found["only b"].a) == (ABSENT, ABSENT)
    assert (found["kind"].count, found["kind"].ulp) == (0, 0)
    assert (found["int"].count, found["int"].largest, found["int"].ulp) == (1, 5.0, None)
    quiet, loud = (np.array([word, 1], np.uint32).view(np.float32) for word in (0x7FC00001, 0x7FC00002))
    assert list(differences({"nan": quiet}, {"nan": quiet.copy()})) == []
    (payload,) = differences({"nan": quiet}, {"nan": loud})
    assert (payload.count, payload.largest, payload.ulp) == (1, None, None)
    assert "some not finite" in str(payload)


def test_files_of_two_frameworks(tmp_path: Path) -> None:
    """One weight moved by one ulp is found across a format that transposes and has no counters."""
    network = create("acon/shufflenet_v2_x0_5", "acon_c", 3, repeats=(1, 1, 1))
    state = spec.initial_state(network.graph, 5)
    known = formats()
    known["torch"].codec.write(tmp_path / "a", known["torch"].layout.to_native(network.graph, state), metadata(network))
    convert(tmp_path / "a", tmp_path / "b", "jax")
    query = NetworkQuery(network.name, "acon_c", options={"repeats": (1, 1, 1)})
    same = diff(tmp_path / "a", tmp_path / "b", query)
    assert (same.differences, same.compared_as) == ([], "acon/shufflenet_v2_x0_5")
    counters = [path for path in state if path.endswith("num_batches_tracked")]
    assert same.tensors == len(state) - len(counters)
    assert f"{len(counters)} tensors" in same.notes[0]
    moved = state | {"classifier.0.weight": state["classifier.0.weight"].copy()}
    moved["classifier.0.weight"][2, 5] = np.nextafter(moved["classifier.0.weight"][2, 5], np.float32(9))
    known["jax"].codec.write(tmp_path / "c", known["jax"].layout.to_native(network.graph, moved))
    (one,) = diff(tmp_path / "a", tmp_path / "c", query).differences
    assert (one.name, one.count, one.ulp) == ("classifier.0.weight", 1, 1)


def test_files_of_no_network(tmp_path: Path) -> None:
    files = formats()["npz"].codec
    files.write(tmp_path / "a", {"x": np.float32([1, 2])})
    files.write(tmp_path / "b", {"x": np.float32([1, 3])})
    found = diff(tmp_path / "a", tmp_path / "b")
    assert [each.name for each in found.differences] == ["x"]
    assert found.compared_as == "names in the files"
    with pytest.raises(AconError, match="nearest is acon/dcn"):
        diff(tmp_path / "a", tmp_path / "b", NetworkQuery("acon/dcn"))
