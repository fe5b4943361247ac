"""MegEngine's checkpoint file: a pickle of an OrderedDict of NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acon_core.checkpoint.codecs.atomic_write import atomic_write
from acon_core.checkpoint.codecs.codec import CheckpointFile, check_writable
from acon_core.checkpoint.codecs.mapped_file import contains, map_file
from acon_core.checkpoint.codecs.numpy_pickle import ARRAYS, Array, arrays, read_metadata, write_pickle
from acon_core.checkpoint.codecs.pickled_module import load_state
from acon_core.checkpoint.codecs.state_dict import find_state
from acon_core.checkpoint.codecs.text import format_names
from acon_core.checkpoint.codecs.unpickler import MENTION, OPAQUE, Constructor, Pickled, Table, load, looks_like_pickle
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor, LazyTensors, lazy_items
from acon_megengine.checkpoint.whole import Tensor, flat, parts

FRAMEWORK = "megengine"
SUFFIXES = (".pkl",)
IS_DIRECTORY = False

# MegEngine raises "Unable to cast Python instance" for others; float64 and int64 among them.
DTYPES = dict.fromkeys(("float32", "float16", "int32", "int16", "int8", "uint8", "uint16", "bool"))

# A pickle says nothing of who wrote it; these are in Paddle's and PyTorch's and never in MegEngine's.
_FOREIGN = (
    b"StructuredToParameterName@@",
    b"UnpackBigParamInfor@@",
    b"\x8c\x05tuple",
    b"\ntuple\n",
    b"\x8c\x04eval",
    b"\neval\n",
    b"_reconstruct_dense_",
    b"math_op_patch",
    b"l\xfc\x9cF\xf9 j\xa8P\x19",
)


def sniff(path: Path) -> bool:
    """Whether the content is a pickle without what the other frameworks' pickles have in them. Runs nothing."""
    data = map_file(path)
    return looks_like_pickle(data) and not any(contains(data, mark) for mark in _FOREIGN)


def read(path: Path) -> CheckpointFile:
    """Read the arrays of a state dict, bare or under a key such as `state_dict`; Tensors and Parameters count as arrays.

    A whole module is read as its state dict, in which the tensors of norms have one axis, as MegEngine's own has them;
    so have those of BatchNorms in state dicts of old versions, whose statistics may have the shape (1, C, 1, 1).
    Nothing in the pickle is run. Raises CheckpointError for a file with any other global in it, or with bytes after it, and
    for an optimizer's state.
    """
    path = Path(path)
    data = map_file(path)

    def pickled(instances: bool) -> Pickled:
        found = load(data, _TABLE, str(path), instances=instances)
        if found.end != len(data):
            raise CheckpointError("corrupt", f"{path}: {len(data) - found.end} bytes after the pickle's end; copy it again")
        return found

    whole, notes = load_state(pickled, parts, path)
    if type(whole.value) is dict and set(whole.value) == {"param_groups", "state"}:
        raise CheckpointError(
            "unsupported", f"{path}: the state of an optimizer, not of a network; save module.state_dict() itself"
        )
    values, more = find_state(whole.value, lambda value: type(value) in (Array, Tensor), path)
    plain = {key: value.array if isinstance(value, Tensor) else value for key, value in values.items()}
    found = arrays(plain, path, len(data))
    found |= {key: value.lazy(found[key]) for key, value in values.items() if isinstance(value, Tensor)}
    flattened = _flattened(found)
    if flattened:
        more.append(
            f"gave {len(flattened)} tensors of BatchNorms the one axis that they have since 1.1: {format_names(flattened)}"
        )
    return CheckpointFile(
        LazyTensors(found | flattened),
        read_metadata(data, str(path)),
        [*notes, *more],
        whole.globals_seen,
        whole.foreign,
    )


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict that `megengine.load` and `load_state_dict` take; whole or not at all.

    Equal arguments give equal bytes. MegEngine sees nothing of `metadata`. Raises CheckpointError for a dtype that
    MegEngine cannot load, such as float64 and int64; it is for the caller to decide how to convert those.
    """
    check_writable(tensors, path, DTYPES, "MegEngine")
    with atomic_write(path) as file:
        write_pickle(file, lazy_items(tensors), metadata or {}, ordered=True)


def _flattened(found: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """The tensors of BatchNorms that have more than one axis, with one, as MegEngine's own loader takes them.

    A BatchNorm is whatever has running statistics: a convolution's bias of the same shape stays as it is.
    """
    norms = [name.removesuffix("running_mean") for name in found if f".{name}".endswith(".running_mean")]
    parts = [f"{norm}{part}" for norm in norms for part in ("weight", "bias", "running_mean", "running_var")]
    return {part: flat(found[part]) for part in parts if part in found and len(found[part].shape) > 1}


def _tensor(args: tuple[Any, ...]) -> Tensor:
    if len(args) != 3 or type(args[0]) is not Array:
        raise CheckpointError("unsupported", "a MegEngine tensor that does not hold an array; save module.state_dict()")
    return Tensor(args[0])


def _old_tensor(args: tuple[Any, ...]) -> Tensor:
    if args:
        raise CheckpointError("unsupported", "a MegEngine tensor with arguments that none has; save module.state_dict()")
    return Tensor(Array())


def _old_tensor_state(tensor: Tensor, state: object) -> None:
    if type(state) is not dict or not {"data"} <= set(state) <= {"data", "device", "dtype", "metadata"}:
        raise CheckpointError("unsupported", "a MegEngine tensor with attributes; save module.state_dict()")
    held = state["data"]
    if type(held) is not Array or tensor.array.data is not None:
        raise CheckpointError("unsupported", "a MegEngine tensor that does not hold one array; save module.state_dict()")
    vars(tensor.array).update(vars(held))


def _tensor_state(tensor: object, state: object) -> None:
    if state != {}:
        raise CheckpointError("unsupported", "a MegEngine tensor with attributes; save module.state_dict()")


_TABLE: Table = {
    **ARRAYS,
    ("megengine.tensor", "Tensor"): Constructor(_tensor, _tensor_state),
    ("megengine.tensor", "Parameter"): Constructor(_tensor, _tensor_state),
    # Before 1.0, when a tensor was made empty and then given its array, its device and its dtype.
    ("megengine.core.tensor", "Tensor"): Constructor(_old_tensor, _old_tensor_state),
    ("megengine.core.tensor_nn", "Parameter"): Constructor(_old_tensor, _old_tensor_state),
    ("megengine.core.tensor_nn", "Buffer"): Constructor(_old_tensor, _old_tensor_state),
    ("megengine._internal.mgb", "CompNode"): OPAQUE,
    **{("numpy", name): MENTION for name in DTYPES},
}
