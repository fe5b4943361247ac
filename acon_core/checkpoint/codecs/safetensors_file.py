"""Safetensors: the header's length in eight bytes, the header as JSON, and the tensors' bytes.

This codec keeps the order of names, all float8 dtypes and every bit, which the library does not.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

from acon_core.checkpoint.codecs.arrays import lazy_view, little_endian_bytes, view
from acon_core.checkpoint.codecs.atomic_write import atomic_write
from acon_core.checkpoint.codecs.codec import CheckpointFile, check_writable
from acon_core.checkpoint.codecs.mapped_file import map_file
from acon_core.checkpoint.codecs.strict_json import is_encodable, parse
from acon_core.checkpoint.codecs.text import ErrorPrefix, printable
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor, LazyTensors, lazy_items

FRAMEWORK = ""
SUFFIXES = (".safetensors",)
IS_DIRECTORY = False

# The dtypes of the safetensors library. Further float8 dtypes have names that some versions lack.
_BY_CODE: dict[str, np.dtype] = {
    code: np.dtype(scalar)
    for code, scalar in {
        "BOOL": np.bool_,
        "U8": np.uint8,
        "I8": np.int8,
        "U16": np.uint16,
        "I16": np.int16,
        "U32": np.uint32,
        "I32": np.int32,
        "U64": np.uint64,
        "I64": np.int64,
        "F16": np.float16,
        "F32": np.float32,
        "F64": np.float64,
        "C64": np.complex64,
        "BF16": ml_dtypes.bfloat16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    }.items()
}
DTYPES = {dtype.name: code for code, dtype in _BY_CODE.items()}


def sniff(path: Path) -> bool:
    """Whether the file begins with a length that fits and a JSON object."""
    data = map_file(path)
    return len(data) > 8 and struct.unpack("<Q", data[:8])[0] <= len(data) - 8 and bytes(data[8:16]).lstrip()[:1] == b"{"


def read(path: Path, key: str = "") -> CheckpointFile:
    """Read a safetensors file; names come in the header's order, which may differ from the bytes'.

    The tensors must cover the data without gaps or overlaps. Raises CheckpointError.
    """
    data = map_file(path)
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else -1
    if not 2 <= length <= len(data) - 8:
        _corrupt(path, f"a header of {length} bytes in a file of {len(data)}; copy or download it again")
    header = parse(data[8 : 8 + length], f"{path}: the header")
    metadata = header.pop("__metadata__", {})
    if type(metadata) is not dict or not all(type(v) is str and is_encodable(v) for v in metadata.values()):
        _corrupt(path, "__metadata__ must map names to text")
    body = data[8 + length :]
    offsets = {name: _data_offsets(path, name, entry) for name, entry in header.items()}
    end = 0
    for name, (begin, stop) in sorted(offsets.items(), key=lambda item: item[1]):
        if begin != end:
            _corrupt(path, f"{printable(name)}: begins at byte {begin}, expected {end}, where the tensor before it ends")
        end = stop
    if end != len(body):
        _corrupt(path, f"the tensors take {end} bytes, the file holds {len(body)}")
    tensors = {name: _tensor(path, name, header[name], body[begin:stop]) for name, (begin, stop) in offsets.items()}
    return CheckpointFile(LazyTensors(tensors), metadata).under(key, path)


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file; completely or not at all.

    The header lists the names in the given order; the bytes are ordered by item size, so that each
    tensor is aligned. Equal arguments give equal bytes. Raises CheckpointError for a name or a
    dtype that the format cannot store.
    """
    check_storable(tensors, path)
    with atomic_write(path) as file:
        serialize(file.write, tensors, metadata or {})


def check_storable(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Raise CheckpointError for a name or a dtype that the format cannot store."""
    check_writable(tensors, path, DTYPES, "safetensors")
    if "__metadata__" in tensors:
        raise CheckpointError("unsupported", f"{path}: __metadata__: this name is reserved by the format; rename it")


def serialize(
    emit: Callable[[bytes | memoryview], object], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Pass the bytes of a file to `emit` in order, with one tensor in memory at a time."""
    lazies = lazy_items(tensors)
    by_size = sorted(lazies, key=lambda key: -lazies[key].dtype.itemsize)
    offsets: dict[str, list[int]] = {}
    end = 0
    for key in by_size:
        offsets[key] = [end, end + lazies[key].nbytes]
        end += lazies[key].nbytes
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for key, tensor in lazies.items():
        header[key] = {"dtype": DTYPES[tensor.dtype.name], "shape": list(tensor.shape), "data_offsets": offsets[key]}
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    encoded += b" " * (-len(encoded) % 8)
    emit(struct.pack("<Q", len(encoded)) + encoded)
    for key in by_size:
        emit(little_endian_bytes(lazies[key].load()))


def _corrupt(path: Path, message: str) -> NoReturn:
    raise CheckpointError("corrupt", f"{path}: {message}")


def _data_offsets(path: Path, key: str, entry: object) -> tuple[int, int]:
    if type(entry) is not dict or set(entry) != {"dtype", "shape", "data_offsets"}:
        _corrupt(path, f"{printable(key)}: expected dtype, shape and data_offsets, found {str(entry)[:80]}")
    offsets, shape = entry["data_offsets"], entry["shape"]
    if type(entry["dtype"]) is not str or entry["dtype"] not in _BY_CODE:
        raise CheckpointError("unsupported", f"{path}: {printable(key)}: dtype {str(entry['dtype'])[:40]!r} is not supported")
    if type(offsets) is not list or [type(at) for at in offsets] != [int, int] or not 0 <= offsets[0] <= offsets[1]:
        _corrupt(path, f"{printable(key)}: data_offsets must be two integers, begin and end, found {str(offsets)[:80]}")
    if type(shape) is not list or not all(type(d) is int and d >= 0 for d in shape):
        _corrupt(path, f"{printable(key)}: shape must be a list of non-negative integers, found {str(shape)[:80]}")
    return offsets[0], offsets[1]


def _tensor(path: Path, key: str, entry: dict[str, Any], data: memoryview) -> LazyTensor:
    with ErrorPrefix(path, key):
        return lazy_view(view(data, _BY_CODE[entry["dtype"]], entry["shape"]))
