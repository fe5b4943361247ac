"""What every checkpoint file becomes when it is read, how much of one is believed, and how one is written.

Arrays that come out of a file are read-only, C-contiguous, aligned and of this machine's byte order, whatever the file held.
A copy, where one of these needs it, is made when the tensor is asked for, and kept by whoever asked.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from acon_core.errors import AconError, CheckpointError
from acon_core.tensors import Lazy, Tensors, described


@dataclass(frozen=True)
class Limits:
    """How much a file may ask for before it is refused; every number is far above what a real checkpoint needs."""

    file_bytes: int = 1 << 40
    opcodes: int = 2_000_000  # of one pickle; a tensor takes about forty
    nodes: int = 500_000  # values in one msgpack file; a tensor takes three
    depth: int = 64  # of nested marks or maps
    line: int = 4096  # characters in a text opcode's line, except those that hold strings
    integer_bytes: int = 32
    header_bytes: int = 10_000_000  # of JSON or of names; safetensors' is about 100 a tensor
    members: int = 100_000  # of a zip or a folder
    module_names: int = 1 << 23  # characters in the names of a pickled module's tensors, with all that is looked at for them
    ndim: int = 32  # NumPy 1's own limit
    expansion: int = 16  # bytes of tensors for each byte of file, which only overlapping views can bring above 1
    expansion_floor: int = 1 << 26


LIMITS = Limits()


@dataclass
class File:
    """A checkpoint's tensors by name, in the file's order, and what else is worth telling about the file.

    `metadata` is empty for the formats that have no place for it. `notes` says, a sentence each, what was left out or
    resolved while reading. `globals_seen` lists the names that a pickle mentions; none of them was looked up or called.
    `foreign`: those among them that are classes of a whole module, which any other loader would import.
    """

    tensors: Tensors
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    globals_seen: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


class _Mapped(mmap.mmap):
    """A mapped file that knows its name."""

    path: Path


def map_file(path: Path, limits: Limits = LIMITS) -> memoryview:
    """The bytes of a file, mapped and not read: a page is loaded when it is touched."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise AconError(f"{path}: expected a file, found a folder, a device or a pipe; give the name of a file")
        if size > limits.file_bytes:
            raise CheckpointError("unsupported", f"{path}: {size} bytes, more than {limits.file_bytes}")
        if size == 0:
            raise CheckpointError("corrupt", f"{path}: the file is empty; copy or download it again")
        with path.open("rb") as file:
            mapped = _Mapped(file.fileno(), 0, access=mmap.ACCESS_READ)
            mapped.path = path
            return memoryview(mapped)
    except OSError as error:
        raise AconError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from error


def check_still_there(mapped: object) -> None:
    """Raise CheckpointError where a mapped file was cut short since: to touch what it lost would end the process.

    `mapped`: what a buffer belongs to. What is lost between this and the copy of the bytes cannot be caught.
    """
    if isinstance(mapped, _Mapped) and mapped.size() < len(mapped):
        raise CheckpointError(
            "corrupt", f"{mapped.path}: {len(mapped)} bytes have become {mapped.size()} while it was read; copy it again"
        )


def contains(data: memoryview, mark: bytes) -> bool:
    """Whether the first or the last MiB of a mapped file has `mark` in it: what tells of a format stands at an end."""
    file = cast("mmap.mmap", data.obj)
    return file.find(mark, 0, 1 << 20) >= 0 or file.find(mark, max(len(data) - (1 << 20), 0)) >= 0


class Budget:
    """How many bytes of tensors a file may still give; a small file may name the same bytes very often."""

    def __init__(self, file_bytes: int, limits: Limits = LIMITS) -> None:
        self.left = max(file_bytes * limits.expansion, limits.expansion_floor)

    def spend(self, count: int) -> None:
        """Count a tensor's bytes before they are copied. Raises CheckpointError when there are too many."""
        self.left -= count
        if self.left < 0:
            raise CheckpointError("corrupt", "the tensors name the file's bytes again and again, and would fill the memory")


def view(
    buffer: memoryview,
    dtype: np.dtype,
    shape: Sequence[int],
    *,
    offset: int = 0,
    strides: Sequence[int] | None = None,
    limits: Limits = LIMITS,
) -> np.ndarray:
    """The array that a file describes, after its description was checked against the bytes there are.

    `offset` and `strides` count elements; without strides the array is C-ordered and must fill `buffer` exactly.
    Raises CheckpointError, to which the caller adds file and key.
    """
    if strides is None:
        assert not offset  # which nothing here gives without strides
        check_size(dtype, shape, len(buffer), limits)
        array = np.ndarray(tuple(shape), dtype, buffer)
    else:
        cells = _cells(dtype, shape, limits)
        _check_dims("stride", strides, limits)
        _check_dims("offset", (offset,), limits)
        if len(strides) != len(shape):
            raise CheckpointError("corrupt", f"shape {tuple(shape)} has another length than stride {tuple(strides)}")
        end = offset + (1 + sum((d - 1) * s for d, s in zip(shape, strides, strict=True)) if cells else 0)
        if end * dtype.itemsize > len(buffer):
            raise CheckpointError(
                "corrupt",
                f"shape {tuple(shape)}, stride {tuple(strides)}, offset {offset} of {dtype} ends at byte "
                f"{end * dtype.itemsize} of a storage of {len(buffer)}",
            )
        # An empty array's strides mean nothing and may overflow NumPy's integers.
        steps = [s * dtype.itemsize for s in strides] if cells else None
        array = np.ndarray(tuple(shape), dtype, buffer, offset * dtype.itemsize if cells else 0, steps)
    return array


def check_size(dtype: np.dtype, shape: Sequence[int], size: int, limits: Limits = LIMITS) -> None:
    """Raise CheckpointError where an array of that description does not take exactly `size` bytes."""
    needed = _cells(dtype, shape, limits) * dtype.itemsize
    if needed != size:
        raise CheckpointError("corrupt", f"shape {tuple(shape)} of {dtype} needs {needed} bytes, found {size}")


def _cells(dtype: np.dtype, shape: Sequence[int], limits: Limits) -> int:
    _check_dims("shape", shape, limits)
    if math.prod(max(d, 1) for d in shape) * dtype.itemsize >= 1 << 62:
        raise CheckpointError("corrupt", f"shape {tuple(shape)} is larger than any memory")
    return math.prod(shape)


def settled(array: np.ndarray) -> np.ndarray:
    """The same values in C order, aligned, in this machine's byte order, read-only; copied only where one of these fails."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not (array.flags.c_contiguous and array.flags.aligned):
        array = array.copy(order="C")
    array = array.view()
    array.flags.writeable = False
    return array


def lazily(array: np.ndarray) -> Lazy:
    """A view of a file's bytes that is settled when it is asked for.

    Raises CheckpointError for a bool that is neither 0 nor 1, with which NumPy's results would depend on the operation.
    """
    if array.dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise CheckpointError("corrupt", "a bool array holds bytes other than 0 and 1")
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base

    def load() -> np.ndarray:
        check_still_there(owner)
        return settled(array)

    return Lazy(array.shape, array.dtype.newbyteorder("="), load)


def joined(pieces: Sequence[Lazy], shape: Sequence[int]) -> Lazy:
    """The array that a file cut into pieces, which are joined when it is asked for. Raises CheckpointError as `view` does."""
    _check_dims("shape", shape, LIMITS)
    dtypes, cells = {piece.dtype for piece in pieces}, sum(math.prod(piece.shape) for piece in pieces)
    if len(dtypes) != 1:
        raise CheckpointError("corrupt", f"it was cut into {len(pieces)} pieces of {len(dtypes)} dtypes, expected one dtype")
    if math.prod(shape) != cells:
        raise CheckpointError("corrupt", f"shape {tuple(shape)} needs {math.prod(shape)} values, its pieces have {cells}")
    made = tuple(shape)
    return Lazy(made, dtypes.pop(), lambda: settled(np.concatenate([p.load().reshape(-1) for p in pieces]).reshape(made)))


def raw(array: np.ndarray) -> memoryview:
    """The array's bytes in C order and little-endian, as every format here stores them; NaN payloads are kept."""
    if array.dtype.hasobject or array.dtype.fields:
        raise CheckpointError("unsupported", f"dtype {array.dtype} is not an array of numbers")
    array = np.ascontiguousarray(array)
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not np.little_endian):
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


def find_state(value: object, is_tensor: Callable[[object], bool], path: Path) -> tuple[dict[str, object], list[str]]:
    """The one dict of tensors in a loaded object: the object itself, or a dict one level below it.

    A dict under one of the usual names wins over tensors beside it, since training scripts save their best accuracy as
    a tensor too. Returns the tensors by key and a note on each thing left out. Raises CheckpointError when there is no
    dict of tensors, or several and no usual name among them.
    """
    if not isinstance(value, dict):
        raise CheckpointError(
            "unsupported", f"{path}: expected a dict of tensors, found an object of type {type(value).__name__}"
        )
    dicts = {id(v): v for v in value.values() if isinstance(v, dict)}  # a file may name one dict very often
    states = {mark for mark, v in dicts.items() if any(is_tensor(leaf) for leaf in v.values())}
    inner = [k for k, v in value.items() if id(v) in states]
    usual = [k for k in STATE_KEYS if k in inner]
    notes = []
    if usual or not any(is_tensor(v) for v in value.values()):
        if len(inner) > 1 and not usual:
            raise CheckpointError("unsupported", f"{path}: several dicts of tensors, {listed(inner)}; save one of them alone")
        if not inner:
            raise CheckpointError("unsupported", f"{path}: no dict of tensors at the top level or below; keys {listed(value)}")
        chosen = (usual or inner)[0]
        others = [k for k in value if k != chosen]
        notes.append(f"read the tensors under {chosen!r}" + (f"; ignored {listed(others)}" if others else ""))
        value = value[chosen]
        assert isinstance(value, dict)
    for key in value:
        if not isinstance(key, str):
            raise CheckpointError("unsupported", f"{path}: expected names as keys, found {key!r}; save a state dict")
    ignored = [k for k, v in value.items() if not is_tensor(v)]
    if ignored:
        notes.append(f"ignored what is not a tensor: {listed(ignored)}")
    return {k: v for k, v in value.items() if is_tensor(v)}, notes


STATE_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params")


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` whole, or not at all: on any error the old file stays and no other is left behind.

    The bytes go to a new file in the same folder, reach the disk, and then take the name. A symbolic link at `path` is
    replaced, never followed. Raises AconError naming the path where the system refuses.
    """
    path = Path(path)
    temporary = path.parent / f".acon-{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        if path.is_dir():
            raise AconError(f"{path}: is a folder; give the name of a file")
        descriptor = os.open(temporary, flags, 0o666)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:  # an interrupt from the keyboard too must leave nothing behind
        temporary.unlink()
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        raise


def _unwritable(path: Path, error: OSError) -> AconError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "the disk is full: make room" if full else "check that the folder exists and may be written to"
    return AconError(f"{path}: cannot be written: {error.strerror or error}; {hint}; nothing was changed")


def check_writable(tensors: Mapping[str, np.ndarray], path: Path, dtypes: Mapping[str, object], framework: str) -> None:
    """Raise CheckpointError for a name that is not text or a dtype that the framework would not give back."""
    for key, array in described(tensors).items():
        if not isinstance(key, str) or not key or any("\ud800" <= letter <= "\udfff" for letter in key):
            raise CheckpointError("unsupported", f"{path}: {key!r:.80} is not a name for a tensor; give it one of text")
        if array.dtype.name not in dtypes:
            raise CheckpointError(
                "unsupported",
                f"{path}: {shown(key)}: {framework} cannot hold {array.dtype.name}; "
                f"convert it to one of {', '.join(sorted(dtypes))}, or let `acon convert --cast` do it",
            )


def _check_dims(what: str, dims: Sequence[int], limits: Limits) -> None:
    if len(dims) > limits.ndim:
        raise CheckpointError("corrupt", f"{what} has {len(dims)} dimensions, more than {limits.ndim}")
    if not all(type(d) is int and 0 <= d < 1 << 62 for d in dims):
        raise CheckpointError("corrupt", f"{what} must be whole numbers from 0 on, found {_kinds(dims)}")


def shown(key: object) -> str:
    """A name as an error prints it: on one line, of bounded length, without a terminal's control characters."""
    return key[:200] if isinstance(key, str) and key.isprintable() else f"{key!r:.200}"


def _kinds(dims: Sequence[object]) -> str:
    # Anything but an integer is shown by its type: a nested tuple of a hostile file has no end.
    return ", ".join(str(d) if type(d) is int else type(d).__name__ for d in dims[:8]) or "none"


def listed(keys: Iterable[object]) -> str:
    """The first few names of many, for a note or an error."""
    shown = [f"{key!r:.60}" for key in islice(keys, 9)]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "")
