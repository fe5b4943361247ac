"""MegEngine's checkpoint file: a pickled OrderedDict of NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acon_core.checkpoint.codecs.atomic_write import atomic_write
from acon_core.checkpoint.codecs.codec import CheckpointFile, check_writable
from acon_core.checkpoint.codecs.mapped_file import ends_contain, map_file
from acon_core.checkpoint.codecs.numpy_pickle import NUMPY_GLOBALS, PickledArray, read_metadata, to_lazy_tensors, write_pickle
from acon_core.checkpoint.codecs.pickle_values import NAME_ONLY, PLACEHOLDER, Constructor, GlobalTable
from acon_core.checkpoint.codecs.pickled_module import load_state
from acon_core.checkpoint.codecs.text import format_names
from acon_core.checkpoint.codecs.unpickler import Unpickled, load, looks_like_pickle
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor, LazyTensors, lazy_items
from acon_megengine.checkpoint.pickled_module import PickledTensor, flatten, is_module, module_members

FRAMEWORK = "megengine"
SUFFIXES = (".pkl",)
IS_DIRECTORY = False

# For others, such as float64 and int64, MegEngine raises "Unable to cast Python instance".
DTYPES = dict.fromkeys(("float32", "float16", "int32", "int16", "int8", "uint8", "uint16", "bool"))

# What pickles of Paddle and PyTorch contain and those of MegEngine do not.
_FOREIGN_MARKERS = (
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
    """Whether the file is a pickle without the markers of other frameworks."""
    data = map_file(path)
    return looks_like_pickle(data) and not any(ends_contain(data, marker) for marker in _FOREIGN_MARKERS)


def read(path: Path, key: str = "") -> CheckpointFile:
    """Read a state dict, bare or under a key such as `state_dict`, or a whole module.

    Values are arrays, Tensors or Parameters. The tensors of norms get one axis, as in MegEngine's
    own `state_dict()`: modules and old versions store (1, C, 1, 1). Nothing in the pickle is
    executed. Raises CheckpointError for any other global, for trailing bytes and for the state of
    an optimizer.
    """
    path = Path(path)
    data = map_file(path)

    def unpickle(allow_foreign: bool) -> Unpickled:
        unpickled = load(data, _GLOBALS, str(path), allow_foreign=allow_foreign)
        if type(unpickled.value) is dict and set(unpickled.value) == {"param_groups", "state"}:
            raise CheckpointError(
                "unsupported", f"{path}: the state of an optimizer, not of a network; save module.state_dict() itself"
            )
        return unpickled

    found = load_state(unpickle, path, key, _is_tensor, is_module, module_members)
    values, notes = found.tensors, found.notes
    arrays = {key: value.array if isinstance(value, PickledTensor) else value for key, value in values.items()}
    tensors = to_lazy_tensors(arrays, path, len(data))
    tensors |= {key: value.to_lazy(tensors[key]) for key, value in values.items() if isinstance(value, PickledTensor)}
    flattened = _flattened_norms(tensors)
    if flattened:
        notes.append(f"reshaped {len(flattened)} tensors of BatchNorms to one axis: {format_names(flattened)}")
    return CheckpointFile(
        LazyTensors(tensors | flattened),
        read_metadata(data, str(path)),
        notes,
        found.unpickled.globals_seen,
        found.unpickled.foreign_globals,
        found.place,
    )


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict that `megengine.load` reads; completely or not at all.

    MegEngine does not see `metadata`. Equal arguments give equal bytes. Raises CheckpointError for
    a dtype that MegEngine cannot load, such as float64 and int64.
    """
    check_writable(tensors, path, DTYPES, "MegEngine")
    with atomic_write(path) as file:
        write_pickle(file, lazy_items(tensors), metadata or {}, ordered=True)


def _is_tensor(value: object) -> bool:
    return type(value) in (PickledArray, PickledTensor)


def _flattened_norms(tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Flatten those tensors of BatchNorms that have several axes, as MegEngine's own loader does.

    A BatchNorm is what has running statistics: the bias of a convolution stays 4-D.
    """
    norms = [name.removesuffix("running_mean") for name in tensors if f".{name}".endswith(".running_mean")]
    names = [f"{norm}{name}" for norm in norms for name in ("weight", "bias", "running_mean", "running_var")]
    return {name: flatten(tensors[name]) for name in names if name in tensors and len(tensors[name].shape) > 1}


def _tensor(args: tuple[Any, ...]) -> PickledTensor:
    if len(args) != 3 or type(args[0]) is not PickledArray:
        raise CheckpointError("unsupported", "a MegEngine tensor without an array; save module.state_dict()")
    return PickledTensor(args[0])


def _old_tensor(args: tuple[Any, ...]) -> PickledTensor:
    if args:
        raise CheckpointError("unsupported", "a MegEngine tensor with arguments; save module.state_dict()")
    return PickledTensor(PickledArray())


def _old_tensor_state(tensor: PickledTensor, state: object) -> None:
    if type(state) is not dict or not {"data"} <= set(state) <= {"data", "device", "dtype", "metadata"}:
        raise CheckpointError("unsupported", "a MegEngine tensor with attributes; save module.state_dict()")
    array = state["data"]
    if type(array) is not PickledArray or tensor.array.data is not None:
        raise CheckpointError("unsupported", "a MegEngine tensor without exactly one array; save module.state_dict()")
    vars(tensor.array).update(vars(array))


def _tensor_state(tensor: object, state: object) -> None:
    if state != {}:
        raise CheckpointError("unsupported", "a MegEngine tensor with attributes; save module.state_dict()")


_GLOBALS: GlobalTable = {
    **NUMPY_GLOBALS,
    ("megengine.tensor", "Tensor"): Constructor(_tensor, _tensor_state),
    ("megengine.tensor", "Parameter"): Constructor(_tensor, _tensor_state),
    # Before 1.0: constructed empty; the array, device and dtype are its state.
    ("megengine.core.tensor", "Tensor"): Constructor(_old_tensor, _old_tensor_state),
    ("megengine.core.tensor_nn", "Parameter"): Constructor(_old_tensor, _old_tensor_state),
    ("megengine.core.tensor_nn", "Buffer"): Constructor(_old_tensor, _old_tensor_state),
    ("megengine._internal.mgb", "CompNode"): PLACEHOLDER,
    **{("numpy", name): NAME_ONLY for name in DTYPES},
}
