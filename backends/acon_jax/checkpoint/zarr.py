"""An array as zarr 2 or 3 lays it out among the keys of a store: its description, and the chunks that it was cut into."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.arrays import as_native_contiguous, view
from acon_core.checkpoint.codecs.limits import Budget
from acon_core.checkpoint.codecs.strict_json import parse
from acon_core.checkpoint.codecs.text import printable
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor
from acon_jax.checkpoint.codecs import crc32c, unzstd
from acon_jax.checkpoint.folder import Folder, Value, length
from acon_jax.checkpoint.msgpack import DTYPES

Shape = tuple[int, ...]
# Makes a chunk of its bytes; the shape is what of it lies within the array.
Decode = Callable[[memoryview, Shape], NDArray]
_NOWHERE = (1 << 64) - 1  # the offset and the length of a chunk that a shard does not have

# What zarr 2 calls a dtype; those that NumPy does not have go by their name, and zarr 3 calls all by their name.
_TYPESTRS = {dtype.newbyteorder("<").str if dtype.isbuiltin == 1 else name: dtype for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class _Grid:
    """How an array was cut up: `decode` makes a chunk of its bytes, `stored` is how many these are where nothing is packed."""

    shape: Shape
    dtype: np.dtype
    chunk: Shape
    key: Callable[[Sequence[int]], str]
    decode: Decode
    stored: int | None
    fill: object

    @property
    def counts(self) -> Shape:
        return tuple(-(-size // step) for size, step in zip(self.shape, self.chunk, strict=True))


def array(name: str, values: Mapping[str, Value], folder: Folder, budget: Budget, *, whole: bool) -> LazyTensor:
    """The array of that name in a store; its chunks are read and unpacked when it is made.

    `whole`: a chunk that is not there is an error, as files of today have it; else it is all fill value, which older ones
    left out. Raises CheckpointError, to which the caller adds file and key.
    """
    for part, lazy_items in ((".zarray", _version_2), ("zarr.json", _version_3)):
        if f"{name}/{part}" in values:
            text = folder.fetch(values[f"{name}/{part}"])
            if len(text) > limits.LIMITS.line:  # very many names may lead to one large text
                raise CheckpointError("unsupported", f"{part} takes {len(text)} bytes, more than {limits.LIMITS.line}")
            grid = lazy_items(parse(text, part), whole)
            break
    else:
        raise folder.missing(f"{name}/.zarray")
    chunks = _chunks(name, grid, values, folder, budget, whole)

    def load() -> NDArray:
        made = as_native_contiguous(_assembled(grid, chunks, folder))
        if made.dtype.kind == "b" and made.size and made.view(np.uint8).max() > 1:
            _corrupt("a bool array holds bytes other than 0 and 1")
        return made

    return LazyTensor(grid.shape, grid.dtype, load)


def _chunks(
    name: str, grid: _Grid, values: Mapping[str, Value], folder: Folder, budget: Budget, whole: bool
) -> list[tuple[tuple[int, ...], Value]]:
    """Where every chunk of the grid is, after what they take was counted."""
    count, cells = math.prod(grid.counts), max(math.prod(grid.chunk), 1)
    if whole and count > len(values):
        _corrupt(f"shape {grid.shape} in chunks of {grid.chunk} makes {count} chunks, and the file has {len(values)} entries")
    # A chunk that is left out costs no byte of the file, and a look at where it should be.
    budget.spend(max(math.prod(grid.shape), count * cells) * grid.dtype.itemsize + count * _LOOK)
    found = []
    for index in itertools.product(*map(range, grid.counts)):
        key = f"{name}/{grid.key(index)}"
        if key in values:
            if grid.stored is not None and length(values[key]) != grid.stored:
                _corrupt(f"{key} has {length(values[key])} bytes, expected {grid.stored}")
            found.append((index, values[key]))
        elif whole or folder.is_linked(key):
            raise folder.missing(key)
    if len(found) < count and str(grid.fill) not in _ZEROS:  # as text, in which -0.0 is another
        raise CheckpointError("unsupported", f"chunks are left out, and stand for {_told(grid.fill)}")
    return found


_LOOK = 64
_ZEROS = ("None", "0", "0.0", "[0, 0]", "[0.0, 0.0]", "False")


def _assembled(grid: _Grid, chunks: Sequence[tuple[tuple[int, ...], Value]], folder: Folder) -> NDArray:
    return _joined(grid, ((index, folder.fetch(value)) for index, value in chunks))


def _joined(grid: _Grid, chunks: Iterable[tuple[tuple[int, ...], memoryview]]) -> NDArray:
    """The array of its chunks; what no chunk has is zero."""
    if grid.chunk == grid.shape:
        for _, data in chunks:
            return grid.decode(data, grid.shape)
    target = np.zeros(grid.shape, grid.dtype)
    for index, data in chunks:
        begins = [at * step for at, step in zip(index, grid.chunk, strict=True)]
        place = target[tuple(slice(begin, begin + step) for begin, step in zip(begins, grid.chunk, strict=True))]
        place[...] = grid.decode(data, place.shape)[tuple(map(slice, place.shape))]
    return target


def _version_2(found: dict[str, Any], whole: bool) -> _Grid:
    _only(
        found, {"zarr_format": 2, "order": "C", "filters": None}, "chunks compressor dimension_separator dtype fill_value shape"
    )
    dtype = _dtype(found.get("dtype"), _TYPESTRS)
    shape = _dims(found.get("shape"), "shape")
    chunk = _dims(found.get("chunks"), "chunks", len(shape))
    compressor, separator = found.get("compressor"), found.get("dimension_separator", ".")
    if compressor is not None and not (type(compressor) is dict and compressor.get("id") == "zstd"):
        _unsupported(f"is compressed by {_told(compressor)}, expected zstd or nothing")
    if separator not in (".", "/"):
        _unsupported(f"has names of chunks separated by {_told(separator)}")

    def key(index: Sequence[int]) -> str:
        return separator.join(map(str, index)) or "0"

    decode, stored = _plain(dtype, chunk, compressor is not None)
    return _Grid(shape, dtype, chunk, key, decode, stored, found.get("fill_value"))


def _version_3(found: dict[str, Any], whole: bool) -> _Grid:
    known = "attributes chunk_grid chunk_key_encoding codecs data_type dimension_names fill_value shape storage_transformers"
    _only(found, {"zarr_format": 3, "node_type": "array"}, known)
    dtype = _dtype(found.get("data_type"), DTYPES)
    shape = _dims(found.get("shape"), "shape")
    chunk = _dims(_configured(found.get("chunk_grid"), "regular").get("chunk_shape"), "chunk_shape", len(shape))
    if _configured(found.get("chunk_key_encoding"), "default").get("separator", "/") != "/":
        _unsupported("has names of chunks that are not separated by /")
    if found.get("storage_transformers"):
        _unsupported("has storage transformers")

    def key(index: Sequence[int]) -> str:
        return "/".join(["c", *map(str, index)])

    decode, stored = _codecs(found.get("codecs"), dtype, chunk, whole)
    return _Grid(shape, dtype, chunk, key, decode, stored, found.get("fill_value"))


def _codecs(codecs: object, dtype: np.dtype, chunk: Shape, whole: bool) -> tuple[Decode, int | None]:
    """How a chunk is made of its bytes, by the chain of codecs that zarr 3 tells, and how many bytes where that is certain."""
    names = _names(codecs)
    assert isinstance(codecs, list)
    if names in (["bytes"], ["bytes", "zstd"]):
        if _configured(codecs[0], "bytes").get("endian", "little") != "little":
            _unsupported("is big-endian")
        return _plain(dtype, chunk, len(names) == 2)
    if names != ["sharding_indexed"]:
        _unsupported(f"goes through {printable(', '.join(names)[:80])}, expected bytes and zstd, or shards of these")
    told = _configured(codecs[0], "sharding_indexed")
    inner = _dims(told.get("chunk_shape"), "chunk_shape", len(chunk))
    index_names = _names(told.get("index_codecs"))
    at_start = told.get("index_location", "end") == "start"
    if index_names not in (["bytes"], ["bytes", "crc32c"]) or told.get("index_location", "end") not in ("start", "end"):
        _unsupported(f"has an index of shards that goes through {printable(', '.join(index_names)[:80])}")
    if any(size % step for size, step in zip(chunk, inner, strict=True)):
        _corrupt(f"shards of {chunk} are cut into pieces of {inner}, which do not fit")
    if _names(told.get("codecs")) == names:
        _unsupported("has shards in shards")
    decode, stored = _codecs(told.get("codecs"), dtype, inner, whole)
    grid = _Grid(chunk, dtype, inner, str, decode, stored, None)
    return lambda data, within: _unsharded(data, within if whole else None, grid, len(index_names) == 2, at_start), None


def _unsharded(data: memoryview, whole: Shape | None, grid: _Grid, checked: bool, at_start: bool) -> NDArray:
    """A shard: pieces one after another, and an index that says where each is.

    `whole`: the part of the shard of which no piece may be missing.
    """
    count = math.prod(grid.counts)
    size = 16 * count + 4 * checked
    if size > len(data):
        _corrupt(f"a shard of {len(data)} bytes has no room for the index of its {count} pieces")
    index = data[:size] if at_start else data[len(data) - size :]
    if checked and int.from_bytes(index[-4:], "little") != crc32c(index[:-4]):
        _corrupt("the checksum of a shard's index is another: its bytes have changed")
    places = np.frombuffer(index, "<u8", 2 * count).reshape(count, 2).tolist()
    pieces = []
    for at, (offset, taken) in zip(itertools.product(*map(range, grid.counts)), places, strict=True):
        if (offset, taken) == (_NOWHERE, _NOWHERE):
            begins = (step * place for step, place in zip(grid.chunk, at, strict=True))
            if whole is not None and all(begin < end for begin, end in zip(begins, whole, strict=True)):
                _corrupt("a piece of a shard is missing")
            continue
        if offset + taken > len(data):
            _corrupt(f"a piece of a shard is at bytes {offset} to {offset + taken} of {len(data)}")
        pieces.append((at, data[offset : offset + taken]))
    return _joined(grid, pieces)


def _plain(dtype: np.dtype, chunk: Shape, packed: bool) -> tuple[Decode, int | None]:
    size = math.prod(chunk) * dtype.itemsize

    def decode(data: memoryview, within: Shape) -> NDArray:
        return view(memoryview(unzstd(data, size)) if packed else data, dtype, chunk)

    return decode, None if packed else size


def _only(found: dict[str, Any], fixed: dict[str, object], others: str) -> None:
    """Raise CheckpointError for an entry of a description that is not known, or has not the one value that is."""
    for key, value in found.items():
        if key in fixed and value != fixed[key]:
            _unsupported(f"has {key} {_told(value)}, expected {fixed[key]!r}")
        if key not in fixed and key not in others.split():
            _unsupported(f"has {key!r:.40}, which is not known")


def _dtype(name: object, known: Mapping[str, np.dtype]) -> np.dtype:
    if not isinstance(name, str) or name not in known:
        _unsupported(f"is of dtype {_told(name)}")
    return known[name]


def _dims(dims: object, what: str, rank: int | None = None) -> Shape:
    """A shape, or the shape of a chunk, which has the array's rank and nothing that is 0."""
    least = 0 if rank is None else 1
    if not isinstance(dims, list) or len(dims) > limits.LIMITS.ndim or rank not in (None, len(dims)):
        count = f"up to {limits.LIMITS.ndim}" if rank is None else rank
        _corrupt(f"{what} is {_told(dims)}, expected a list of {count} whole numbers")
    if not all(type(size) is int and least <= size < 1 << 62 for size in dims):
        _corrupt(f"{what} is {_told(dims)}, expected whole numbers from {least} on")
    return tuple(dims)


def _configured(entry: object, name: str) -> dict[str, Any]:
    """The configuration of one of zarr 3's extensions, which must be the one of that name."""
    if not isinstance(entry, dict) or entry.get("name") != name:
        _unsupported(f"has {_told(entry)}, expected {name}")
    found = entry.get("configuration", {})
    if not isinstance(found, dict):
        _corrupt(f"the configuration of {name} is no object")
    return found


def _names(codecs: object) -> list[str]:
    if not isinstance(codecs, list) or not all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in codecs):
        _corrupt(f"codecs are {_told(codecs)}, expected a list of names")
    return [each["name"] for each in codecs]


def _told(value: object) -> str:
    """A value of a description in an error's line; a nested one may have no end."""
    return f"{value!r:.60}" if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _unsupported(message: str) -> NoReturn:
    raise CheckpointError("unsupported", f"the array {message}; save it again with Orbax")


def _corrupt(message: str) -> NoReturn:
    raise CheckpointError("corrupt", message)
