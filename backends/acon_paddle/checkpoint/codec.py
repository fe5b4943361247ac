"""PaddlePaddle's checkpoint file: a pickled dict of NumPy arrays and a table of parameter names."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from acon_core.checkpoint.codecs.arrays import concatenated
from acon_core.checkpoint.codecs.atomic_write import atomic_write
from acon_core.checkpoint.codecs.codec import CheckpointFile, check_writable
from acon_core.checkpoint.codecs.mapped_file import ends_contain, map_file
from acon_core.checkpoint.codecs.numpy_pickle import (
    METADATA_TAG,
    NUMPY_GLOBALS,
    PickledArray,
    read_metadata,
    to_lazy_tensors,
    write_pickle,
)
from acon_core.checkpoint.codecs.pickle_values import Constructor, GlobalTable
from acon_core.checkpoint.codecs.pickled_module import load_state
from acon_core.checkpoint.codecs.text import ErrorPrefix, printable
from acon_core.checkpoint.codecs.unpickler import Unpickled, load, looks_like_pickle
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor, LazyTensors, lazy_items

FRAMEWORK = "paddle"
SUFFIXES = (".pdparams",)
IS_DIRECTORY = False

_NAME_TABLE = "StructuredToParameterName@@"
_SLICE_TABLE = "UnpackBigParamInfor@@"
_TENSOR_CALLS = (b"\x8c\x05tuple", b"\ntuple\n", b"\x8c\x04eval", b"\neval\n", b"_reconstruct_dense_", b"math_op_patch")
# How the names of optimizer states end, after the name of the parameter.
_ACCUMULATOR = re.compile(
    r"_(moment|moment[12]|moment2_max|beta[12]_pow(_acc)?|velocity|momentum|momentum_decay_pow|mu_product|inf_norm|"
    r"mean_square|mean_grad|_avg_squared_(grad|update)|slow|prevs|learning_rates)_\d+$"
)
_SAVE_AGAIN = "save the layer's state again with paddle.save(layer.state_dict(), 'x.pdparams')"
_MARKERS = (_NAME_TABLE.encode(), _SLICE_TABLE.encode(), *_TENSOR_CALLS)
# What pickles of MegEngine and PyTorch contain, and ours, which have Paddle's markers too.
_FOREIGN_MARKERS = (b"megengine", b"l\xfc\x9cF\xf9 j\xa8P\x19", METADATA_TAG)
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# Without uint16, which Paddle reads as bfloat16, and float8, which it reads as int8.
DTYPES = dict.fromkeys(
    ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool", "complex64", "complex128")
)


def sniff(path: Path) -> bool:
    """Whether the file is a pickle with one of Paddle's markers, or a binary tensor.

    Also for a pickle of nothing but NumPy arrays, as scripts that convert weights save it. It may
    be MegEngine's: names and shapes decide.
    """
    data = map_file(path)
    if not looks_like_pickle(data):
        return _is_binary_tensor(data)
    arrays = ends_contain(data, b"ndarray") and not any(ends_contain(data, marker) for marker in _FOREIGN_MARKERS)
    return arrays or any(ends_contain(data, marker) for marker in _MARKERS)


def read(path: Path, key: str = "") -> CheckpointFile:
    """Read a state dict, bare or one level below the top.

    Nothing in the pickle is executed: the calls of `eval` and `tuple` that Paddle writes for a
    tensor are recognised by their exact arguments. uint16 is read as bfloat16, as Paddle does.
    Raises CheckpointError for any other global, for trailing bytes, for the state of an optimizer
    and for binary tensors, which have no names.
    """
    path = Path(path)
    data = map_file(path)
    if _is_binary_tensor(data):
        raise CheckpointError(
            "unsupported",
            f"{path}: Paddle's binary tensors (.pdiparams, use_binary_format), which have no names; {_SAVE_AGAIN}",
        )
    slices: object = {}

    def unpickle(allow_foreign: bool) -> Unpickled:
        nonlocal slices
        unpickled = load(data, _GLOBALS, str(path), allow_foreign=allow_foreign)
        top = unpickled.value
        if type(top) is dict:
            slices = top.pop(_SLICE_TABLE, {})
            top.pop(_NAME_TABLE, None)
            if _is_optimizer_state(top):
                raise CheckpointError(
                    "unsupported", f"{path}: the state of an optimizer (.pdopt), not of a network; give the .pdparams beside it"
                )
        return unpickled

    found = load_state(unpickle, path, key, lambda value: type(value) is PickledArray)
    notes = found.notes
    tensors = _join_slices(to_lazy_tensors(found.tensors, path, len(data)), slices, path)
    bfloat16 = [key for key, tensor in tensors.items() if tensor.dtype == np.uint16]
    for key in bfloat16:
        tensors[key] = _bitcast(tensors[key], _BFLOAT16)
    if bfloat16:
        notes.append(f"read {len(bfloat16)} arrays of uint16 as bfloat16, as Paddle stores it")
    return CheckpointFile(
        LazyTensors(tensors),
        read_metadata(data, str(path)),
        notes,
        found.unpickled.globals_seen,
        found.unpickled.foreign_globals,
        found.place,
    )


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict that `paddle.load` and `set_state_dict` read; completely or not at all.

    bfloat16 is stored as uint16, as Paddle does. Paddle does not see `metadata`. Equal arguments
    give equal bytes. Raises CheckpointError for a dtype that Paddle would read as another.
    """
    check_writable(tensors, path, DTYPES, "Paddle")
    for key in (_NAME_TABLE, _SLICE_TABLE):
        if key in tensors:
            raise CheckpointError("unsupported", f"{path}: {printable(key)}: this name is reserved by Paddle; rename it")
    items: dict[str, LazyTensor | Mapping[str, str]] = {
        key: _bitcast(tensor, np.dtype(np.uint16)) if tensor.dtype == _BFLOAT16 else tensor
        for key, tensor in lazy_items(tensors).items()
    }
    items[_NAME_TABLE] = {key: f"param_{index}.w_0" for index, key in enumerate(tensors)}
    with atomic_write(path) as file:
        write_pickle(file, items, metadata or {}, ordered=False)


def _is_binary_tensor(data: memoryview) -> bool:
    """Whether the bytes begin as a tensor in Paddle's C++ format, which has no names."""
    head = bytes(data[:21])
    return len(head) == 21 and not any(head[:16]) and 2 <= struct.unpack("<i", head[16:20])[0] < 4096 and head[20] == 8


def _is_optimizer_state(top: dict[object, object]) -> bool:
    """Whether all arrays have names of optimizer states, or there is only a schedule."""
    names = [key for key, value in top.items() if type(value) is PickledArray]
    if not names:
        return set(top) == {"LR_Scheduler"}
    return all(type(name) is str and _ACCUMULATOR.search(name) for name in names)


def _bitcast(tensor: LazyTensor, dtype: np.dtype) -> LazyTensor:
    """Reinterpret the bits as another dtype of the same size."""
    return LazyTensor(tensor.shape, dtype, lambda: tensor.load().view(dtype))


def _join_slices(tensors: dict[str, LazyTensor], slices: object, path: Path) -> dict[str, LazyTensor]:
    """Join the arrays of over a gigabyte that Paddle splits in protocols 2 and 3."""
    if type(slices) is not dict:
        raise CheckpointError("corrupt", f"{path}: {_SLICE_TABLE} is not a dict")
    for key, entry in slices.items():
        if type(key) is not str or type(entry) is not dict or set(entry) != {"slices", "OriginShape"}:
            raise CheckpointError("corrupt", f"{path}: {printable(key)}: {_SLICE_TABLE} lacks slices or shape")
        parts, shape = entry["slices"], entry["OriginShape"]
        if type(parts) is not list or type(shape) not in (tuple, list) or not all(type(p) is str for p in parts):
            raise CheckpointError("corrupt", f"{path}: {printable(key)}: {_SLICE_TABLE} lacks slices or shape")
        if not parts or len(set(parts)) != len(parts) or not all(p in tensors for p in parts) or key in tensors:
            raise CheckpointError("corrupt", f"{path}: {printable(key)}: its slices are missing or listed twice")
        pieces = [tensors.pop(part) for part in parts]
        with ErrorPrefix(path, key):
            tensors[key] = concatenated(pieces, shape)
    return tensors


def _tensor(args: tuple[Any, ...]) -> PickledArray:
    """Accept a Tensor inside another structure: `tuple((name, array))`."""
    if len(args) != 1 or type(args[0]) is not tuple or len(args[0]) != 2:
        raise _reject("tuple")
    name, array = args[0]
    if type(name) is not str or type(array) is not PickledArray:
        raise _reject("tuple")
    return array


def _dense_tensor_eval(args: tuple[Any, ...]) -> PickledArray:
    """Accept a DenseTensor: `eval('data', {'data': array})`, of which nothing is evaluated."""
    if len(args) != 2 or type(args[0]) is not str or args[0] != "data" or type(args[1]) is not dict:
        raise _reject("eval")
    if set(args[1]) != {"data"} or type(args[1]["data"]) is not PickledArray:
        raise _reject("eval")
    return args[1]["data"]


def _reject(name: str) -> CheckpointError:
    return CheckpointError("unsafe", f"a call of {name} that Paddle does not write for a tensor; nothing was run")


def _rebuild_tensor(args: tuple[Any, ...]) -> PickledArray:
    """Accept a Tensor saved by pickle itself: its array, dtype, place and maybe `stop_gradient`."""
    if not 3 <= len(args) <= 4 or type(args[0]) is not PickledArray or type(args[1]) is not str or args[0].dtype is None:
        raise _reject("_rebuild_tensor")
    stored = args[0].dtype.to_numpy().name
    if args[1] != {"uint16": "bfloat16"}.get(stored, stored):
        raise CheckpointError("unsupported", f"a tensor of {args[1]:.40} that is stored as {stored}; {_SAVE_AGAIN}")
    return args[0]


def _dense_tensor(args: tuple[Any, ...]) -> PickledArray:
    """Accept a DenseTensor as Paddle writes it since 2026, without `eval`."""
    if len(args) != 1 or type(args[0]) is not PickledArray:
        raise _reject("_reconstruct_dense_tensor_data")
    return args[0]


_GLOBALS: GlobalTable = {
    **NUMPY_GLOBALS,
    ("paddle.framework.io_utils", "_reconstruct_dense_tensor_data"): Constructor(_dense_tensor),
    ("paddle.base.dygraph.math_op_patch", "_rebuild_tensor"): Constructor(_rebuild_tensor),
    **{(module, "tuple"): Constructor(_tensor) for module in ("builtins", "__builtin__")},
    **{(module, "eval"): Constructor(_dense_tensor_eval) for module in ("builtins", "__builtin__")},
}
