"""Headers that do not fit their bytes."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import assert_same, module

from acon_core.checkpoint.file import Limits
from acon_core.errors import CheckpointError

WEIGHT = np.arange(2, dtype=np.float32)


def blob(header: object, data: bytes = WEIGHT.tobytes(), length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data


def entry(dtype: object = "F32", shape: object = (2,), span: object = (0, 8), **more: object) -> dict[str, object]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": span, **more}}


def refused(path: Path, content: bytes, kind: str = "corrupt") -> str:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=str(path)) as caught:
        module("safetensors").read(path)
    assert caught.value.kind == kind, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_helper_makes_a_good_file(tmp_path: Path) -> None:
    for content in (blob(entry()), blob(b"  " + json.dumps(entry()).encode() + b"   ")):
        (tmp_path / "a").write_bytes(content)
        assert_same(module("safetensors").read(tmp_path / "a").tensors, {"w": WEIGHT})


BAD = {
    "length past the end": blob(entry(), length=1 << 20),
    "length of 2**63": blob(entry(), length=1 << 63),
    "length 0": blob(entry(), length=0),
    "seven bytes": b"\x01" * 7,
    "not JSON": blob(b"hello"),
    "not UTF-8": blob(b'{"\xff": 1}'),
    "list": blob([]),
    "number": blob(b"12"),
    "cut JSON": blob(b'{"w": {"dtype"'),
    "two values": blob(b"{} {}"),
    "duplicate name": blob(b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "w": {}}'),
    "duplicate field": blob(b'{"w": {"dtype": "F32", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'),
    "deep": blob(b'{"w":' * 100_000),
    "deep lists": blob(b"[" * 100_000),
    "surrogate name": blob(b'{"\\ud800": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'),
    "NaN": blob(b'{"w": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 8]}}'),
    "many digits": blob(b'{"w": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 8]}}'),
    "true as size": blob(entry(shape=[True, 2])),
    "float size": blob(entry(shape=[2.0])),
    "negative size": blob(entry(shape=[-2])),
    "huge size": blob(entry(shape=[1 << 62])),
    "wrapping size": blob(entry(shape=[1 << 32, 1 << 32], span=[0, 0]), b""),
    "empty and huge": blob(entry(shape=[0, 1 << 61], span=[0, 0]), b""),
    "many dimensions": blob(entry(shape=[1] * 33 + [2])),
    "shape of another size": blob(entry(shape=[3])),
    "begin after end": blob(entry(span=[8, 0])),
    "negative begin": blob(entry(span=[-8, 0])),
    "float offsets": blob(entry(span=[0.0, 8.0])),
    "one offset": blob(entry(span=[8])),
    "end past the data": blob(entry(span=[0, 16], shape=[4])),
    "data left over": blob(entry(), WEIGHT.tobytes() + b"\0"),
    "hole before": blob(entry(span=[4, 12]), bytes(12)),
    "field missing": blob({"w": {"dtype": "F32", "shape": [2]}}),
    "field added": blob(entry(extra=1)),
    "entry is text": blob({"w": "F32"}),
    "metadata of numbers": blob({"__metadata__": {"a": 1}, **entry()}),
    "metadata list": blob({"__metadata__": [], **entry()}),
    "bool of 2": blob(entry("BOOL", [8], [0, 8]), b"\x02" * 8),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_header_is_corrupt(tmp_path: Path, case: str) -> None:
    refused(tmp_path / "a", BAD[case])


@pytest.mark.parametrize("dtype", ["F6_E2M3", "f32", "", None, ["F32"], 4])
def test_a_dtype_that_is_not_known_is_named(tmp_path: Path, dtype: object) -> None:
    assert f"w: dtype {str(dtype)!r}" in refused(tmp_path / "a", blob(entry(dtype)), "unsupported")


@pytest.mark.parametrize(("first", "second"), [((0, 8), (8, 12)), ((0, 8), (4, 12)), ((0, 8), (0, 8)), ((4, 12), (0, 8))])
def test_tensors_cover_the_data_without_holes_or_overlaps(
    tmp_path: Path, first: tuple[int, int], second: tuple[int, int]
) -> None:
    header = {"w": entry(span=first)["w"], "v": entry(span=second)["w"]}
    size = max(first[1], second[1])
    refused(tmp_path / "a", blob(header, bytes(size)))
    (tmp_path / "b").write_bytes(blob({"w": entry(span=(8, 16))["w"], "v": entry()["w"]}, bytes(8) + WEIGHT.tobytes()))
    found = module("safetensors").read(tmp_path / "b").tensors
    assert_same(found, {"w": WEIGHT, "v": np.zeros(2, np.float32)})


def test_a_message_names_the_key(tmp_path: Path) -> None:
    message = refused(tmp_path / "a", blob(entry(shape=[3])))
    assert message == f"{tmp_path / 'a'}: w: shape (3,) of float32 needs 12 bytes, found 8"


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    module("safetensors").write(tmp_path / "good", {"w": WEIGHT, "v": WEIGHT}, {"a": "b"})
    content = (tmp_path / "good").read_bytes()
    for end in range(1, len(content)):
        refused(tmp_path / "a", content[:end])


def test_limits_hold(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(blob(entry()))
    for limits in (Limits(header_bytes=10), Limits(file_bytes=10)):
        with pytest.raises(CheckpointError) as caught:
            module("safetensors").read(tmp_path / "a", limits)
        assert caught.value.kind == "unsupported"
