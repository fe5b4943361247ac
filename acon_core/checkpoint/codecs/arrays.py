"""Arrays over the bytes of a file, checked against the description that the file gives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.mapped_file import check_not_truncated
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
    """View a buffer as the array that a file describes, after checking that it fits.

    Without `strides` the array is C-contiguous and must fill `buffer` exactly; with them, `buffer`
    is its storage. `offset` and `strides` count elements. Raises CheckpointError if the array does
    not fit; the caller adds file and key to the message.
    """
    if strides is None:
        assert not offset
        check_size(dtype, shape, len(buffer))
        return np.ndarray(tuple(shape), dtype, buffer)
    size = _element_count(dtype, shape)
    _check_dims("stride", strides)
    _check_dims("offset", (offset,))
    if len(strides) != len(shape):
        raise CheckpointError("corrupt", f"shape {tuple(shape)} and stride {tuple(strides)} differ in length")
    end = offset + (1 + sum((d - 1) * s for d, s in zip(shape, strides, strict=True)) if size else 0)
    if end * dtype.itemsize > len(buffer):
        raise CheckpointError(
            "corrupt",
            f"shape {tuple(shape)}, stride {tuple(strides)}, offset {offset} of {dtype} end at byte "
            f"{end * dtype.itemsize} of a storage of {len(buffer)} bytes",
        )
    if not size:  # the strides of an empty array have no meaning and may overflow NumPy's integers
        return np.ndarray(tuple(shape), dtype, buffer)
    return np.ndarray(tuple(shape), dtype, buffer, offset * dtype.itemsize, [s * dtype.itemsize for s in strides])


def check_size(dtype: np.dtype, shape: Sequence[int], size: int) -> None:
    """Raise CheckpointError unless an array of this dtype and shape takes exactly `size` bytes."""
    needed = _element_count(dtype, shape) * dtype.itemsize
    if needed != size:
        raise CheckpointError("corrupt", f"shape {tuple(shape)} of {dtype} needs {needed} bytes, found {size}")


def _element_count(dtype: np.dtype, shape: Sequence[int]) -> int:
    _check_dims("shape", shape)
    if math.prod(max(d, 1) for d in shape) * dtype.itemsize >= 1 << 62:
        raise CheckpointError("corrupt", f"shape {tuple(shape)} is larger than any memory")
    return math.prod(shape)


def as_native_contiguous(array: np.ndarray) -> np.ndarray:
    """Return the array read-only, C-contiguous, aligned and native-endian; copy only if needed."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not (array.flags.c_contiguous and array.flags.aligned):
        array = array.copy(order="C")
    array = array.view()
    array.flags.writeable = False
    return array


def lazy_view(array: np.ndarray) -> LazyTensor:
    """Wrap a view of a file's bytes; apply `as_native_contiguous` when the tensor is asked for.

    Raises CheckpointError for a bool other than 0 and 1, on which NumPy's operations disagree.
    """
    if array.dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise CheckpointError("corrupt", "a bool array holds bytes other than 0 and 1")
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base

    def load() -> np.ndarray:
        check_not_truncated(owner)
        return as_native_contiguous(array)

    return LazyTensor(array.shape, array.dtype.newbyteorder("="), load)


def concatenated(pieces: Sequence[LazyTensor], shape: Sequence[int]) -> LazyTensor:
    """Join the pieces that a file stores a large array in; they are copied when it is asked for.

    Raises CheckpointError if the pieces do not make up an array of that shape.
    """
    _check_dims("shape", shape)
    dtypes, size = {piece.dtype for piece in pieces}, sum(math.prod(piece.shape) for piece in pieces)
    if len(dtypes) != 1:
        raise CheckpointError("corrupt", f"expected pieces of one dtype, found {len(dtypes)} in {len(pieces)} pieces")
    if math.prod(shape) != size:
        raise CheckpointError("corrupt", f"shape {tuple(shape)} needs {math.prod(shape)} values, the pieces have {size}")
    whole = tuple(shape)

    def load() -> np.ndarray:
        return as_native_contiguous(np.concatenate([piece.load().reshape(-1) for piece in pieces]).reshape(whole))

    return LazyTensor(whole, dtypes.pop(), load)


def little_endian_bytes(array: np.ndarray) -> memoryview:
    """Return the array's bytes in C order and little-endian, as all formats here store them."""
    if array.dtype.hasobject or array.dtype.fields:
        raise CheckpointError("unsupported", f"dtype {array.dtype} is not a number; give an array of numbers")
    array = np.ascontiguousarray(array)
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not np.little_endian):
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


def _check_dims(what: str, dims: Sequence[int]) -> None:
    if len(dims) > limits.LIMITS.ndim:
        raise CheckpointError("corrupt", f"{what} has {len(dims)} dimensions, more than {limits.LIMITS.ndim}")
    if not all(type(d) is int and 0 <= d < 1 << 62 for d in dims):
        raise CheckpointError("corrupt", f"{what} must be non-negative integers, found {_format_dims(dims)}")


def _format_dims(dims: Sequence[object]) -> str:
    # Print only the type of a non-integer: the repr of a nested tuple can be of any length.
    return ", ".join(str(d) if type(d) is int else type(d).__name__ for d in dims[:8]) or "none"
