"""PyTorch's checkpoint file: a zip of one pickle, which says what the tensors are, and their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from acon_core.checkpoint.file import (
    LIMITS,
    Budget,
    File,
    Limits,
    atomic_write,
    check_writable,
    contains,
    find_state,
    lazily,
    map_file,
    raw,
    shown,
    view,
)
from acon_core.checkpoint.numpy_pickle import ARRAYS, int_opcode, text_opcode, tuple_opcodes
from acon_core.checkpoint.unpickler import MENTION, OPAQUE, Constructor, Name, Table, load
from acon_core.checkpoint.zip_archive import Zip, ZipWriter
from acon_core.errors import CheckpointError
from acon_core.tensors import Lazy, Tensors, described

FRAMEWORK = "torch"
SUFFIXES = (".pth", ".pth.tar", ".pt")
FOLDER = False

_AGAIN = "load it in PyTorch and save it again with torch.save(model.state_dict(), ...)"
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

# A storage of this name in `torch` holds this dtype; PyTorch's own table, which ended when it got untyped storages.
_STORAGES: dict[str, np.dtype] = {
    name: np.dtype(scalar)
    for name, scalar in {
        "FloatStorage": np.float32,
        "DoubleStorage": np.float64,
        "HalfStorage": np.float16,
        "BFloat16Storage": ml_dtypes.bfloat16,
        "LongStorage": np.int64,
        "IntStorage": np.int32,
        "ShortStorage": np.int16,
        "CharStorage": np.int8,
        "ByteStorage": np.uint8,
        "BoolStorage": np.bool_,
        "ComplexFloatStorage": np.complex64,
        "ComplexDoubleStorage": np.complex128,
    }.items()
}
# What came later is written as untyped bytes and the name of a dtype in `torch`.
_UNTYPED: dict[str, np.dtype] = {
    name: np.dtype(scalar)
    for name, scalar in {
        "uint16": np.uint16,
        "uint32": np.uint32,
        "uint64": np.uint64,
        "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
        "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
        "float8_e5m2": ml_dtypes.float8_e5m2,
        "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
        "float8_e8m0fnu": ml_dtypes.float8_e8m0fnu,
    }.items()
}
_STORAGE_OF = {dtype.name: storage for storage, dtype in _STORAGES.items()}
_BY_NAME = {dtype.name: dtype for dtype in (*_STORAGES.values(), *_UNTYPED.values())}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype | None  # None: untyped bytes
    length: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def sniff(path: Path) -> bool:
    """Whether the content is PyTorch's, the kinds included that `read` refuses by name."""
    data = map_file(path)
    if bytes(data[:4]) == b"PK\3\4":
        return contains(data, b"/data.pkl") or contains(data, b"/data/weights/")
    return bytes(data[: len(_LEGACY)]) == _LEGACY or bytes(data[257:262]) == b"ustar"


def read(path: Path, limits: Limits = LIMITS) -> File:
    """Read the tensors of a file of `torch.save`: a state dict, or the one inside of a training checkpoint.

    Nothing in the pickle is run. Storages are checked against the zip's checksums, which PyTorch does not do, and views
    against their storages. A prefix such as `module.` stays. Raises CheckpointError; so for TorchScript, torch.export,
    and files of PyTorch before 1.6, whose message says how to save them again.
    """
    path = Path(path)
    data = map_file(path, limits)
    _refuse_other_kinds(data, path)
    archive = Zip(data, path, limits)
    for name, kind in (("constants.pkl", "a TorchScript archive"), ("models/model.json", "a torch.export archive")):
        if name in archive:
            raise CheckpointError("unsupported", f"{path}: {kind}; {_AGAIN}")
    if "data.pkl" not in archive:
        raise CheckpointError("unsupported", f"{path}: a zip, and not one of torch.save; {_AGAIN}")
    order = bytes(archive.read("byteorder")) if "byteorder" in archive else b"little"
    if order not in (b"little", b"big"):
        archive.corrupt(f"byteorder is {order[:20]!r}, expected little or big")
    program = archive.read("data.pkl")
    pickled = load(program, _TABLE, f"{path}: {archive.root}/data.pkl", _storage, limits)
    if pickled.end != len(program):
        archive.corrupt("data.pkl goes on after the pickle's end")
    values, notes = find_state(pickled.value, lambda value: type(value) is _Tensor, path)
    budget = Budget(len(data), limits)
    storages: dict[str, memoryview] = {}
    tensors = {}
    for key, tensor in values.items():
        assert isinstance(tensor, _Tensor)
        if tensor.storage.key not in storages:
            storages[tensor.storage.key] = archive.read(f"data/{tensor.storage.key}")
        try:
            array = _view(tensor, storages[tensor.storage.key], order, limits)
            budget.spend(array.nbytes)
            tensors[key] = _as_written(lazily(array), tensor.dtype)
        except CheckpointError as error:
            raise CheckpointError(error.kind, f"{path}: {shown(key)}: {error}") from None
    return File(Tensors(tensors), notes=notes, globals_seen=pickled.globals_seen)


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a bare state dict that `torch.load(weights_only=True)` takes, with and without `mmap`; whole or not at all.

    Every tensor gets a storage of its own. Equal tensors give equal bytes. The format has no place for `metadata`.
    Raises CheckpointError for a dtype that PyTorch does not have.
    """
    check_writable(tensors, path, _BY_NAME, "PyTorch")
    with atomic_write(path) as file:
        archive = ZipWriter(file)
        lazies = described(tensors)
        archive.add("data.pkl", _pickle(lazies))
        archive.add("byteorder", b"little")
        for index, tensor in enumerate(lazies.values()):
            archive.add(f"data/{index}", raw(tensor.load()))
        archive.add("version", b"3\n")
        archive.close()


def _as_written(tensor: Lazy, dtype: np.dtype) -> Lazy:
    """A big-endian bfloat16 is viewed as uint16, since ml_dtypes knows one byte order only, and here is one again."""
    return tensor if tensor.dtype == dtype else Lazy(tensor.shape, dtype, lambda: tensor.load().view(dtype))


def _refuse_other_kinds(data: memoryview, path: Path) -> None:
    if bytes(data[:4]) == b"PK\3\4":
        return
    kind = "not a file of torch.save, which begins with PK"
    if bytes(data[: len(_LEGACY)]) == _LEGACY:
        kind = "the format that PyTorch wrote before 1.6"
    elif bytes(data[257:262]) == b"ustar":
        kind = "a tar, as PyTorch wrote before 0.1.2"
    raise CheckpointError("unsupported", f"{path}: {kind}; {_AGAIN}")


def _view(tensor: _Tensor, data: memoryview, order: bytes, limits: Limits) -> np.ndarray:
    storage = tensor.storage
    itemsize = storage.dtype.itemsize if storage.dtype else 1
    if storage.length * itemsize != len(data):
        raise CheckpointError(
            "corrupt", f"storage {shown(storage.key)} holds {len(data)} bytes, expected {storage.length} times {itemsize}"
        )
    dtype = tensor.dtype
    if order == b"big" and dtype.itemsize > 1:
        dtype = np.dtype(np.uint16 if dtype.name == "bfloat16" else dtype).newbyteorder(">")
    return view(data, dtype, tensor.shape, offset=tensor.offset, strides=tensor.strides, limits=limits)


def _storage(value: object) -> _Storage:
    if type(value) is not tuple or len(value) != 5 or value[0] != "storage":
        raise CheckpointError("unsupported", "a persistent id that is not a storage; save the bare state dict")
    _, kind, key, _, length = value
    if type(kind) is not Name or type(key) is not str or type(length) is not int or length < 0:
        raise CheckpointError("corrupt", "a storage whose type, key or length is of the wrong kind")
    if kind == Name("torch.storage", "UntypedStorage"):
        return _Storage(key, None, length)
    if kind.module != "torch" or kind.name not in _STORAGES:
        raise CheckpointError("unsupported", f"storage of type {kind}; quantised and sparse tensors are not read")
    return _Storage(key, _STORAGES[kind.name], length)


def _tensor(args: tuple[Any, ...], dtype: Name | None, extra: tuple[Any, ...]) -> _Tensor:
    storage, offset, shape, strides, _, _ = args
    if (type(storage), type(offset), type(shape), type(strides)) != (_Storage, int, tuple, tuple):
        raise CheckpointError("corrupt", "a tensor whose storage, offset, size or stride is of the wrong kind")
    if len(extra) > 1 or (extra and extra[0]):
        # Conjugate and negative are bits beside the bytes: without them every sign would be wrong.
        raise CheckpointError("unsupported", "a tensor with a conjugate or negative bit; save its resolve_conj().resolve_neg()")
    if dtype is None and storage.dtype is not None:
        return _Tensor(storage, storage.dtype, offset, shape, strides)
    if dtype is None or dtype.module != "torch" or dtype.name not in _BY_NAME:
        raise CheckpointError("unsupported", f"a tensor of dtype {dtype}; save it as one of {', '.join(_BY_NAME)}")
    return _Tensor(storage, _BY_NAME[dtype.name], offset, shape, strides)


def _rebuild_v2(args: tuple[Any, ...]) -> _Tensor:
    if not 6 <= len(args) <= 7:
        raise CheckpointError("corrupt", f"_rebuild_tensor_v2 with {len(args)} arguments")
    return _tensor(args[:6], None, args[6:])


def _rebuild_v3(args: tuple[Any, ...]) -> _Tensor:
    if not 7 <= len(args) <= 8 or type(args[6]) is not Name:
        raise CheckpointError("corrupt", f"_rebuild_tensor_v3 with {len(args)} arguments")
    return _tensor(args[:6], args[6], args[7:])


def _rebuild_parameter(args: tuple[Any, ...]) -> _Tensor:
    if not 3 <= len(args) <= 4 or type(args[0]) is not _Tensor:
        raise CheckpointError("corrupt", "_rebuild_parameter without its tensor")
    return args[0]


_TABLE: Table = {
    **ARRAYS,
    ("torch._utils", "_rebuild_tensor_v2"): Constructor(_rebuild_v2),
    ("torch._utils", "_rebuild_tensor_v3"): Constructor(_rebuild_v3),
    ("torch._utils", "_rebuild_parameter"): Constructor(_rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Constructor(_rebuild_parameter),
    ("torch.storage", "UntypedStorage"): MENTION,
    **{("torch", name): MENTION for name in (*_STORAGES, *_BY_NAME, "bool", "QInt8Storage", "QUInt8Storage")},
    # Beside the weights, in what a training script saves with them; read as nothing.
    ("torch", "Size"): OPAQUE,
    ("torch", "device"): OPAQUE,
    **{(module, name): OPAQUE for module in ("builtins", "__builtin__") for name in ("set", "complex", "bytearray")},
}


def _pickle(tensors: Mapping[str, Lazy]) -> bytes:
    """The state dict in the opcodes that PyTorch's own restricted unpickler knows."""
    parts = [b"\x80\x02ccollections\nOrderedDict\n)R("]
    for index, (key, tensor) in enumerate(tensors.items()):
        storage = _STORAGE_OF.get(tensor.dtype.name)
        kind, unit = (f"torch\n{storage}", tensor.dtype.itemsize) if storage else ("torch.storage\nUntypedStorage", 1)
        strides = tuple(int(np.prod(tensor.shape[axis + 1 :], dtype=np.int64)) for axis in range(len(tensor.shape)))
        parts += [
            text_opcode(key),
            b"ctorch._utils\n_rebuild_tensor_v2\n(" if storage else b"ctorch._utils\n_rebuild_tensor_v3\n(",
            b"(" + text_opcode("storage") + f"c{kind}\n".encode() + text_opcode(str(index)) + text_opcode("cpu"),
            int_opcode(tensor.nbytes // unit) + b"tQK\x00",
            tuple_opcodes(tensor.shape) + tuple_opcodes(strides),
            b"\x89ccollections\nOrderedDict\n)R",
            b"" if storage else f"ctorch\n{tensor.dtype.name}\n".encode(),
            b"tR",
        ]
    return b"".join([*parts, b"u."])
