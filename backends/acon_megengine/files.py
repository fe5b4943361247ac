"""MegEngine's checkpoint file: a pickle of an OrderedDict of NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acon_core.checkpoint.file import LIMITS, File, Limits, atomic_write, check_writable, contains, find_state, map_file
from acon_core.checkpoint.modules import load_state
from acon_core.checkpoint.numpy_pickle import ARRAYS, Array, arrays, write_pickle
from acon_core.checkpoint.unpickler import Constructor, Pickled, Table, load, looks_like_pickle
from acon_core.errors import CheckpointError
from acon_core.tensors import Tensors, described
from acon_megengine.whole import Tensor, parts

FRAMEWORK = "megengine"
SUFFIXES = (".pkl",)
FOLDER = False

# MegEngine raises "Unable to cast Python instance" for others; float64 and int64 among them.
_DTYPES = dict.fromkeys(("float32", "float16", "int32", "int16", "int8", "uint8", "uint16", "bool"))

# A pickle says nothing of who wrote it; these are in Paddle's and PyTorch's and never in MegEngine's.
_FOREIGN = (
    b"StructuredToParameterName@@",
    b"UnpackBigParamInfor@@",
    b"\x8c\x05tuple",
    b"\ntuple\n",
    b"\x8c\x04eval",
    b"\neval\n",
    b"_reconstruct_dense_",
    b"l\xfc\x9cF\xf9 j\xa8P\x19",
)


def sniff(path: Path) -> bool:
    """Whether the content is a pickle without what the other frameworks' pickles have in them. Runs nothing."""
    data = map_file(path)
    return looks_like_pickle(data) and not any(contains(data, mark) for mark in _FOREIGN)


def read(path: Path, limits: Limits = LIMITS) -> File:
    """Read the arrays of a state dict, bare or under a key such as `state_dict`; Tensors and Parameters count as arrays.

    A whole module is read as its state dict, in which the tensors of norms have one axis, as MegEngine's own has them.
    Nothing in the pickle is run. Raises CheckpointError for a file with any other global in it, or with bytes after it.
    """
    path = Path(path)
    data = map_file(path, limits)

    def pickled(instances: bool) -> Pickled:
        found = load(data, _TABLE, str(path), limits=limits, instances=instances)
        if found.end != len(data):
            raise CheckpointError("corrupt", f"{path}: {len(data) - found.end} bytes after the pickle's end; copy it again")
        return found

    whole, notes = load_state(pickled, parts, path, limits)
    values, more = find_state(whole.value, lambda value: type(value) in (Array, Tensor), path)
    plain = {key: value.array if isinstance(value, Tensor) else value for key, value in values.items()}
    found = arrays(plain, path, len(data), limits)
    found |= {key: value.lazy(found[key]) for key, value in values.items() if isinstance(value, Tensor)}
    return File(Tensors(found), notes=[*notes, *more], globals_seen=whole.globals_seen)


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict that `megengine.load` and `load_state_dict` take; whole or not at all.

    Equal tensors give equal bytes. The format has no place for `metadata`. Raises CheckpointError for a dtype that
    MegEngine cannot load, such as float64 and int64; it is for the caller to decide how to convert those.
    """
    check_writable(tensors, path, _DTYPES, "MegEngine")
    with atomic_write(path) as file:
        write_pickle(file, described(tensors), ordered=True)


def _tensor(args: tuple[Any, ...]) -> Tensor:
    if len(args) != 3 or type(args[0]) is not Array:
        raise CheckpointError("unsupported", "a MegEngine tensor that does not hold an array; save module.state_dict()")
    return Tensor(args[0])


def _tensor_state(tensor: object, state: object) -> None:
    if state != {}:
        raise CheckpointError("unsupported", "a MegEngine tensor with attributes; save module.state_dict()")


_TABLE: Table = {
    **ARRAYS,
    ("megengine.tensor", "Tensor"): Constructor(_tensor, _tensor_state),
    ("megengine.tensor", "Parameter"): Constructor(_tensor, _tensor_state),
}
