"""A file of PyTorch before 0.4 under Python 2, written by hand."""

from __future__ import annotations

from hostile_legacy import whole
from hostile_torch import WEIGHT


def _short(value: str) -> bytes:
    return b"U" + bytes([len(value)]) + value.encode()


def _python_2(name: str, offset: int, size: bytes, stride: bytes) -> bytes:
    part = b"(" + _short("1") + b"K\x02K\x03t"  # three of the storage's values, from the third on
    pid = b"(" + _short("storage") + b"ctorch\nFloatStorage\n" + _short("0") + _short("cpu") + b"K\x06" + part + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + pid + b"K" + bytes([offset]) + size + stride + b"tR"
    return b"](" + _short(name) + tensor + b"e"


# PyTorch 0.3 under Python 2: text as bytes, an OrderedDict of pairs, parts of storages.
PYTHON_2 = whole(
    b"\x80\x02ccollections\nOrderedDict\n(]("
    + _python_2("layer.weight", 0, b"K\x02K\x01\x86", b"K\x01K\x01\x86")
    + _python_2("layer.bias", 1, b"K\x02\x85", b"K\x01\x85")
    + b"etR."
)
PYTHON_2_STATE = {"layer.weight": WEIGHT[2:4].reshape(2, 1), "layer.bias": WEIGHT[3:5]}
