"""PaddlePaddle's checkpoint file: a pickle of a dict of NumPy arrays, and a table of parameter names."""

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
from acon_core.checkpoint.codecs.mapped_file import contains, map_file
from acon_core.checkpoint.codecs.numpy_pickle import ARRAYS, Array, arrays, read_metadata, write_pickle
from acon_core.checkpoint.codecs.state_dict import find_state
from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.codecs.unpickler import Constructor, Table, load, looks_like_pickle
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor, LazyTensors, lazy_items

FRAMEWORK = "paddle"
SUFFIXES = (".pdparams",)
IS_DIRECTORY = False

_NAMES = "StructuredToParameterName@@"
_SLICES = "UnpackBigParamInfor@@"
_CALLS = (b"\x8c\x05tuple", b"\ntuple\n", b"\x8c\x04eval", b"\neval\n", b"_reconstruct_dense_", b"math_op_patch")
# What Paddle's optimizers call what they keep of a parameter, behind its name.
_ACCUMULATOR = re.compile(
    r"_(moment|moment[12]|moment2_max|beta[12]_pow(_acc)?|velocity|momentum|momentum_decay_pow|mu_product|inf_norm|"
    r"mean_square|mean_grad|_avg_squared_(grad|update)|slow|prevs|learning_rates)_\d+$"
)
_AGAIN = "save the layer's state again with paddle.save(layer.state_dict(), 'x.pdparams')"
_MARKS = (_NAMES.encode(), _SLICES.encode(), *_CALLS)
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# uint16 is not here: Paddle has no such dtype and takes its bytes for bfloat16. It returns float8 as int8.
DTYPES = dict.fromkeys(
    ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool", "complex64", "complex128")
)


def sniff(path: Path) -> bool:
    """Whether the content is Paddle's: a pickle with one of its marks, or the stream of tensors that `read` refuses.

    Runs nothing.
    """
    data = map_file(path)
    return _is_stream(data) or (looks_like_pickle(data) and any(contains(data, mark) for mark in _MARKS))


def read(path: Path) -> CheckpointFile:
    """Read the arrays of a state dict, bare or one level below the top; Paddle's three ways to write a tensor all count.

    Nothing in the pickle is run, though Paddle's own files ask for `eval` and `tuple`. An array of uint16 is bfloat16,
    as Paddle reads it. Raises CheckpointError for a file with any other global in it, or with bytes after it; so for an
    optimizer's state and for tensors without names, whose message says what to save instead.
    """
    path = Path(path)
    data = map_file(path)
    if _is_stream(data):
        raise CheckpointError(
            "unsupported",
            f"{path}: Paddle's binary tensors (.pdiparams, use_binary_format), which lack their names; {_AGAIN}",
        )
    pickled = load(data, _TABLE, str(path))
    if pickled.end != len(data):
        raise CheckpointError("corrupt", f"{path}: {len(data) - pickled.end} bytes after the pickle's end; copy it again")
    top = pickled.value
    slices = top.pop(_SLICES, {}) if type(top) is dict else {}
    if type(top) is dict:
        top.pop(_NAMES, None)
        if _is_optimizer(top):
            raise CheckpointError(
                "unsupported", f"{path}: the state of an optimizer (.pdopt), not of a network; give the .pdparams beside it"
            )
    values, notes = find_state(top, lambda value: type(value) is Array, path)
    tensors = _joined(arrays(values, path, len(data)), slices, path)
    halves = [key for key, tensor in tensors.items() if tensor.dtype == np.uint16]
    for key in halves:
        tensors[key] = _seen_as(tensors[key], _BFLOAT16)
    if halves:
        notes.append(f"took {len(halves)} arrays of uint16 for bfloat16, as Paddle stores it")
    return CheckpointFile(LazyTensors(tensors), read_metadata(data, str(path)), notes, pickled.globals_seen)


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict that `paddle.load` and `set_state_dict` take; whole or not at all.

    bfloat16 is stored as uint16, which is how Paddle knows it. Paddle sees nothing of `metadata`. Equal arguments give
    equal bytes. Raises CheckpointError for a dtype that Paddle would give back as another.
    """
    check_writable(tensors, path, DTYPES, "Paddle")
    for key in (_NAMES, _SLICES):
        if key in tensors:
            raise CheckpointError("unsupported", f"{path}: {printable(key)}: Paddle keeps this name for itself; rename it")
    items: dict[str, LazyTensor | Mapping[str, str]] = {
        key: _seen_as(tensor, np.dtype(np.uint16)) if tensor.dtype == _BFLOAT16 else tensor
        for key, tensor in lazy_items(tensors).items()
    }
    items[_NAMES] = {key: f"param_{index}.w_0" for index, key in enumerate(tensors)}
    with atomic_write(path) as file:
        write_pickle(file, items, metadata or {}, ordered=False)


def _is_stream(data: memoryview) -> bool:
    """Whether the bytes begin as Paddle's C++ writes a tensor: a version, no levels, a version, and its dtype and sizes."""
    head = bytes(data[:21])
    return len(head) == 21 and not any(head[:16]) and 2 <= struct.unpack("<i", head[16:20])[0] < 4096 and head[20] == 8


def _is_optimizer(top: dict[object, object]) -> bool:
    """Whether every array has the name of what an optimizer keeps of a parameter; a stateless one keeps a schedule at most."""
    held = [key for key, value in top.items() if type(value) is Array]
    if not held:
        return set(top) == {"LR_Scheduler"}
    return all(type(key) is str and _ACCUMULATOR.search(key) for key in held)


def _seen_as(tensor: LazyTensor, dtype: np.dtype) -> LazyTensor:
    """The same bits as another dtype of the same size."""
    return LazyTensor(tensor.shape, dtype, lambda: tensor.load().view(dtype))


def _joined(tensors: dict[str, LazyTensor], slices: object, path: Path) -> dict[str, LazyTensor]:
    """Put together the arrays of over a gigabyte that Paddle cuts up in protocols 2 and 3."""
    if type(slices) is not dict:
        raise CheckpointError("corrupt", f"{path}: {_SLICES} is not a dict")
    for key, entry in slices.items():
        if type(key) is not str or type(entry) is not dict or set(entry) != {"slices", "OriginShape"}:
            raise CheckpointError("corrupt", f"{path}: {printable(key)}: {_SLICES} lacks its slices or its shape")
        parts, shape = entry["slices"], entry["OriginShape"]
        if type(parts) is not list or type(shape) not in (tuple, list) or not all(type(p) is str for p in parts):
            raise CheckpointError("corrupt", f"{path}: {printable(key)}: {_SLICES} lacks its slices or its shape")
        if not parts or len(set(parts)) != len(parts) or not all(p in tensors for p in parts) or key in tensors:
            raise CheckpointError("corrupt", f"{path}: {printable(key)}: slices are missing from the file or named twice")
        pieces = [tensors.pop(part) for part in parts]
        try:
            tensors[key] = concatenated(pieces, shape)
        except CheckpointError as error:
            raise CheckpointError(error.kind, f"{path}: {printable(key)}: {error}") from None
    return tensors


def _named(args: tuple[Any, ...]) -> Array:
    """A Tensor inside of another structure: `tuple((name, array))`."""
    if len(args) != 1 or type(args[0]) is not tuple or len(args[0]) != 2:
        raise _refused("tuple")
    name, array = args[0]
    if type(name) is not str or type(array) is not Array:
        raise _refused("tuple")
    return array


def _dense(args: tuple[Any, ...]) -> Array:
    """A DenseTensor: `eval('data', {'data': array})`, of which nothing is evaluated."""
    if len(args) != 2 or type(args[0]) is not str or args[0] != "data" or type(args[1]) is not dict:
        raise _refused("eval")
    if set(args[1]) != {"data"} or type(args[1]["data"]) is not Array:
        raise _refused("eval")
    return args[1]["data"]


def _refused(name: str) -> CheckpointError:
    return CheckpointError("unsafe", f"a call of {name} other than the one that Paddle writes for a tensor; nothing was run")


def _rebuilt(args: tuple[Any, ...]) -> Array:
    """A Tensor that was pickled without Paddle's help: its array, its dtype, where it was and whether it learns."""
    if not 3 <= len(args) <= 4 or type(args[0]) is not Array or type(args[1]) is not str or args[0].dtype is None:
        raise _refused("_rebuild_tensor")
    held = args[0].dtype.numpy().name
    if args[1] != {"uint16": "bfloat16"}.get(held, held):
        raise CheckpointError("unsupported", f"a tensor of {args[1]:.40} that is kept as {held}; {_AGAIN}")
    return args[0]


def _array(args: tuple[Any, ...]) -> Array:
    """A DenseTensor as Paddle writes it since 2026, when it stopped asking for `eval`."""
    if len(args) != 1 or type(args[0]) is not Array:
        raise _refused("_reconstruct_dense_tensor_data")
    return args[0]


_TABLE: Table = {
    **ARRAYS,
    ("paddle.framework.io_utils", "_reconstruct_dense_tensor_data"): Constructor(_array),
    ("paddle.base.dygraph.math_op_patch", "_rebuild_tensor"): Constructor(_rebuilt),
    **{(module, "tuple"): Constructor(_named) for module in ("builtins", "__builtin__")},
    **{(module, "eval"): Constructor(_dense) for module in ("builtins", "__builtin__")},
}
