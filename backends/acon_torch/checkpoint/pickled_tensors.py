"""Storages and tensors in PyTorch's pickles, the same in the zip format and the one before 1.6."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from acon_core.checkpoint.codecs.arrays import as_native_contiguous, lazy_view, view
from acon_core.checkpoint.codecs.limits import Budget
from acon_core.checkpoint.codecs.numpy_pickle import NUMPY_GLOBALS, int_opcode, text_opcode, tuple_opcodes
from acon_core.checkpoint.codecs.pickle_values import (
    NAME_ONLY,
    PLACEHOLDER,
    Constructor,
    GlobalName,
    GlobalTable,
    Instance,
    Placeholder,
)
from acon_core.checkpoint.codecs.text import printable
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor

# Classes of typed storages in `torch`.
TYPED_STORAGES: dict[str, np.dtype] = {
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
# Dtypes without a typed storage: stored as untyped bytes and the name of the dtype in `torch`.
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
TYPED_DTYPES = {dtype.name: storage for storage, dtype in TYPED_STORAGES.items()}
DTYPES = {dtype.name: dtype for dtype in (*TYPED_STORAGES.values(), *_UNTYPED.values())}
_QUANTIZED_STORAGES: dict[str, np.dtype] = {
    **{name: np.dtype(np.uint8) for name in ("QUInt8Storage", "QUInt4x2Storage", "QUInt2x4Storage")},
    **{"QInt8Storage": np.dtype(np.int8), "QInt32Storage": np.dtype(np.int32)},
}
_STORAGES = TYPED_STORAGES | _QUANTIZED_STORAGES
_OTHER_DTYPES = ("bool", "complex32", "qint8", "quint8", "qint32", "quint4x2", "quint2x4")
_DEQUANTIZE = "a quantized tensor; in PyTorch: save state[name].dequantize() in its place"


@dataclass(frozen=True)
class UnsupportedTensor:
    """A tensor that cannot be read, and what to do if it is needed."""

    message: str


@dataclass(frozen=True)
class Storage:
    """`length` elements that tensors are views of, stored under `key`.

    A file of PyTorch before 0.4 may use the elements from `start` to `stop` as a storage of its
    own.
    """

    key: str
    dtype: np.dtype | None  # None: untyped bytes
    length: int
    start: int = 0
    stop: int | None = None
    quantized: str = ""  # the type of a storage of packed integers

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.dtype.itemsize if self.dtype else 1

    def slice(self, data: memoryview) -> memoryview:
        """Return the elements from `start` to `stop`. Raises CheckpointError for a wrong size."""
        if self.length * self.itemsize != len(data):
            raise CheckpointError(
                "corrupt",
                f"storage {printable(self.key)} holds {len(data)} bytes, expected {self.length} times {self.itemsize}",
            )
        return data[self.start * self.itemsize : (self.length if self.stop is None else self.stop) * self.itemsize]


@dataclass(frozen=True)
class PickledTensor:
    """A tensor as a pickle describes it; strides and offset count elements.

    `conj` and `neg` are bits beside the storage: the values are to be conjugated or negated.
    """

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conj: bool = False
    neg: bool = False

    def to_lazy(self, data: memoryview, budget: Budget, *, big_endian: bool) -> LazyTensor:
        """View the bytes of the storage. Raises CheckpointError if the tensor does not fit."""
        stored_dtype = self.dtype
        if big_endian and stored_dtype.itemsize > 1:
            # The dtypes of ml_dtypes have no byte order.
            stored_dtype = np.dtype(np.uint16 if stored_dtype.name == "bfloat16" else stored_dtype).newbyteorder(">")
        array = view(self.storage.slice(data), stored_dtype, self.shape, offset=self.offset, strides=self.strides)
        budget.spend(array.nbytes)
        stored = lazy_view(array)
        if stored_dtype == self.dtype and not self.conj and not self.neg:
            return stored

        def load() -> np.ndarray:
            values = stored.load()
            values = values if values.dtype == self.dtype else values.view(self.dtype)
            values = np.conj(values) if self.conj else values
            return as_native_contiguous(np.negative(values)) if self.neg else as_native_contiguous(values)

        return LazyTensor(stored.shape, self.dtype, load)


def persistent_load(value: object) -> object:
    """Make a storage, or the name of a module's class, from a persistent id.

    The source code that comes with a class is ignored. Raises CheckpointError for any other id.
    """
    if type(value) is tuple and len(value) == 4 and value[0] == "module" and type(value[1]) is GlobalName:
        return value[1]
    if type(value) is not tuple or len(value) not in (5, 6) or value[0] != "storage":
        raise CheckpointError("unsupported", "a persistent id that is not a storage; save the bare state dict")
    _, kind, key, _, length = value[:5]
    if type(kind) is not GlobalName or type(key) is not str or not _is_count(length):
        raise CheckpointError("corrupt", "a storage with a type, key or length of the wrong type")
    storage = Storage(key, _storage_dtype(kind), length, quantized=str(kind) if kind.name in _QUANTIZED_STORAGES else "")
    part = value[5] if len(value) == 6 else None  # in PyTorch before 0.4
    if part is None:
        return storage
    if type(part) is not tuple or len(part) != 3 or not _is_count(part[1]) or not _is_count(part[2]):
        raise CheckpointError("corrupt", "a part of a storage with an offset or length of the wrong type")
    if part[1] + part[2] > length:
        raise CheckpointError("corrupt", f"a part of storage {printable(key)} ends at {part[1] + part[2]} of {length}")
    return replace(storage, start=part[1], stop=part[1] + part[2])


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _storage_dtype(kind: GlobalName) -> np.dtype | None:
    if kind == GlobalName("torch.storage", "UntypedStorage"):
        return None
    if kind.module != "torch" or kind.name not in _STORAGES:
        raise CheckpointError("unsupported", f"storage of type {kind}; save it as one of {', '.join(DTYPES)}")
    return _STORAGES[kind.name]


def _tensor(
    args: tuple[Any, ...], dtype: GlobalName | None = None, metadata: tuple[Any, ...] = ()
) -> PickledTensor | UnsupportedTensor:
    storage, offset, shape, strides = args
    if (type(storage), type(offset), type(shape), type(strides)) != (Storage, int, tuple, tuple):
        raise CheckpointError("corrupt", "a tensor with a storage, offset, size or stride of the wrong type")
    if storage.quantized:
        return UnsupportedTensor(f"storage of type {storage.quantized}: {_DEQUANTIZE}")
    if dtype is None and storage.dtype is not None:
        return _with_bits(PickledTensor(storage, storage.dtype, offset, shape, strides), *metadata)
    if dtype is None or dtype.module != "torch" or dtype.name not in DTYPES:
        return UnsupportedTensor(f"a tensor of dtype {dtype}; save it as one of {', '.join(DTYPES)}")
    return _with_bits(PickledTensor(storage, DTYPES[dtype.name], offset, shape, strides), *metadata)


def _with_bits(tensor: PickledTensor, bits: object = None) -> PickledTensor | UnsupportedTensor:
    """Set the conjugate and negative bits; without them, signs would be wrong."""
    if bits is None or bits == {}:
        return tensor
    if type(bits) is not dict or not set(bits) <= {"conj", "neg"} or not all(type(bit) is bool for bit in bits.values()):
        return UnsupportedTensor("a tensor with metadata other than its conjugate and negative bits; clone() it")
    tensor = replace(tensor, **bits)
    signed = tensor.dtype.kind in "fc" or tensor.dtype.name == "bfloat16"
    if (tensor.conj and tensor.dtype.kind != "c") or (tensor.neg and not signed):
        return UnsupportedTensor(f"a conjugate or negative bit on {tensor.dtype}; save resolve_conj().resolve_neg()")
    return tensor


def _rebuild_v1(args: tuple[Any, ...]) -> PickledTensor | UnsupportedTensor:
    if len(args) != 4:
        raise CheckpointError("corrupt", f"_rebuild_tensor with {len(args)} arguments")
    return _tensor(args)


def _rebuild_v2(args: tuple[Any, ...]) -> PickledTensor | UnsupportedTensor:
    if not 6 <= len(args) <= 7:
        raise CheckpointError("corrupt", f"_rebuild_tensor_v2 with {len(args)} arguments")
    return _tensor(args[:4], None, args[6:])


def _rebuild_v3(args: tuple[Any, ...]) -> PickledTensor | UnsupportedTensor:
    if not 7 <= len(args) <= 8 or type(args[6]) is not GlobalName:
        raise CheckpointError("corrupt", f"_rebuild_tensor_v3 with {len(args)} arguments")
    return _tensor(args[:4], args[6], args[7:])


def _rebuild_parameter(args: tuple[Any, ...]) -> PickledTensor | UnsupportedTensor:
    if not 3 <= len(args) <= 4 or not isinstance(args[0], PickledTensor | UnsupportedTensor):
        raise CheckpointError("corrupt", "_rebuild_parameter without its tensor")
    return args[0]


_REBUILD = {"_rebuild_tensor": _rebuild_v1, "_rebuild_tensor_v2": _rebuild_v2, "_rebuild_tensor_v3": _rebuild_v3}
_TENSOR_CLASSES = (
    GlobalName("torch", "Tensor"),
    GlobalName("torch.nn.parameter", "Parameter"),
    GlobalName("torch.nn.parameter", "Buffer"),
)


def _rebuild_typed(args: tuple[Any, ...]) -> PickledTensor | UnsupportedTensor:
    """Make a tensor without the attributes that it was given, such as those of an `nn.Buffer`."""
    if len(args) != 4 or type(args[0]) is not GlobalName or type(args[1]) is not GlobalName or type(args[2]) is not tuple:
        raise CheckpointError("corrupt", "_rebuild_from_type_v2 without a function, a type and arguments")
    if args[1] not in _TENSOR_CLASSES or args[0].module != "torch._utils" or args[0].name not in _REBUILD:
        return UnsupportedTensor(f"a tensor of the class {args[1]}; in PyTorch: save state[name].as_subclass(Tensor)")
    return _REBUILD[args[0].name](args[2])


def _size(args: tuple[Any, ...]) -> object:
    """Return the list or tuple that a torch.Size is made of."""
    if len(args) > 1 or (args and type(args[0]) not in (list, tuple)):
        raise CheckpointError("corrupt", "a torch.Size that is not made of a list")
    return args[0] if args else []


def _rebuild_quantized(args: tuple[Any, ...]) -> UnsupportedTensor:
    kind = args[0].quantized if args and type(args[0]) is Storage else ""
    return UnsupportedTensor(f"storage of type {kind}: {_DEQUANTIZE}" if kind else _DEQUANTIZE)


def _refused(message: str) -> Constructor:
    return Constructor(lambda args: UnsupportedTensor(message), lambda tensor, state: None)


def _compiled_module(args: tuple[Any, ...]) -> Instance:
    """Make the module of torch.compile: a wrapper with one child, without its compiler."""
    module = Instance(GlobalName("torch._dynamo.eval_frame", "OptimizedModule"))
    if args and type(args[0]) is Instance:
        module.state = {"_parameters": {}, "_buffers": {}, "_modules": {"_orig_mod": args[0]}}
    return module


def _compiled_module_state(module: Instance, state: object) -> None:
    names = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
    if type(state) is dict:
        module.state = {name: state[name] for name in names if name in state}


def _compiler_option(args: tuple[Any, ...]) -> Placeholder:
    """Accept the bound method that torch.compile keeps; nothing is looked up."""
    if len(args) != 2 or type(args[0]) is not Instance or args[1] != "get_compiler_config":
        raise CheckpointError("unsafe", "a call of getattr that PyTorch does not write; nothing was run")
    return Placeholder()


_TO_DENSE = "a sparse tensor; in PyTorch: save state[name].to_dense() in its place"
_TO_CPU = "a tensor on a device without storages; in PyTorch: save state[name].cpu() in its place"
TORCH_GLOBALS: GlobalTable = {
    **NUMPY_GLOBALS,
    **{("torch._utils", name): Constructor(rebuild) for name, rebuild in _REBUILD.items()},
    ("torch._utils", "_rebuild_parameter"): Constructor(_rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Constructor(_rebuild_parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): Constructor(_rebuild_typed),
    **{(name.module, name.name): NAME_ONLY for name in _TENSOR_CLASSES},
    ("torch.storage", "UntypedStorage"): NAME_ONLY,
    **{("torch", name): NAME_ONLY for name in (*TYPED_STORAGES, *_QUANTIZED_STORAGES, *DTYPES, *_OTHER_DTYPES)},
    **{("torch._utils", f"_rebuild_sparse{kind}_tensor"): _refused(_TO_DENSE) for kind in ("", "_csr")},
    ("torch._utils", "_rebuild_qtensor"): Constructor(_rebuild_quantized),
    ("torch._utils", "_rebuild_nested_tensor"): _refused(
        "a nested tensor; in PyTorch: save state[name].to_padded_tensor(0) in its place"
    ),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _refused(
        "a tensor on the meta device, which has no values; in PyTorch: load the weights before saving"
    ),
    ("torch._utils", "_rebuild_wrapper_subclass"): _refused(
        "a tensor of a class without a storage; in PyTorch: save state[name].full_tensor() or its like in its place"
    ),
    **{("torch._utils", f"_rebuild_device_tensor_from_{kind}"): _refused(_TO_CPU) for kind in ("numpy", "cpu_tensor")},
    ("torch.serialization", "_get_layout"): PLACEHOLDER,
    **{("torch", f"per_{what}_affine"): NAME_ONLY for what in ("tensor", "channel")},
    # What training scripts save beside the weights.
    ("torch", "Size"): Constructor(_size),
    ("torch", "device"): PLACEHOLDER,
    # torch.compile; torch.save writes protocol 2, whose name for builtins is __builtin__.
    ("torch._dynamo.eval_frame", "OptimizedModule"): Constructor(_compiled_module, _compiled_module_state),
    ("__builtin__", "getattr"): Constructor(_compiler_option),
    ("contextlib", "nullcontext"): PLACEHOLDER,
}


def encode_state_dict(tensors: Mapping[str, LazyTensor], id_tail: bytes = b"") -> bytes:
    """Pickle a state dict with the opcodes of PyTorch's `weights_only` unpickler.

    The keys of the storages are the indices of the tensors. `id_tail` is the opcodes of what
    follows the length in each persistent id.
    """
    parts = [b"\x80\x02ccollections\nOrderedDict\n)R("]
    for index, (key, tensor) in enumerate(tensors.items()):
        storage = TYPED_DTYPES.get(tensor.dtype.name)
        kind, unit = (f"torch\n{storage}", tensor.dtype.itemsize) if storage else ("torch.storage\nUntypedStorage", 1)
        strides = tuple(int(np.prod(tensor.shape[axis + 1 :], dtype=np.int64)) for axis in range(len(tensor.shape)))
        parts += [
            text_opcode(key),
            b"ctorch._utils\n_rebuild_tensor_v2\n(" if storage else b"ctorch._utils\n_rebuild_tensor_v3\n(",
            b"(" + text_opcode("storage") + f"c{kind}\n".encode() + text_opcode(str(index)) + text_opcode("cpu"),
            int_opcode(tensor.nbytes // unit) + id_tail + b"tQK\x00",
            tuple_opcodes(tensor.shape) + tuple_opcodes(strides),
            b"\x89ccollections\nOrderedDict\n)R",
            b"" if storage else f"ctorch\n{tensor.dtype.name}\n".encode(),
            b"tR",
        ]
    return b"".join([*parts, b"u."])
