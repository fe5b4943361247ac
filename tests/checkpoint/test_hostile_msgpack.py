"""Trees of arrays that are none."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import assert_same, module

from acon_core.checkpoint.file import Limits
from acon_core.errors import CheckpointError

WEIGHT = np.arange(2, dtype=np.float32)


def text(value: str) -> bytes:
    assert len(value) < 32
    return bytes([0xA0 | len(value)]) + value.encode()


def ext(data: bytes, code: int = 1) -> bytes:
    return b"\xc9" + struct.pack(">Ib", len(data), code) + data


def array(shape: bytes = b"\x91\x02", dtype: bytes = text("float32"), data: bytes = b"\xc4\x08" + WEIGHT.tobytes()) -> bytes:
    return ext(b"\x93" + shape + dtype + data)


def tree(**values: bytes) -> bytes:
    return bytes([0x80 | len(values)]) + b"".join(text(key) + value for key, value in values.items())


def chunked(shape: bytes = tree(**{"0": b"\x04"}), chunks: bytes = tree(**{"0": array(), "1": array()})) -> bytes:
    return tree(w=tree(__msgpack_chunked_array__=b"\xc3", shape=shape, chunks=chunks))


def nested(depth: int) -> bytes:
    """Arrays in arrays' shapes, each in a decoder of its own."""
    data = b"\x01"
    for _ in range(depth):
        data = ext(b"\x93\x91" + data)
    return data


def refused(path: Path, content: bytes, kind: str = "corrupt") -> str:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=str(path)) as caught:
        module("jax").read(path)
    assert caught.value.kind == kind, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        tree(w=array()),
        tree(w=array(dtype=b"\xc4\x07float32")),
        tree(w=array(dtype=b"\xd9\x07float32")),
        tree(w=ext(array()[6:], 3)),
        b"\xde\x00\x01" + text("w") + array(),
        b"\xdf\x00\x00\x00\x01" + text("w") + array(shape=b"\xdd\x00\x00\x00\x01\xcf" + struct.pack(">Q", 2)),
    ],
)
def test_a_good_file_in_every_spelling(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert module("jax").sniff(tmp_path / "a")
    assert_same(module("jax").read(tmp_path / "a").tensors, {"w": WEIGHT})


def test_chunks_are_joined(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(chunked())
    assert_same(module("jax").read(tmp_path / "a").tensors, {"w": np.array([0, 1, 0, 1], np.float32)})


BAD = {
    "bytes after the end": tree(w=array()) + b"\0",
    "duplicate name": b"\x82" + (text("w") + array()) * 2,
    "a name twice, as text and number": b"\x82" + text("0") + array() + b"\x00" + array(),
    "a name with dots": b"\x82" + text("a.b") + array() + text("a") + tree(b=array()),
    "float key": b"\x81\xcb" + bytes(8) + array(),
    "nil key": b"\x81\xc0" + array(),
    "map as key": b"\x81\x80" + array(),
    "array as key": b"\x81" + array() + b"\x01",
    "not UTF-8": b"\x81\xa1\xff" + array(),
    "no such type": tree(w=b"\xc1"),
    "array of 4 G": tree(w=b"\xdd\xff\xff\xff\xff"),
    "map of 4 G": b"\xdf\xff\xff\xff\xff",
    "text of 4 G": tree(w=b"\xdb\xff\xff\xff\xff"),
    "bytes of 4 G": tree(w=b"\xc6\xff\xff\xff\xff"),
    "ext of 4 G": tree(w=b"\xc9\xff\xff\xff\xff\x01"),
    "deep maps": b"\x81\x00" * 100_000 + b"\xc0",
    "deep lists": tree(w=b"\x91" * 100_000),
    "ext in ext": tree(w=array(shape=array())),
    "ext in ext, deep": tree(w=nested(2000)),
    "map in ext": tree(w=ext(b"\x81\x00\x00")),
    "empty ext": tree(w=ext(b"")),
    "two parts": tree(w=ext(b"\x92\x91\x02" + text("float32"))),
    "four parts": tree(w=array(data=b"\xc4\x08" + WEIGHT.tobytes() + b"\0")),
    "shape is a number": tree(w=array(shape=b"\x02")),
    "negative shape": tree(w=array(shape=b"\x91\xff")),
    "two negatives": tree(w=array(shape=b"\x92\xff\xfe")),
    "float shape": tree(w=array(shape=b"\x91\xca\x40\x00\x00\x00")),
    "bool shape": tree(w=array(shape=b"\x92\xc3\x02")),
    "other shape": tree(w=array(shape=b"\x91\x03")),
    "huge shape": tree(w=array(shape=b"\x91\xcf" + struct.pack(">Q", 1 << 63))),
    "many dimensions": tree(w=array(shape=b"\xdc\x00\x22" + b"\x01" * 33 + b"\x02")),
    "text as data": tree(w=array(data=b"\xd9\x08abcdefgh")),
    "number as dtype": tree(w=array(dtype=b"\x04")),
    "bool of 2": tree(w=array(dtype=text("bool"), data=b"\xc4\x02\x00\x02")),
    "chunks of another shape": chunked(shape=tree(**{"0": b"\x05"})),
    "negative chunk shape": chunked(shape=tree(**{"0": b"\xfc", "1": b"\xff"})),
    "chunk missing": chunked(chunks=tree(**{"0": array(), "2": array()})),
    "no chunks": chunked(chunks=b"\x80"),
    "mixed chunks": chunked(chunks=tree(**{"0": array(), "1": array(dtype=text("int32"))})),
    "chunk is a number": chunked(chunks=tree(**{"0": array(), "1": b"\x01"})),
    "chunks are a list": chunked(chunks=b"\x92" + array() * 2),
    "text as chunk size": chunked(shape=tree(**{"0": text("4")})),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_tree_is_corrupt(tmp_path: Path, case: str) -> None:
    began = time.perf_counter()
    refused(tmp_path / "a", BAD[case])
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize("dtype", [">f4", "object", "float128", "int4", "void", "<f4", "datetime64[s]"])
def test_a_dtype_that_is_not_known_is_named(tmp_path: Path, dtype: str) -> None:
    assert repr(dtype) in refused(tmp_path / "a", tree(w=array(dtype=text(dtype))), "unsupported")


@pytest.mark.parametrize("content", [b"\x01", b"\x91\x01", b"\x80", tree(w=b"\x01"), tree(w=ext(b"x", 9)), tree(w=tree())])
def test_a_file_without_arrays_is_not_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path / "a", content, "unsupported")


def test_a_file_cut_anywhere_is_corrupt(tmp_path: Path) -> None:
    module("jax").write(tmp_path / "good", {"a.w": WEIGHT, "a.v": np.zeros((), np.int32), "b" * 40: np.zeros((300, 2))})
    content = (tmp_path / "good").read_bytes()
    for end in range(1, len(content), 3):
        refused(tmp_path / "a", content[:end])


def test_limits_hold(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(tree(a=tree(b=tree(w=array()))))
    for limits in (Limits(depth=2), Limits(nodes=4), Limits(ndim=0), Limits(file_bytes=10)):
        with pytest.raises(CheckpointError):
            module("jax").read(tmp_path / "a", limits)


def test_leaves_that_are_no_arrays_are_noted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(
        tree(w=array(), s=b"\x05", n=b"\xc0", e=ext(b"x", 9), c=ext(b"\x92\x01\x02", 2), l=b"\x91\x01")
    )
    found = module("jax").read(tmp_path / "a")
    assert list(found.tensors) == ["w"]
    assert found.notes == ["ignored what is not an array: 's', 'n', 'e', 'c', 'l'"]


def test_random_streams_are_noted_and_their_likes_kept(tmp_path: Path) -> None:
    word, two = array(b"\x90", text("uint32"), b"\xc4\x04" + bytes(4)), array(dtype=text("uint32"))
    streams = tree(plain=tree(count=word, key=two), wrapped=tree(count=tree(value=word), key=tree(value=two)))
    (tmp_path / "a").write_bytes(tree(rngs=streams, kept=tree(count=array(), key=two), lone=tree(key=two)))
    found = module("jax").read(tmp_path / "a")
    assert list(found.tensors) == ["kept.count", "kept.key", "lone.key"]
    assert found.notes == ["ignored random streams: 'rngs.plain', 'rngs.wrapped'"]


def test_linens_collections_are_merged_and_other_trees_are_not(tmp_path: Path) -> None:
    for content, keys, notes in [
        (
            tree(params=tree(w=array()), batch_stats=tree(m=array()), step=b"\x03"),
            ["w", "m"],
            ["merged params and batch_stats; ignored 'step'"],
        ),
        (tree(params=tree(w=array())), ["w"], ["merged params"]),
        (tree(params=tree(w=array()), head=tree(w=array())), ["params.w", "head.w"], []),
        (tree(params=array()), ["params"], []),
    ]:
        (tmp_path / "a").write_bytes(content)
        found = module("jax").read(tmp_path / "a")
        assert (list(found.tensors), found.notes) == (keys, notes)
    refused(tmp_path / "a", tree(params=tree(w=array()), batch_stats=tree(w=array())))


def test_value_is_left_out_where_every_leaf_has_it(tmp_path: Path) -> None:
    for content, keys in [
        (tree(a=tree(value=array()), b=tree(c=tree(value=array()))), ["a", "b.c"]),
        (tree(a=tree(value=array()), b=tree(c=array())), ["a.value", "b.c"]),
        (tree(value=array()), ["value"]),
    ]:
        (tmp_path / "a").write_bytes(content)
        assert list(module("jax").read(tmp_path / "a").tensors) == keys
