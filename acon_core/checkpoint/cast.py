"""`acon convert --cast`: cast tensors to a dtype that the target format can store."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.formats import Format
from acon_core.checkpoint.reading import Checkpoint
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor, LazyTensors, lazy_items

# Replacements of each dtype in order of preference, the lossless ones first.
REPLACEMENTS = {
    "float8_e4m3fn": ("float16", "bfloat16", "float32"),
    "float8_e5m2": ("float16", "bfloat16", "float32"),
    "float16": ("float32", "float64"),
    "bfloat16": ("float32", "float64"),
    "float64": ("float32", "float16"),
    "int64": ("int32", "int16"),
}


def cast(checkpoint: Checkpoint, format: Format) -> Checkpoint:
    """Return the checkpoint in dtypes that the format supports, with a note on each kind of cast.

    Floats are rounded to nearest, ties to even. A float that overflows to infinity and an integer
    that does not fit are errors when the tensor is loaded. Raises CheckpointError for a dtype
    without a supported replacement.
    """
    supported = format.codec.DTYPES
    stored = {path for path, _, native, _ in format.layout.table(checkpoint.network.graph) if native is not None}
    casts: Counter[tuple[str, str]] = Counter()
    tensors: dict[str, LazyTensor] = {}
    for path, tensor in lazy_items(checkpoint.state).items():
        dtype = tensor.dtype.name
        if dtype in supported or path not in stored:
            tensors[path] = tensor
            continue
        replacement = next((each for each in REPLACEMENTS.get(dtype, ()) if each in supported), None)
        if replacement is None:
            raise CheckpointError("unsupported", f"{path}: {format.name} cannot store {dtype} or a dtype to cast it to")
        tensors[path] = _cast(path, tensor, np.dtype(replacement))
        casts[dtype, replacement] += 1
    notes = [f"cast {count} tensors from {old} to {new}" for (old, new), count in casts.items()]
    return replace(checkpoint, state=LazyTensors(tensors), notes=(*checkpoint.notes, *notes))


def _cast(path: str, tensor: LazyTensor, dtype: np.dtype) -> LazyTensor:
    def load() -> NDArray:
        array = tensor.load()
        with np.errstate(over="ignore", invalid="ignore"):  # invalid: a signalling NaN becomes a quiet one
            result: NDArray = array.astype(dtype)
            lost = result != array if dtype.kind == "i" else np.isinf(result) & ~np.isinf(array)
        if lost.any():
            raise CheckpointError("unsupported", f"{path}: cannot cast {array[lost].flat[0]} to {dtype}: out of range")
        return result

    return LazyTensor(tensor.shape, dtype, load)
