"""Flax's msgpack files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import assert_same, limited, module
from hostile_msgpack import WEIGHT, array, chunked, ext, text, tree

from acon_core.errors import CheckpointError


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
def test_valid_encodings(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert module("jax").sniff(tmp_path / "a")
    assert_same(module("jax").read(tmp_path / "a").tensors, {"w": WEIGHT})


def test_chunks(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(chunked())
    assert_same(module("jax").read(tmp_path / "a").tensors, {"w": np.array([0, 1, 0, 1], np.float32)})


def test_unknown_dtype(tmp_path: Path) -> None:
    assert repr("float128") in refused(tmp_path / "a", tree(w=array(dtype=text("float128"))), "unsupported")


def test_truncated(tmp_path: Path) -> None:
    module("jax").write(tmp_path / "good", {"a.w": WEIGHT, "a.v": np.zeros((), np.int32), "b" * 40: np.zeros((300, 2))})
    content = (tmp_path / "good").read_bytes()
    for end in range(1, len(content), 3):
        refused(tmp_path / "a", content[:end])


def test_limits(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(tree(a=tree(b=tree(w=array()))))
    for limit, value in {"depth": 2, "nodes": 4, "ndim": 0, "file_bytes": 10}.items():
        with limited(**{limit: value}), pytest.raises(CheckpointError):
            module("jax").read(tmp_path / "a")


def test_other_leaves(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(
        tree(w=array(), s=b"\x05", n=b"\xc0", e=ext(b"x", 9), c=ext(b"\x92\x01\x02", 2), l=b"\x91\x01")
    )
    found = module("jax").read(tmp_path / "a")
    assert list(found.tensors) == ["w"]
    assert found.notes == ["ignored what is not an array: 's', 'n', 'e', 'c', 'l'"]


def test_random_streams(tmp_path: Path) -> None:
    word, two = array(b"\x90", text("uint32"), b"\xc4\x04" + bytes(4)), array(dtype=text("uint32"))
    streams = tree(plain=tree(count=word, key=two), wrapped=tree(count=tree(value=word), key=tree(value=two)))
    (tmp_path / "a").write_bytes(tree(rngs=streams, kept=tree(count=array(), key=two), lone=tree(key=two)))
    found = module("jax").read(tmp_path / "a")
    assert list(found.tensors) == ["kept.count", "kept.key", "lone.key"]
    assert found.notes == ["ignored random streams: 'rngs.plain', 'rngs.wrapped'"]


def test_linen_collections(tmp_path: Path) -> None:
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


def test_value_step(tmp_path: Path) -> None:
    for content, keys in [
        (tree(a=tree(value=array()), b=tree(c=tree(value=array()))), ["a", "b.c"]),
        (tree(a=tree(value=array()), b=tree(c=array())), ["a.value", "b.c"]),
        (tree(value=array()), ["value"]),
    ]:
        (tmp_path / "a").write_bytes(content)
        assert list(module("jax").read(tmp_path / "a").tensors) == keys
