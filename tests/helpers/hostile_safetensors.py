"""Hostile safetensors headers."""

from __future__ import annotations

import json
import struct

import numpy as np
from attacks import Attack
from hostile_pickles import Table

WEIGHT = np.arange(2, dtype=np.float32)


def blob(header: object, data: bytes = WEIGHT.tobytes(), length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data


def entry(dtype: object = "F32", shape: object = (2,), span: object = (0, 8), **more: object) -> dict[str, object]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": span, **more}}


HEADERS: Table = {
    (Attack.INCOMPLETE, "corrupt"): {
        "seven bytes": b"\x01" * 7,
    },
    (Attack.DICT_KEY, "corrupt"): {
        "duplicate name": blob(b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "w": {}}'),
        "duplicate field": blob(b'{"w": {"dtype": "F32", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'),
    },
    (Attack.ENCODING, "corrupt"): {
        "not UTF-8": blob(b'{"\xff": 1}'),
        "surrogate name": blob(b'{"\\ud800": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'),
    },
    (Attack.SHAPE, "corrupt"): {
        "true as size": blob(entry(shape=[True, 2])),
        "float size": blob(entry(shape=[2.0])),
        "negative size": blob(entry(shape=[-2])),
        "huge size": blob(entry(shape=[1 << 62])),
        "wrapping size": blob(entry(shape=[1 << 32, 1 << 32], span=[0, 0]), b""),
        "empty and huge": blob(entry(shape=[0, 1 << 61], span=[0, 0]), b""),
        "many dimensions": blob(entry(shape=[1] * 33 + [2])),
        "shape of another size": blob(entry(shape=[3])),
        "bool of 2": blob(entry("BOOL", [8], [0, 8]), b"\x02" * 8),
    },
    (Attack.JSON_HEADER, "corrupt"): {
        "length past the end": blob(entry(), length=1 << 20),
        "length of 2**63": blob(entry(), length=1 << 63),
        "length 0": blob(entry(), length=0),
        "not JSON": blob(b"hello"),
        "list": blob([]),
        "number": blob(b"12"),
        "cut JSON": blob(b'{"w": {"dtype"'),
        "two values": blob(b"{} {}"),
        "deep": blob(b'{"w":' * 100_000),
        "deep lists": blob(b"[" * 100_000),
        "NaN": blob(b'{"w": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 8]}}'),
        "many digits": blob(b'{"w": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 8]}}'),
        "field missing": blob({"w": {"dtype": "F32", "shape": [2]}}),
        "field added": blob(entry(extra=1)),
        "entry is text": blob({"w": "F32"}),
        "metadata of numbers": blob({"__metadata__": {"a": 1}, **entry()}),
        "metadata list": blob({"__metadata__": [], **entry()}),
    },
    (Attack.BYTE_RANGE, "corrupt"): {
        "begin after end": blob(entry(span=[8, 0])),
        "negative begin": blob(entry(span=[-8, 0])),
        "float offsets": blob(entry(span=[0.0, 8.0])),
        "one offset": blob(entry(span=[8])),
        "end past the data": blob(entry(span=[0, 16], shape=[4])),
        "data left over": blob(entry(), WEIGHT.tobytes() + b"\0"),
        **{
            f"{first} and {second}": blob(
                {"w": entry(span=first)["w"], "v": entry(span=second)["w"]}, bytes(max(first[1], second[1]))
            )
            for first, second in (((0, 8), (8, 12)), ((0, 8), (4, 12)), ((0, 8), (0, 8)), ((4, 12), (0, 8)))
        },
        "hole before": blob(entry(span=[4, 12]), bytes(12)),
    },
    (Attack.DTYPE, "unsupported"): {f"dtype {dtype}": blob(entry(dtype)) for dtype in ("F6_E2M3", "f32", "", None, ["F32"], 4)},
}
