"""`acon convert --cast`: weights in a dtype that a format can hold, where it cannot hold their own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.formats import Format
from acon_core.checkpoint.reading import Checkpoint
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor, LazyTensors, lazy_items

# What each becomes: the first that a format holds. What loses nothing stands first.
INSTEAD = {
    "float8_e4m3fn": ("float16", "bfloat16", "float32"),
    "float8_e5m2": ("float16", "bfloat16", "float32"),
    "float16": ("float32", "float64"),
    "bfloat16": ("float32", "float64"),
    "float64": ("float32", "float16"),
    "int64": ("int32", "int16"),
}


def cast(checkpoint: Checkpoint, format: Format) -> Checkpoint:
    """The checkpoint with every tensor that the format keeps in a dtype that it can hold, and a note on each kind of change.

    Nearest values, ties to even; a float that becomes infinite or an integer that does not fit is an error when it is met,
    never another number. Raises CheckpointError for a dtype that has no other.
    """
    held = format.codec.DTYPES
    kept = {path for path, _, native, _ in format.layout.table(checkpoint.network.graph) if native is not None}
    changes: Counter[tuple[str, str]] = Counter()
    tensors: dict[str, LazyTensor] = {}
    for path, tensor in lazy_items(checkpoint.state).items():
        name = tensor.dtype.name
        if name in held or path not in kept:
            tensors[path] = tensor
            continue
        other = next((each for each in INSTEAD.get(name, ()) if each in held), None)
        if other is None:
            raise CheckpointError("unsupported", f"{path}: {format.name} cannot hold {name}, nor what it could be cast to")
        tensors[path] = _cast(path, tensor, np.dtype(other))
        changes[name, other] += 1
    notes = [f"{count} tensors of {old} were cast to {new}" for (old, new), count in changes.items()]
    return replace(checkpoint, state=LazyTensors(tensors), notes=(*checkpoint.notes, *notes))


def _cast(path: str, tensor: LazyTensor, dtype: np.dtype) -> LazyTensor:
    def load() -> NDArray:
        array = tensor.load()
        with np.errstate(over="ignore", invalid="ignore"):  # invalid: a signalling NaN, which becomes a quiet one
            found: NDArray = array.astype(dtype)
            lost = found != array if dtype.kind == "i" else np.isinf(found) & ~np.isinf(array)
        if lost.any():
            raise CheckpointError("unsupported", f"{path}: {array[lost].flat[0]} does not fit into {dtype}, so it is not cast")
        return found

    return LazyTensor(tensor.shape, dtype, load)
