"""Hostile msgpack trees."""

from __future__ import annotations

import struct

import numpy as np
from attacks import Attack
from hostile_pickles import Table

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
    """Nest arrays in the shapes of arrays; each takes a decoder of its own."""
    data = b"\x01"
    for _ in range(depth):
        data = ext(b"\x93\x91" + data)
    return data


TREES: Table = {
    (Attack.NESTING, "corrupt"): {
        "deep maps": b"\x81\x00" * 100_000 + b"\xc0",
        "deep lists": tree(w=b"\x91" * 100_000),
    },
    (Attack.INCOMPLETE, "corrupt"): {
        "bytes after the end": tree(w=array()) + b"\0",
        "no such type": tree(w=b"\xc1"),
    },
    (Attack.DICT_KEY, "corrupt"): {
        "duplicate name": b"\x82" + (text("w") + array()) * 2,
        "a name twice, as text and number": b"\x82" + text("0") + array() + b"\x00" + array(),
        "a name with dots": b"\x82" + text("a.b") + array() + text("a") + tree(b=array()),
        "float key": b"\x81\xcb" + bytes(8) + array(),
        "nil key": b"\x81\xc0" + array(),
        "map as key": b"\x81\x80" + array(),
        "array as key": b"\x81" + array() + b"\x01",
    },
    (Attack.ENCODING, "corrupt"): {
        "not UTF-8": b"\x81\xa1\xff" + array(),
    },
    (Attack.SHAPE, "corrupt"): {
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
    },
    (Attack.MSGPACK, "corrupt"): {
        "array of 4 G": tree(w=b"\xdd\xff\xff\xff\xff"),
        "map of 4 G": b"\xdf\xff\xff\xff\xff",
        "text of 4 G": tree(w=b"\xdb\xff\xff\xff\xff"),
        "bytes of 4 G": tree(w=b"\xc6\xff\xff\xff\xff"),
        "ext of 4 G": tree(w=b"\xc9\xff\xff\xff\xff\x01"),
        "ext in ext": tree(w=array(shape=array())),
        "ext in ext, deep": tree(w=nested(2000)),
        "map in ext": tree(w=ext(b"\x81\x00\x00")),
        "empty ext": tree(w=ext(b"")),
        "two parts": tree(w=ext(b"\x92\x91\x02" + text("float32"))),
        "four parts": tree(w=array(data=b"\xc4\x08" + WEIGHT.tobytes() + b"\0")),
        "chunks of another shape": chunked(shape=tree(**{"0": b"\x05"})),
        "negative chunk shape": chunked(shape=tree(**{"0": b"\xfc", "1": b"\xff"})),
        "chunk missing": chunked(chunks=tree(**{"0": array(), "2": array()})),
        "no chunks": chunked(chunks=b"\x80"),
        "mixed chunks": chunked(chunks=tree(**{"0": array(), "1": array(dtype=text("int32"))})),
        "chunk is a number": chunked(chunks=tree(**{"0": array(), "1": b"\x01"})),
        "chunks are a list": chunked(chunks=b"\x92" + array() * 2),
        "text as chunk size": chunked(shape=tree(**{"0": text("4")})),
    },
    (Attack.DTYPE, "unsupported"): {
        dtype: tree(w=array(dtype=text(dtype)))
        for dtype in (">f4", "object", "float128", "int4", "void", "<f4", "datetime64[s]")
    },
    (Attack.MSGPACK, "unsupported"): {"unknown ext": tree(w=ext(b"x", 9))},
    (Attack.OTHER_FILE, "unsupported"): {
        "a number": b"\x01",
        "a list": b"\x91\x01",
        "an empty map": b"\x80",
        "no arrays": tree(w=b"\x01"),
        "an empty tree": tree(w=tree()),
    },
}
