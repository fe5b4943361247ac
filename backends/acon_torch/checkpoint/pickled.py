"""What the pickles in PyTorch's files are made of, the same in both formats: storages, and tensors that are views of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from acon_core.checkpoint.codecs.arrays import as_native_contiguous, lazy_view, view
from acon_core.checkpoint.codecs.limits import Budget
from acon_core.checkpoint.codecs.numpy_pickle import ARRAYS, int_opcode, text_opcode, tuple_opcodes
from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.codecs.unpickler import MENTION, OPAQUE, Constructor, Name, Table
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor

# A storage of this name in `torch` holds this dtype; PyTorch's own table, which ended when it got untyped storages.
STORAGES: dict[str, np.dtype] = {
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
UNTYPED: dict[str, np.dtype] = {
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
TYPED_NAMES = {dtype.name: storage for storage, dtype in STORAGES.items()}
NAMES = {dtype.name: dtype for dtype in (*STORAGES.values(), *UNTYPED.values())}
_QUANTISED = ("QInt8Storage", "QUInt8Storage", "QInt32Storage", "QUInt4x2Storage", "QUInt2x4Storage")
_DEQUANTISE = "a quantised tensor; in PyTorch: save state[name].dequantize() in its place"


@dataclass(frozen=True)
class Storage:
    """The values that tensors are views of, `length` of them; those of the file's storage `key` from `start` to `stop`."""

    key: str
    dtype: np.dtype | None  # None: untyped bytes
    length: int
    start: int = 0
    stop: int | None = None

    @property
    def itemsize(self) -> int:
        """The bytes of one value."""
        return self.dtype.itemsize if self.dtype else 1

    def of(self, data: memoryview) -> memoryview:
        """Its own bytes, of those of the whole storage. Raises CheckpointError where they do not fit."""
        if self.length * self.itemsize != len(data):
            raise CheckpointError(
                "corrupt",
                f"storage {printable(self.key)} holds {len(data)} bytes, expected {self.length} times {self.itemsize}",
            )
        return data[self.start * self.itemsize :][
            : (self.length if self.stop is None else self.stop - self.start) * self.itemsize
        ]


@dataclass(frozen=True)
class Tensor:
    """A tensor as a pickle describes it. `conj` and `neg` say what PyTorch would do to its values when it needs them."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conj: bool = False
    neg: bool = False

    def lazy(self, data: memoryview, big: bool, budget: Budget) -> LazyTensor:
        """It over the bytes of its storage, big-endian ones if `big`. Raises CheckpointError for what does not fit."""
        order = self.dtype
        if big and order.itemsize > 1:
            # ml_dtypes knows one byte order only.
            order = np.dtype(np.uint16 if order.name == "bfloat16" else order).newbyteorder(">")
        array = view(self.storage.of(data), order, self.shape, offset=self.offset, strides=self.strides)
        budget.spend(array.nbytes)
        stored = lazy_view(array)

        def load() -> np.ndarray:
            values = stored.load()
            values = values if values.dtype == self.dtype else values.view(self.dtype)
            values = np.conj(values) if self.conj else values
            return as_native_contiguous(np.negative(values)) if self.neg else as_native_contiguous(values)

        return stored if order == self.dtype and not self.conj and not self.neg else LazyTensor(stored.shape, self.dtype, load)


def persistent(value: object) -> object:
    """What a persistent id stands for: a storage, or the class of a module, whose source code is not looked at.

    Raises CheckpointError for any other.
    """
    if type(value) is tuple and len(value) == 4 and value[0] == "module" and type(value[1]) is Name:
        return value[1]
    if type(value) is not tuple or len(value) not in (5, 6) or value[0] != "storage":
        raise CheckpointError("unsupported", "a persistent id that is not a storage; save the bare state dict")
    _, kind, key, _, length = value[:5]
    if type(kind) is not Name or type(key) is not str or not _is_count(length):
        raise CheckpointError("corrupt", "a storage whose type, key or length is of the wrong kind")
    found = Storage(key, _storage_dtype(kind), length)
    part = value[5] if len(value) == 6 else None  # PyTorch before 0.4 had storages that are a part of another
    if part is None:
        return found
    if type(part) is not tuple or len(part) != 3 or not _is_count(part[1]) or not _is_count(part[2]):
        raise CheckpointError("corrupt", "a part of a storage whose offset or length is of the wrong kind")
    if part[1] + part[2] > length:
        raise CheckpointError("corrupt", f"a part of storage {printable(key)} goes to {part[1] + part[2]} of {length}")
    return replace(found, start=part[1], stop=part[1] + part[2])


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _storage_dtype(kind: Name) -> np.dtype | None:
    if kind == Name("torch.storage", "UntypedStorage"):
        return None
    if kind.module == "torch" and kind.name in _QUANTISED:
        raise CheckpointError("unsupported", f"storage of type {kind}: {_DEQUANTISE}")
    if kind.module != "torch" or kind.name not in STORAGES:
        raise CheckpointError("unsupported", f"storage of type {kind}; save it as one of {', '.join(NAMES)}")
    return STORAGES[kind.name]


def _tensor(args: tuple[Any, ...], dtype: Name | None = None, metadata: tuple[Any, ...] = ()) -> Tensor:
    storage, offset, shape, strides = args
    if (type(storage), type(offset), type(shape), type(strides)) != (Storage, int, tuple, tuple):
        raise CheckpointError("corrupt", "a tensor whose storage, offset, size or stride is of the wrong kind")
    if dtype is None and storage.dtype is not None:
        return _marked(Tensor(storage, storage.dtype, offset, shape, strides), *metadata)
    if dtype is None or dtype.module != "torch" or dtype.name not in NAMES:
        raise CheckpointError("unsupported", f"a tensor of dtype {dtype}; save it as one of {', '.join(NAMES)}")
    return _marked(Tensor(storage, NAMES[dtype.name], offset, shape, strides), *metadata)


def _marked(tensor: Tensor, marks: object = None) -> Tensor:
    """With the bits that lie beside the bytes: without them, signs would be wrong."""
    if marks is None or marks == {}:
        return tensor
    if type(marks) is not dict or not set(marks) <= {"conj", "neg"} or not all(type(mark) is bool for mark in marks.values()):
        raise CheckpointError("unsupported", "a tensor with metadata other than its conjugate and negative bits; clone() it")
    found = replace(tensor, **marks)
    signed = found.dtype.kind in "fc" or found.dtype.name == "bfloat16"
    if (found.conj and found.dtype.kind != "c") or (found.neg and not signed):
        raise CheckpointError("unsupported", f"a conjugate or negative bit on {found.dtype}; save resolve_conj().resolve_neg()")
    return found


def _rebuild_v1(args: tuple[Any, ...]) -> Tensor:
    if len(args) != 4:
        raise CheckpointError("corrupt", f"_rebuild_tensor with {len(args)} arguments")
    return _tensor(args)


def _rebuild_v2(args: tuple[Any, ...]) -> Tensor:
    if not 6 <= len(args) <= 7:
        raise CheckpointError("corrupt", f"_rebuild_tensor_v2 with {len(args)} arguments")
    return _tensor(args[:4], None, args[6:])


def _rebuild_v3(args: tuple[Any, ...]) -> Tensor:
    if not 7 <= len(args) <= 8 or type(args[6]) is not Name:
        raise CheckpointError("corrupt", f"_rebuild_tensor_v3 with {len(args)} arguments")
    return _tensor(args[:4], args[6], args[7:])


def _rebuild_parameter(args: tuple[Any, ...]) -> Tensor:
    if not 3 <= len(args) <= 4 or type(args[0]) is not Tensor:
        raise CheckpointError("corrupt", "_rebuild_parameter without its tensor")
    return args[0]


_REBUILD = {"_rebuild_tensor": _rebuild_v1, "_rebuild_tensor_v2": _rebuild_v2, "_rebuild_tensor_v3": _rebuild_v3}
_PLAIN = (Name("torch", "Tensor"), Name("torch.nn.parameter", "Parameter"), Name("torch.nn.parameter", "Buffer"))


def _rebuild_typed(args: tuple[Any, ...]) -> Tensor:
    """A tensor that somebody gave attributes, which are left out; `nn.Buffer` is one."""
    if len(args) != 4 or type(args[0]) is not Name or type(args[1]) is not Name or type(args[2]) is not tuple:
        raise CheckpointError("corrupt", "_rebuild_from_type_v2 with other arguments than a function, a type and its own")
    if args[1] not in _PLAIN or args[0].module != "torch._utils" or args[0].name not in _REBUILD:
        raise CheckpointError(
            "unsupported", f"a tensor of the class {args[1]}; in PyTorch: save state[name].as_subclass(Tensor)"
        )
    return _REBUILD[args[0].name](args[2])


def _items(args: tuple[Any, ...]) -> object:
    """A set or a torch.Size: the list or tuple that it is made of."""
    if len(args) > 1 or (args and type(args[0]) not in (list, tuple)):
        raise CheckpointError("corrupt", "a set or a size of something that is no list")
    return args[0] if args else []


def _refused(message: str) -> Constructor:
    def refuse(args: tuple[Any, ...]) -> None:
        raise CheckpointError("unsupported", message)

    return Constructor(refuse)


_DENSE = "a sparse tensor; in PyTorch: save state[name].to_dense() in its place"
_HOST = "a tensor of a device that PyTorch has no storage for; in PyTorch: save state[name].cpu() in its place"
TABLE: Table = {
    **ARRAYS,
    **{("torch._utils", name): Constructor(rebuild) for name, rebuild in _REBUILD.items()},
    ("torch._utils", "_rebuild_parameter"): Constructor(_rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Constructor(_rebuild_parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): Constructor(_rebuild_typed),
    **{(name.module, name.name): MENTION for name in _PLAIN},
    ("torch.storage", "UntypedStorage"): MENTION,
    **{("torch", name): MENTION for name in (*STORAGES, *_QUANTISED, *NAMES, "bool", "complex32")},
    **{("torch._utils", f"_rebuild_sparse{kind}_tensor"): _refused(_DENSE) for kind in ("", "_csr")},
    ("torch._utils", "_rebuild_qtensor"): _refused(_DEQUANTISE),
    ("torch._utils", "_rebuild_nested_tensor"): _refused(
        "a nested tensor; in PyTorch: save state[name].to_padded_tensor(0) in its place"
    ),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _refused(
        "a tensor on the meta device, which has no values; in PyTorch: load the weights before saving"
    ),
    ("torch._utils", "_rebuild_wrapper_subclass"): _refused(
        "a tensor of a class without a storage; in PyTorch: save state[name].full_tensor() or its like in its place"
    ),
    **{("torch._utils", f"_rebuild_device_tensor_from_{kind}"): _refused(_HOST) for kind in ("numpy", "cpu_tensor")},
    ("torch.serialization", "_get_layout"): OPAQUE,
    **{("torch", f"per_{what}_affine"): MENTION for what in ("tensor", "channel")},
    # Beside the weights, in what a training script saves with them.
    ("torch", "Size"): Constructor(_items),
    **{(module, "set"): Constructor(_items) for module in ("builtins", "__builtin__")},
    **{(module, name): OPAQUE for module in ("builtins", "__builtin__") for name in ("complex", "bytearray")},
    ("torch", "device"): OPAQUE,
    ("collections", "Counter"): OPAQUE,
    ("argparse", "Namespace"): OPAQUE,
}


def state_pickle(tensors: Mapping[str, LazyTensor], tail: bytes = b"") -> bytes:
    """The state dict in the opcodes that PyTorch's own restricted unpickler knows; storages are numbered in its order.

    `tail`: opcodes of what follows the length in each persistent id.
    """
    parts = [b"\x80\x02ccollections\nOrderedDict\n)R("]
    for index, (key, tensor) in enumerate(tensors.items()):
        storage = TYPED_NAMES.get(tensor.dtype.name)
        kind, unit = (f"torch\n{storage}", tensor.dtype.itemsize) if storage else ("torch.storage\nUntypedStorage", 1)
        strides = tuple(int(np.prod(tensor.shape[axis + 1 :], dtype=np.int64)) for axis in range(len(tensor.shape)))
        parts += [
            text_opcode(key),
            b"ctorch._utils\n_rebuild_tensor_v2\n(" if storage else b"ctorch._utils\n_rebuild_tensor_v3\n(",
            b"(" + text_opcode("storage") + f"c{kind}\n".encode() + text_opcode(str(index)) + text_opcode("cpu"),
            int_opcode(tensor.nbytes // unit) + tail + b"tQK\x00",
            tuple_opcodes(tensor.shape) + tuple_opcodes(strides),
            b"\x89ccollections\nOrderedDict\n)R",
            b"" if storage else f"ctorch\n{tensor.dtype.name}\n".encode(),
            b"tR",
        ]
    return b"".join([*parts, b"u."])
