"""NumPy arrays in pickles: what NumPy and the frameworks that lean on it write, read safely, and written again."""

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
from acon_core.checkpoint.codecs.strict_json import decode, encode
from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.codecs.unpickler import MENTION, Constructor, Name, Table, set_item
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor


@dataclass(eq=False)
class DType:
    """A dtype in a pickle, which tells its byte order in a second step."""

    code: str
    order: str = "<"

    def numpy(self) -> np.dtype:
        """The dtype in the file's byte order."""
        return np.dtype(self.order.replace("|", "<") + self.code)


@dataclass(eq=False)
class Array:
    """An array in a pickle. It is described in two steps, and checked against its bytes when `tensor()` is called."""

    shape: tuple[int, ...] = ()
    dtype: DType | None = None
    fortran: bool = False
    data: memoryview | str | None = None  # Python 2 and protocols 0 to 2 write bytes as text in latin-1

    def tensor(self) -> LazyTensor:
        """The array, described and checked. Raises CheckpointError, to which the caller adds file and key."""
        if self.dtype is None or self.data is None:
            raise CheckpointError("corrupt", "an array was begun and never given its values")
        data = _latin1(self.data) if isinstance(self.data, str) else self.data
        if self.fortran:
            return lazy_view(view(data, self.dtype.numpy(), self.shape[::-1]).T)
        return lazy_view(view(data, self.dtype.numpy(), self.shape))


def arrays(values: Mapping[str, object], path: Path, file_bytes: int) -> dict[str, LazyTensor]:
    """Every `Array` of a state as a tensor; an error names the file and the key."""
    found = {}
    budget = Budget(file_bytes)
    for key, value in values.items():
        assert isinstance(value, Array)
        try:
            budget.spend(len(value.data or ""))
            found[key] = value.tensor()
        except CheckpointError as error:
            raise CheckpointError(error.kind, f"{path}: {printable(key)}: {error}") from None
    return found


def _reject(what: str, args: object) -> CheckpointError:
    return CheckpointError("unsafe", f"{what} with arguments that no checkpoint has ({type(args).__name__}); nothing was run")


def _latin1(text: str) -> memoryview:
    try:
        return memoryview(text.encode("latin-1"))
    except UnicodeEncodeError:
        raise CheckpointError("corrupt", "an array holds text where bytes were expected") from None


def _dtype(args: tuple[Any, ...]) -> DType:
    if not 1 <= len(args) <= 3:
        raise _reject("numpy.dtype", args)
    code = args[0] if type(args[0]) is str else type(args[0]).__name__
    if not re.fullmatch(r"b1|[iu][1248]|f[248]|c(8|16)", code):
        raise CheckpointError("unsupported", f"dtype {code!r:.40} is not a kind of number that is read here")
    return DType(code)


def _dtype_state(dtype: DType, state: object) -> None:
    if type(state) is not tuple or len(state) < 5 or state[1] not in ("<", ">", "|") or state[2:5] != (None, None, None):
        raise CheckpointError("unsupported", "a structured dtype; save plain arrays of numbers")
    dtype.order = state[1]


def _reconstruct(args: tuple[Any, ...]) -> Array:
    if len(args) != 3 or args[0] != Name("numpy", "ndarray"):
        raise _reject("numpy's _reconstruct", args)
    return Array()


def _array_state(array: Array, state: object) -> None:
    if type(state) is not tuple or len(state) != 5:
        raise _reject("an array's state", state)
    if array.dtype is not None:
        raise CheckpointError("corrupt", "an array that is given its values twice")
    _, shape, dtype, fortran, data = state
    _fill(array, shape, dtype, fortran, data)


def _fill(array: Array, shape: object, dtype: object, fortran: object, data: object) -> None:
    if not isinstance(data, memoryview | str):
        raise CheckpointError("unsupported", f"an array of Python objects (a {type(data).__name__}); save arrays of numbers")
    if type(shape) is not tuple or type(dtype) is not DType or type(fortran) not in (bool, int):
        raise _reject("an array", shape)
    array.shape, array.dtype, array.fortran, array.data = shape, dtype, bool(fortran), data


def _frombuffer(args: tuple[Any, ...]) -> Array:
    if len(args) != 4 or args[3] not in ("C", "F"):
        raise _reject("numpy's _frombuffer", args)
    array = Array()
    _fill(array, args[2], args[1], args[3] == "F", args[0])
    return array


def _scalar(args: tuple[Any, ...]) -> Array:
    if len(args) != 2:
        raise _reject("a NumPy scalar", args)
    array = Array()
    _fill(array, (), args[0], False, args[1])
    return array


def _encode(args: tuple[Any, ...]) -> str:
    """The text itself, which stands for its bytes: a file that asks for them a million times gets one copy."""
    if len(args) != 2 or type(args[0]) is not str or args[1] not in ("latin1", "latin-1"):
        raise _reject("_codecs.encode", args)
    return args[0]


def _no_bytes(args: tuple[Any, ...]) -> memoryview:
    if args:
        raise _reject("bytes", args)
    return memoryview(b"")


def _ordered_dict(args: tuple[Any, ...]) -> dict[object, object]:
    """An empty one, to be filled, or from a list of lists of a key and a value, as Python 2 wrote it."""
    if not args:
        return {}
    pairs = args[0]
    if len(args) != 1 or type(pairs) is not list or not all(type(pair) is list and len(pair) == 2 for pair in pairs):
        raise _reject("collections.OrderedDict", args)
    found: dict[object, object] = {}
    for key, value in pairs:
        set_item(found, key, value)
    pairs[:] = [None]  # no pickler names the list again, and a file that did so very often would fill the memory
    return found


def _ordered_dict_state(target: object, state: object) -> None:
    """PyTorch hangs `_metadata`, the modules' versions, on its state dicts; nothing here depends on it."""
    if type(state) is not dict:
        raise _reject("an OrderedDict's state", state)


ARRAYS: Table = {
    ("collections", "OrderedDict"): Constructor(_ordered_dict, _ordered_dict_state),
    ("numpy", "ndarray"): MENTION,
    ("numpy", "dtype"): Constructor(_dtype, _dtype_state),
    ("_codecs", "encode"): Constructor(_encode),
    # Protocols 0 to 2 write empty bytes as a call of their type.
    ("builtins", "bytes"): Constructor(_no_bytes),
    ("__builtin__", "bytes"): Constructor(_no_bytes),
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
    """Write a dict of arrays (or an OrderedDict, if `ordered`) as a pickle of protocol 4.

    A value may also be a dict of names. NumPy is named as `numpy.core`, which NumPy 1 and 2 both load, and each array's
    bytes begin at a multiple of 64, so that a reader can map them. `metadata` stands first, as a string that is dropped at
    once: whoever loads the pickle sees nothing of it. Equal arguments give equal bytes.
    """
    writer = _Writer(file)
    writer.write(_PROTOCOL)
    if metadata:
        told = _OURS + encode(metadata)
        writer.write(_TEXT + struct.pack("<I", len(told)) + told + _DROP)
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
    """The metadata that `write_pickle` put at the start of a pickle; none where it put none, or another wrote the pickle.

    Raises CheckpointError for metadata that is cut short or is no JSON.
    """
    begin = len(_PROTOCOL) + len(_TEXT) + 4
    if bytes(data[: len(_PROTOCOL) + len(_TEXT)]) != _PROTOCOL + _TEXT or bytes(data[begin : begin + len(_OURS)]) != _OURS:
        return {}
    (length,) = struct.unpack("<I", data[begin - 4 : begin])
    if bytes(data[begin + length : begin + length + 1]) != _DROP:
        raise CheckpointError("corrupt", f"{where}: its metadata is not followed by what takes it off again")
    return decode(data[begin + len(_OURS) : begin + length], where)


def text_opcode(text: str) -> bytes:
    """BINUNICODE, which every protocol from 1 on has."""
    encoded = text.encode("utf-8")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def int_opcode(value: int) -> bytes:
    """The shortest opcode of protocol 2 for a whole number from 0 on."""
    if value < 1 << 8:
        return b"K" + struct.pack("<B", value)
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little")
    return b"\x8a" + struct.pack("<B", len(encoded)) + encoded


def tuple_opcodes(values: tuple[int, ...]) -> bytes:
    """A tuple of whole numbers in protocol 2."""
    return b"(" + b"".join(map(int_opcode, values)) + b"t" if values else b")"


# What a pickle of ours begins with, and the opcodes of a string and of taking it off the stack.
_PROTOCOL, _TEXT, _DROP = b"\x80\x04", b"X", b"0"
_OURS = b"acon-ports"


class _Writer:
    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.length = 0
        self.dtypes: dict[str, int] = {}

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
        # A string that is dropped at once moves the data to a multiple of 64.
        padding = -(self.length + 6 + len(head)) % 64
        self.write(b"X" + struct.pack("<I", padding) + b" " * padding + b"0" + head)
        self.write(data)
        self.write(b"tb")

    def dtype(self, dtype: np.dtype) -> None:
        code = f"{dtype.kind}{dtype.itemsize}"
        if code in self.dtypes:
            self.write(b"h" + bytes([self.dtypes[code]]))
            return
        order = "|" if dtype.itemsize == 1 else "<"
        self.dtypes[code] = len(self.dtypes)
        self.write(b"cnumpy\ndtype\n(" + text_opcode(code) + b"\x89\x88tRq" + bytes([self.dtypes[code]]))
        self.write(b"(K\x03" + text_opcode(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
