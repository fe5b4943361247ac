"""Arrays as a file describes them, and the bytes that a file stores.

Arrays that come out of a file are read-only, C-contiguous, aligned and of this machine's byte order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.mapped_file import check_still_there
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor


def view(
    buffer: memoryview,
    dtype: np.dtype,
    shape: Sequence[int],
    *,
    offset: int = 0,
    strides: Sequence[int] | None = None,
) -> np.ndarray:
    """The array that a file describes, after its description was checked against the bytes there are.

    `offset` and `strides` count elements; without strides the array is C-ordered and must fill `buffer` exactly.
    Raises CheckpointError, to which the caller adds file and key.
    """
    if strides is None:
        assert not offset  # which nothing here gives without strides
        check_size(dtype, shape, len(buffer))
        array = np.ndarray(tuple(shape), dtype, buffer)
    else:
        cells = _cells(dtype, shape)
        _check_dims("stride", strides)
        _check_dims("offset", (offset,))
        if len(strides) != len(shape):
            raise CheckpointError("corrupt", f"shape {tuple(shape)} has another length than stride {tuple(strides)}")
        end = offset + (1 + sum((d - 1) * s for d, s in zip(shape, strides, strict=True)) if cells else 0)
        if end * dtype.itemsize > len(buffer):
            raise CheckpointError(
                "corrupt",
                f"shape {tuple(shape)}, stride {tuple(strides)}, offset {offset} of {dtype} ends at byte "
                f"{end * dtype.itemsize} of a storage of {len(buffer)}",
            )
        # An empty array's strides mean nothing and may overflow NumPy's integers.
        steps = [s * dtype.itemsize for s in strides] if cells else None
        array = np.ndarray(tuple(shape), dtype, buffer, offset * dtype.itemsize if cells else 0, steps)
    return array


def check_size(dtype: np.dtype, shape: Sequence[int], size: int) -> None:
    """Raise CheckpointError where an array of that description does not take exactly `size` bytes."""
    needed = _cells(dtype, shape) * dtype.itemsize
    if needed != size:
        raise CheckpointError("corrupt", f"shape {tuple(shape)} of {dtype} needs {needed} bytes, found {size}")


def _cells(dtype: np.dtype, shape: Sequence[int]) -> int:
    _check_dims("shape", shape)
    if math.prod(max(d, 1) for d in shape) * dtype.itemsize >= 1 << 62:
        raise CheckpointError("corrupt", f"shape {tuple(shape)} is larger than any memory")
    return math.prod(shape)


def as_native_contiguous(array: np.ndarray) -> np.ndarray:
    """The same values in C order, aligned, in this machine's byte order, read-only; copied only where one of these fails."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not (array.flags.c_contiguous and array.flags.aligned):
        array = array.copy(order="C")
    array = array.view()
    array.flags.writeable = False
    return array


def lazy_view(array: np.ndarray) -> LazyTensor:
    """A view of a file's bytes that is settled when it is asked for.

    Raises CheckpointError for a bool that is neither 0 nor 1, with which NumPy's results would depend on the operation.
    """
    if array.dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise CheckpointError("corrupt", "a bool array holds bytes other than 0 and 1")
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base

    def load() -> np.ndarray:
        check_still_there(owner)
        return as_native_contiguous(array)

    return LazyTensor(array.shape, array.dtype.newbyteorder("="), load)


def concatenated(pieces: Sequence[LazyTensor], shape: Sequence[int]) -> LazyTensor:
    """The array that a file cut into pieces, which are joined when it is asked for. Raises CheckpointError as `view` does."""
    _check_dims("shape", shape)
    dtypes, cells = {piece.dtype for piece in pieces}, sum(math.prod(piece.shape) for piece in pieces)
    if len(dtypes) != 1:
        raise CheckpointError("corrupt", f"it was cut into {len(pieces)} pieces of {len(dtypes)} dtypes, expected one dtype")
    if math.prod(shape) != cells:
        raise CheckpointError("corrupt", f"shape {tuple(shape)} needs {math.prod(shape)} values, its pieces have {cells}")
    made = tuple(shape)
    return LazyTensor(
        made, dtypes.pop(), lambda: as_native_contiguous(np.concatenate([p.load().reshape(-1) for p in pieces]).reshape(made))
    )


def little_endian_bytes(array: np.ndarray) -> memoryview:
    """The array's bytes in C order and little-endian, as every format here stores them; NaN payloads are kept."""
    if array.dtype.hasobject or array.dtype.fields:
        raise CheckpointError("unsupported", f"dtype {array.dtype} is not an array of numbers")
    array = np.ascontiguousarray(array)
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not np.little_endian):
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


def _check_dims(what: str, dims: Sequence[int]) -> None:
    if len(dims) > limits.LIMITS.ndim:
        raise CheckpointError("corrupt", f"{what} has {len(dims)} dimensions, more than {limits.LIMITS.ndim}")
    if not all(type(d) is int and 0 <= d < 1 << 62 for d in dims):
        raise CheckpointError("corrupt", f"{what} must be whole numbers from 0 on, found {_kinds(dims)}")


def _kinds(dims: Sequence[object]) -> str:
    # Anything but an integer is shown by its type: a nested tuple of a hostile file has no end.
    return ", ".join(str(d) if type(d) is int else type(d).__name__ for d in dims[:8]) or "none"
