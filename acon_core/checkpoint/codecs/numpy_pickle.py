"""NumPy arrays in pickles, as NumPy, MegEngine and PaddlePaddle write them."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from acon_core.checkpoint.codecs.arrays import lazy_view, little_endian_bytes, view
from acon_core.checkpoint.codecs.limits import Budget
from acon_core.checkpoint.codecs.pickle_values import (
    NAME_ONLY,
    PLACEHOLDER,
    Constructor,
    GlobalName,
    GlobalTable,
    set_item,
)
from acon_core.checkpoint.codecs.strict_json import decode_metadata, encode_metadata
from acon_core.checkpoint.codecs.text import ErrorPrefix
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor


@dataclass(eq=False)
class PickledDType:
    """A dtype in a pickle. Its constructor gives the code, its state the byte order."""

    code: str
    order: str = "<"
    unsupported: str = ""  # why arrays of it cannot be read

    def to_numpy(self) -> np.dtype:
        """Return the dtype in the file's byte order."""
        return np.dtype(self.order.replace("|", "<") + self.code)


@dataclass(eq=False)
class PickledArray:
    """An array in a pickle. Its constructor makes it empty, its state fills it in."""

    shape: tuple[int, ...] = ()
    dtype: PickledDType | None = None
    fortran_order: bool = False
    data: memoryview | str | None = None  # Python 2 and protocols 0 to 2 store bytes as latin-1 text
    unsupported: str = ""  # why it cannot be read, if it is needed

    def to_lazy(self) -> LazyTensor:
        """Check the array against its bytes. Raises CheckpointError without file and key."""
        if self.unsupported:
            raise CheckpointError("unsupported", self.unsupported)
        if self.dtype is None or self.data is None:
            raise CheckpointError("corrupt", "an array without values")
        data = _latin1(self.data) if isinstance(self.data, str) else self.data
        if self.fortran_order:
            return lazy_view(view(data, self.dtype.to_numpy(), self.shape[::-1]).T)
        return lazy_view(view(data, self.dtype.to_numpy(), self.shape))


def to_lazy_tensors(arrays: Mapping[str, object], path: Path, file_bytes: int) -> dict[str, LazyTensor]:
    """Check all arrays of a state dict. Raises CheckpointError naming file and key."""
    tensors = {}
    budget = Budget(file_bytes)
    for key, array in arrays.items():
        assert isinstance(array, PickledArray)
        with ErrorPrefix(path, key):
            budget.spend(len(array.data or ""))
            tensors[key] = array.to_lazy()
    return tensors


def _reject(what: str, args: object) -> CheckpointError:
    return CheckpointError(
        "unsafe", f"{what} with arguments that checkpoints do not contain ({type(args).__name__}); nothing was run"
    )


def _latin1(text: str) -> memoryview:
    try:
        return memoryview(text.encode("latin-1"))
    except UnicodeEncodeError:
        raise CheckpointError("corrupt", "expected bytes in an array, found text") from None


def _dtype(args: tuple[Any, ...]) -> PickledDType:
    if not 1 <= len(args) <= 3:
        raise _reject("numpy.dtype", args)
    code = args[0] if type(args[0]) is str else type(args[0]).__name__
    supported = re.fullmatch(r"b1|[iu][1248]|f[248]|c(8|16)", code)
    return PickledDType(code, unsupported="" if supported else f"dtype {code!r:.40} is not supported")


def _dtype_state(dtype: PickledDType, state: object) -> None:
    if type(state) is not tuple or len(state) < 5 or state[1] not in ("<", ">", "|") or state[2:5] != (None, None, None):
        dtype.unsupported = dtype.unsupported or "a structured dtype; save plain arrays of numbers"
    else:
        dtype.order = state[1]


def _reconstruct(args: tuple[Any, ...]) -> PickledArray:
    if len(args) != 3 or args[0] != GlobalName("numpy", "ndarray"):
        raise _reject("numpy's _reconstruct", args)
    return PickledArray()


def _array_state(array: PickledArray, state: object) -> None:
    if type(state) is not tuple or len(state) != 5:
        raise _reject("an array's state", state)
    if array.dtype is not None:
        raise CheckpointError("corrupt", "the values of an array are set twice")
    _, shape, dtype, fortran_order, data = state
    _fill(array, shape, dtype, fortran_order, data)


def _fill(array: PickledArray, shape: object, dtype: object, fortran_order: object, data: object) -> None:
    if not isinstance(data, memoryview | str):
        array.unsupported, data = f"an array of Python objects (a {type(data).__name__}); save arrays of numbers", None
    if type(shape) is not tuple or type(dtype) is not PickledDType or type(fortran_order) not in (bool, int):
        raise _reject("an array", shape)
    array.unsupported = dtype.unsupported or array.unsupported
    array.shape, array.dtype, array.fortran_order, array.data = shape, dtype, bool(fortran_order), data


def _frombuffer(args: tuple[Any, ...]) -> PickledArray:
    if len(args) != 4 or args[3] not in ("C", "F"):
        raise _reject("numpy's _frombuffer", args)
    array = PickledArray()
    _fill(array, args[2], args[1], args[3] == "F", args[0])
    return array


def _scalar(args: tuple[Any, ...]) -> PickledArray:
    if len(args) != 2:
        raise _reject("a NumPy scalar", args)
    array = PickledArray()
    _fill(array, (), args[0], False, args[1])
    return array


def _encode(args: tuple[Any, ...]) -> str:
    """Return the text itself in place of its bytes, so that repeated calls make no copies."""
    if len(args) != 2 or type(args[0]) is not str or args[1] not in ("latin1", "latin-1"):
        raise _reject("_codecs.encode", args)
    return args[0]


def _empty_bytes(args: tuple[Any, ...]) -> memoryview:
    if args:
        raise _reject("bytes", args)
    return memoryview(b"")


def _ordered_dict(args: tuple[Any, ...]) -> dict[object, object]:
    """Make a dict, empty or, as Python 2 wrote it, from a list of lists of a key and a value."""
    if not args:
        return {}
    pairs = args[0]
    if len(args) != 1 or type(pairs) is not list or not all(type(pair) is list and len(pair) == 2 for pair in pairs):
        raise _reject("collections.OrderedDict", args)
    items: dict[object, object] = {}
    for key, value in pairs:
        set_item(items, key, value)
    pairs[:] = [None]  # a hostile file could use the list again and again, to fill the memory
    return items


def _ordered_dict_state(target: object, state: object) -> None:
    """Ignore the attribute `_metadata` of PyTorch's state dicts, which holds modules' versions."""
    if type(state) is not dict:
        raise _reject("an OrderedDict's state", state)


def _items(args: tuple[Any, ...]) -> object:
    """Return the list or tuple that a set is made of."""
    if len(args) > 1 or (args and type(args[0]) not in (list, tuple)):
        raise CheckpointError("corrupt", "a set that is not made of a list")
    return args[0] if args else []


# What training scripts save beside the weights: objects that are only data.
_DATA = {
    "argparse": ("Namespace",),
    "collections": ("Counter", "defaultdict", "deque"),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "types": ("SimpleNamespace",),
    "uuid": ("UUID",),
    **dict.fromkeys(("builtins", "__builtin__"), ("bytearray", "complex", "frozenset", "range", "slice")),
    **dict.fromkeys(
        ("pathlib", "pathlib._local"),
        ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
    ),
}
_TYPES = ("bool", "dict", "float", "int", "list", "str")  # of the values of a defaultdict

NUMPY_GLOBALS: GlobalTable = {
    **{(module, name): PLACEHOLDER for module, names in _DATA.items() for name in names},
    **{(module, name): NAME_ONLY for module in ("builtins", "__builtin__") for name in _TYPES},
    **{(module, "set"): Constructor(_items) for module in ("builtins", "__builtin__")},
    ("collections", "OrderedDict"): Constructor(_ordered_dict, _ordered_dict_state),
    ("numpy", "ndarray"): NAME_ONLY,
    ("numpy", "dtype"): Constructor(_dtype, _dtype_state),
    ("_codecs", "encode"): Constructor(_encode),
    # Protocols 0 to 2 write empty bytes as a call of their type.
    ("builtins", "bytes"): Constructor(_empty_bytes),
    ("__builtin__", "bytes"): Constructor(_empty_bytes),
    **{
        (f"numpy.{core}.{module}", name): constructor
        for core in ("core", "_core")
        for module, name, constructor in (
            ("multiarray", "_reconstruct", Constructor(_reconstruct, _array_state)),
            ("multiarray", "scalar", Constructor(_scalar)),
            ("numeric", "_frombuffer", Constructor(_frombuffer)),
        )
    },
}


def write_pickle(
    file: BinaryIO, items: Mapping[str, LazyTensor | Mapping[str, str]], metadata: Mapping[str, str], *, ordered: bool
) -> None:
    """Write a dict of arrays, or an OrderedDict if `ordered`, as a pickle of protocol 4.

    A value may also be a dict of text. The pickle refers to `numpy.core`, which NumPy 1 and 2 load.
    The bytes of each array are aligned to 64, so that they can be mapped. `metadata` is a string at
    the start that is popped at once, so that loaders do not see it. Equal arguments give equal
    bytes.
    """
    writer = _Writer(file)
    writer.write(_PROTOCOL)
    if metadata:
        entry = METADATA_TAG + encode_metadata(metadata)
        writer.write(_BINUNICODE + struct.pack("<I", len(entry)) + entry + _POP)
    writer.write(b"ccollections\nOrderedDict\n)R" if ordered else b"}")
    writer.write(b"(")
    for key, value in items.items():
        writer.write(text_opcode(key))
        if isinstance(value, LazyTensor):
            writer.array(value.load())
        else:
            writer.write(b"}(" + b"".join(text_opcode(k) + text_opcode(v) for k, v in value.items()) + b"u")
    writer.write(b"u.")


def read_metadata(data: memoryview, where: str) -> dict[str, str]:
    """Return the metadata that `write_pickle` put at the start of a pickle, or {} if there is none.

    Raises CheckpointError for malformed metadata.
    """
    begin = len(_PROTOCOL) + len(_BINUNICODE) + 4
    tag_end = begin + len(METADATA_TAG)
    if bytes(data[: begin - 4]) != _PROTOCOL + _BINUNICODE or bytes(data[begin:tag_end]) != METADATA_TAG:
        return {}
    (length,) = struct.unpack("<I", data[begin - 4 : begin])
    if bytes(data[begin + length : begin + length + 1]) != _POP:
        raise CheckpointError("corrupt", f"{where}: expected the opcode POP after its metadata")
    return decode_metadata(data[tag_end : begin + length], where)


def text_opcode(text: str) -> bytes:
    """Encode text with BINUNICODE, which all protocols from 1 on have."""
    encoded = text.encode("utf-8")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def int_opcode(value: int) -> bytes:
    """Encode a non-negative integer with the shortest opcode of protocol 2."""
    if value < 1 << 8:
        return b"K" + struct.pack("<B", value)
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little")
    return b"\x8a" + struct.pack("<B", len(encoded)) + encoded


def tuple_opcodes(values: tuple[int, ...]) -> bytes:
    """Encode a tuple of non-negative integers in protocol 2."""
    return b"(" + b"".join(map(int_opcode, values)) + b"t" if values else b")"


_PROTOCOL, _BINUNICODE, _POP = b"\x80\x04", b"X", b"0"
METADATA_TAG = b"acon-ports"


class _Writer:
    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.length = 0
        self.memo: dict[str, int] = {}  # of dtypes

    def write(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self.length += len(data)

    def array(self, array: np.ndarray) -> None:
        data = little_endian_bytes(array)
        self.write(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR(K\x01")
        self.write(tuple_opcodes(array.shape))
        self.dtype(array.dtype)
        self.write(b"\x89")
        head = b"B" + struct.pack("<I", len(data)) if len(data) < 1 << 32 else b"\x8e" + struct.pack("<Q", len(data))
        # A string that is popped at once aligns the data to 64.
        padding = -(self.length + 6 + len(head)) % 64
        self.write(b"X" + struct.pack("<I", padding) + b" " * padding + b"0" + head)
        self.write(data)
        self.write(b"tb")

    def dtype(self, dtype: np.dtype) -> None:
        code = f"{dtype.kind}{dtype.itemsize}"
        if code in self.memo:
            self.write(b"h" + bytes([self.memo[code]]))
            return
        order = "|" if dtype.itemsize == 1 else "<"
        self.memo[code] = len(self.memo)
        self.write(b"cnumpy\ndtype\n(" + text_opcode(code) + b"\x89\x88tRq" + bytes([self.memo[code]]))
        self.write(b"(K\x03" + text_opcode(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
