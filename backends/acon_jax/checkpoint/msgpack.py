"""The subset of msgpack that Flax uses: maps, and arrays as extension types."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.arrays import concatenated, lazy_view, little_endian_bytes, view
from acon_core.checkpoint.codecs.pickle_values import set_item
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor

_NDARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
CHUNK_BYTES = 1 << 30  # Flax splits larger arrays; msgpack's lengths end at 4 GiB

DTYPES: dict[str, np.dtype] = {
    np.dtype(scalar).name: np.dtype(scalar)
    for scalar in (
        *(np.bool_, np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, np.int64),
        *(np.float16, np.float32, np.float64, np.complex64, np.complex128, ml_dtypes.bfloat16),
        *(ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e4m3b11fnuz),
        *(ml_dtypes.float8_e5m2, ml_dtypes.float8_e5m2fnuz, ml_dtypes.float8_e8m0fnu),
    )
}


@dataclass(frozen=True)
class Ext:
    """A value of an extension type that no array needs; it is ignored."""

    code: int


def is_map(data: memoryview) -> bool:
    """Whether the bytes begin with a map whose first key is text or a small integer."""
    first = data[0]
    if first == 0x80:
        return len(data) == 1  # pickles from protocol 2 on begin with the byte of an empty map
    start = {0xDE: 3, 0xDF: 5}.get(first, 1)
    if not (0x81 <= first <= 0x8F or start > 1) or len(data) <= start:
        return False
    return data[start] < 0x80 or 0xA0 <= data[start] <= 0xBF or data[start] in (0xD9, 0xDA, 0xDB)


def decode(data: memoryview, where: str) -> Any:
    """Decode a tree of dicts, lists, numbers, text and arrays.

    Raises CheckpointError naming `where` and the byte.
    """
    decoder = _Decoder(data)
    try:
        value = decoder.value(0)
        if decoder.position != len(data):
            _corrupt(f"{len(data) - decoder.position} bytes after the end")
    except CheckpointError as error:
        raise CheckpointError(error.kind, f"{where}: byte {decoder.position}: {error}") from None
    return value


def encode_tree(tree: Mapping[str, object]) -> Iterator[bytes | memoryview]:
    """Encode a tree of dicts and arrays as Flax does; yield the bytes in pieces."""
    yield _encode_head(len(tree), 0x80, 15, 0xDE)
    for key, value in tree.items():
        yield _encode_text(key)
        if isinstance(value, LazyTensor):
            yield from _encode_chunked(value.load()) if value.nbytes > CHUNK_BYTES else _encode_array(value.load())
        else:
            assert isinstance(value, dict)
            yield from encode_tree(value)


def _corrupt(message: str) -> NoReturn:
    raise CheckpointError("corrupt", message)


class _Decoder:
    def __init__(self, data: memoryview, *, in_array: bool = False) -> None:
        self.data, self.in_array = data, in_array
        self.position = self.nodes = 0

    def take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self.data):
            _corrupt(f"the file ends early: expected {count} more bytes, found {len(self.data) - self.position}")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def value(self, depth: int) -> Any:
        self.nodes += 1
        if depth > limits.LIMITS.depth or self.nodes > limits.LIMITS.nodes:
            _corrupt(f"nested more than {limits.LIMITS.depth} deep, or more than {limits.LIMITS.nodes} values")
        first = self.take(1)[0]
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first < 0x90:
            return self.map(first & 0x0F, depth)
        if first < 0xA0:
            return self.array(first & 0x0F, depth)
        if first < 0xC0:
            return self.text(first & 0x1F)
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first in _NUMBERS:
            return self.number(_NUMBERS[first])
        if first in _FIXEXT:
            return self.ext(_FIXEXT[first], depth)
        if first not in _LENGTH_PREFIXED:
            _corrupt(f"unknown msgpack type 0x{first:02x}")
        layout, kind = _LENGTH_PREFIXED[first]
        count = self.number(layout)
        if kind == "bin":
            return self.take(count)
        if kind == "text":
            return self.text(count)
        return {"map": self.map, "array": self.array, "ext": self.ext}[kind](count, depth)

    def text(self, count: int) -> str:
        try:
            return str(self.take(count), "utf-8")
        except UnicodeDecodeError:
            _corrupt("text that is not UTF-8")

    def array(self, count: int, depth: int) -> list[Any]:
        return [self.value(depth + 1) for _ in range(count)]

    def map(self, count: int, depth: int) -> Any:
        items: dict[Any, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            set_item(items, key, self.value(depth + 1))
        return _decode_chunked(items) if _CHUNKED in items else items

    def ext(self, count: int, depth: int) -> Any:
        code = self.number("b")
        data = self.take(count)
        if code not in (_NDARRAY, _SCALAR):
            return Ext(code)
        if self.in_array:
            _corrupt("an array inside the description of an array")
        inner = _Decoder(data, in_array=True)
        if bytes(data[:1]) != b"\x93":
            _corrupt("expected shape, dtype and bytes of an array")
        inner.position = 1
        shape, name, values = inner.value(limits.LIMITS.depth - 1), inner.name(), inner.value(limits.LIMITS.depth)
        if inner.position != count or type(shape) is not list or type(values) is not memoryview:
            _corrupt("expected shape, dtype and bytes of an array")
        if name not in DTYPES:
            raise CheckpointError("unsupported", f"dtype {name[:40]!r} is not supported")
        return lazy_view(view(values, DTYPES[name], shape))

    def name(self) -> str:
        value = self.value(limits.LIMITS.depth)
        if type(value) is memoryview:
            value = str(value, "latin-1")
        if type(value) is not str:
            _corrupt("a dtype that is not text")
        return value


_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {
    **{0xCA: ">f", 0xCB: ">d", 0xCC: "B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"},
    **{0xD0: "b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"},
}
_FIXEXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_LENGTH_PREFIXED = {
    **{0xC4: ("B", "bin"), 0xC5: (">H", "bin"), 0xC6: (">I", "bin")},
    **{0xC7: ("B", "ext"), 0xC8: (">H", "ext"), 0xC9: (">I", "ext")},
    **{0xD9: ("B", "text"), 0xDA: (">H", "text"), 0xDB: (">I", "text")},
    **{0xDC: (">H", "array"), 0xDD: (">I", "array"), 0xDE: (">H", "map"), 0xDF: (">I", "map")},
}


def _decode_chunked(items: dict[Any, Any]) -> LazyTensor:
    """Join the chunks of a large array; its lists are dicts with their indices as keys."""
    if set(items) != {_CHUNKED, "shape", "chunks"} or type(items["shape"]) is not dict or type(items["chunks"]) is not dict:
        _corrupt("a chunked array without shape or chunks")
    shape, chunks = (_as_list(items[name]) for name in ("shape", "chunks"))
    if not chunks or not all(isinstance(chunk, LazyTensor) for chunk in chunks):
        _corrupt("a chunked array whose chunks are missing or not arrays")
    return concatenated(chunks, shape)


def _as_list(items: dict[Any, Any]) -> list[Any]:
    if set(items) != {str(index) for index in range(len(items))}:
        _corrupt("an index is missing in a chunked array")
    return [items[str(index)] for index in range(len(items))]


def _encode_head(count: int, fixed: int, fixed_max: int, long: int) -> bytes:
    """Encode type and length of a map, an array or text, in 1, 3 or 5 bytes."""
    if count <= fixed_max:
        return bytes([fixed | count])
    return struct.pack(">BH", long, count) if count < 1 << 16 else struct.pack(">BI", long + 1, count)


def _encode_text(text: str) -> bytes:
    encoded = text.encode("utf-8")
    short = 31 < len(encoded) < 256
    return (bytes([0xD9, len(encoded)]) if short else _encode_head(len(encoded), 0xA0, 31, 0xDA)) + encoded


def _encode_integer(value: int) -> bytes:
    if value < 128:
        return bytes([value])
    code, layout = next((c, t) for c, t, bits in _UNSIGNED if value < 1 << bits)
    return bytes([code]) + struct.pack(layout, value)


_UNSIGNED = ((0xCC, "B", 8), (0xCD, ">H", 16), (0xCE, ">I", 32), (0xCF, ">Q", 64))


def _encode_length(length: int, codes: tuple[int, int, int]) -> bytes:
    code, (_, layout, _) = next((c, u) for c, u in zip(codes, _UNSIGNED, strict=False) if length < 1 << u[2])
    return bytes([code]) + struct.pack(layout, length)


def _encode_array(array: np.ndarray) -> Iterator[bytes | memoryview]:
    data = little_endian_bytes(array)
    shape = _encode_head(array.ndim, 0x90, 15, 0xDC) + b"".join(map(_encode_integer, array.shape))
    inner = b"\x93" + shape + _encode_text(array.dtype.name) + _encode_length(len(data), (0xC4, 0xC5, 0xC6))
    length = len(inner) + len(data)
    fixed = {count: code for code, count in _FIXEXT.items()}.get(length)
    yield (bytes([fixed]) if fixed else _encode_length(length, (0xC7, 0xC8, 0xC9))) + bytes([_NDARRAY])
    yield inner
    yield data


def _encode_chunked(array: np.ndarray) -> Iterator[bytes | memoryview]:
    flat = np.ascontiguousarray(array).reshape(-1)
    step = max(1, CHUNK_BYTES // array.itemsize)
    yield _encode_head(3, 0x80, 15, 0xDE) + _encode_text(_CHUNKED) + b"\xc3"
    yield _encode_text("shape") + _encode_head(array.ndim, 0x80, 15, 0xDE)
    yield b"".join(_encode_text(str(index)) + _encode_integer(size) for index, size in enumerate(array.shape))
    starts = range(0, flat.size, step)
    yield _encode_text("chunks") + _encode_head(len(starts), 0x80, 15, 0xDE)
    for index, start in enumerate(starts):
        yield _encode_text(str(index))
        yield from _encode_array(flat[start : start + step])
