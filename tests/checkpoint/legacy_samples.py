"""Files of PyTorch before 1.6, put together by hand: five pickles, then the storages."""

from __future__ import annotations

import struct

import numpy as np
from hostile_pickles import text

VALUES = np.arange(6, dtype=np.float32)
MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
VERSION = b"\x80\x02M\xe9\x03."
SYSTEM = b"\x80\x02}(" + text("protocol_version") + b"M\xe9\x03" + text("little_endian") + b"\x88u."
KEYS = b"\x80\x02](" + text("0") + b"e."


def storage(values: np.ndarray = VALUES, length: int | None = None) -> bytes:
    """The bytes of one storage after its length."""
    return struct.pack("<q", values.size if length is None else length) + values.tobytes()


def legacy(
    program: bytes,
    *,
    magic: bytes = MAGIC,
    version: bytes = VERSION,
    system: bytes = SYSTEM,
    keys: bytes = KEYS,
    storages: bytes | None = None,
) -> bytes:
    """A file with this pickle of a state in it."""
    return magic + version + system + program + keys + (storage() if storages is None else storages)


def _short(value: str) -> bytes:
    return b"U" + bytes([len(value)]) + value.encode()


def _python_2(name: str, offset: int, size: bytes, stride: bytes) -> bytes:
    part = b"(" + _short("1") + b"K\x02K\x03t"  # three of the storage's values, from the third on
    pid = b"(" + _short("storage") + b"ctorch\nFloatStorage\n" + _short("0") + _short("cpu") + b"K\x06" + part + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + pid + b"K" + bytes([offset]) + size + stride + b"tR"
    return b"](" + _short(name) + tensor + b"e"


# What PyTorch 0.3 wrote under Python 2: text as bytes, an OrderedDict of pairs, tensors of parts of a storage.
PYTHON_2 = legacy(
    b"\x80\x02ccollections\nOrderedDict\n(]("
    + _python_2("layer.weight", 0, b"K\x02K\x01\x86", b"K\x01K\x01\x86")
    + _python_2("layer.bias", 1, b"K\x02\x85", b"K\x01\x85")
    + b"etR."
)
PYTHON_2_STATE = {"layer.weight": VALUES[2:4].reshape(2, 1), "layer.bias": VALUES[3:5]}
