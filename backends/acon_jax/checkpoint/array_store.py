"""Read the arrays of an Orbax folder with TensorStore, which decodes OCDBT, zarr 2 and zarr 3.

TensorStore follows links, waits for pipes, and allocates what the metadata asks for. Therefore the
folder is searched for links and devices first, and the metadata of an array is checked before
TensorStore uses it. Only the drivers `file` and `ocdbt` are used, so the network is out of reach.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.arrays import as_native_contiguous
from acon_core.checkpoint.codecs.limits import Budget
from acon_core.checkpoint.codecs.strict_json import parse
from acon_core.checkpoint.codecs.text import ErrorPrefix, printable
from acon_core.errors import AconError, CheckpointError
from acon_core.tensors import LazyTensor
from acon_jax.checkpoint.msgpack import DTYPES

MANIFEST = "manifest.ocdbt"
_DRIVERS = {".zarray": "zarr", "zarr.json": "zarr3"}
_CODECS = ("bytes", "crc32c", "sharding_indexed", "zstd")
# Bytes of budget per chunk: TensorStore takes memory and time even for a missing one.
_CHUNK_COST = 1024
# Each chunk is read once. The nodes of OCDBT are needed for every chunk, however large they are.
_CONTEXT = {"cache_pool": {"total_bytes_limit": 0}, "cache_pool#nodes": {"total_bytes_limit": 1 << 30}}


def list_files(root: Path) -> dict[str, int]:
    """Return the size of every file below `root` by its relative name.

    Raises
    ------
    CheckpointError
        A link or a device, which TensorStore would follow or wait for; or more files, levels or
        bytes than the limits allow.
    AconError
        A folder cannot be read.
    """
    files: dict[str, int] = {}
    folders = [""]
    try:
        while folders:
            above = folders.pop()
            with os.scandir(root / above) as entries:
                found = sorted(islice(entries, limits.LIMITS.members + 1), key=lambda entry: entry.name)
            for entry in found:
                name = f"{above}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{name}/")
                elif entry.is_file(follow_symlinks=False):
                    files[name] = entry.stat(follow_symlinks=False).st_size
                else:
                    raise CheckpointError(
                        "unsafe", f"{root}: {printable(name)}: is a link or a device; replace it by a copy of the file"
                    )
            if len(files) + len(folders) > limits.LIMITS.members or above.count("/") > limits.LIMITS.depth:
                raise CheckpointError(
                    "corrupt", f"{root}: more than {limits.LIMITS.members} files or {limits.LIMITS.depth} levels of folders"
                )
    except OSError as error:
        raise AconError(
            f"{error.filename or root}: cannot be read: {error.strerror}; check the path and its permissions"
        ) from error
    if sum(files.values()) > limits.LIMITS.file_bytes:
        raise CheckpointError("unsupported", f"{root}: {sum(files.values())} bytes, more than {limits.LIMITS.file_bytes}")
    return files


class ArrayStore:
    """The arrays of one folder by name: an OCDBT database, else a folder per array.

    Parameters
    ----------
    root
        The folder.
    files
        Its files and their sizes, from `list_files`.
    complete
        Whether a missing chunk is an error. If not, it is filled with the fill value: older
        versions of Orbax do not store such chunks.

    Raises
    ------
    CheckpointError
        TensorStore is not installed.
    """

    def __init__(self, root: Path, files: Mapping[str, int], *, complete: bool) -> None:
        self._root, self._files, self._complete = root, files, complete
        self._folder = f"{root.absolute().as_posix()}/"
        self._budget = Budget(sum(files.values()))
        self._tensorstore = _import_tensorstore(root)
        self._context = self._tensorstore.Context(_CONTEXT)
        self._base: dict[str, Any] = {"driver": "file", "path": self._folder}
        if MANIFEST in files:
            self._base = {"driver": "ocdbt", "base": self._base, "path": "", "cache_pool": "cache_pool#nodes"}
        self._values = self._call(str(root), "corrupt", self._tensorstore.KvStore.open, self._base, context=self._context)

    def array(self, name: str) -> LazyTensor:
        """Return an array, whose chunks are read when it is loaded. Raises CheckpointError."""
        where = f"{self._root}: {printable(name)}"
        driver, metadata = self._read_metadata(name, where)
        _check_metadata(metadata, where)
        spec = {
            "driver": driver,
            "kvstore": self._base | {"path": f"{self._base['path']}{name}/"},
            "metadata": metadata,
            "assume_metadata": True,  # use what was checked; do not read it again
            "fill_missing_data_reads": not self._complete,
        }
        store = self._call(where, "unsupported", self._tensorstore.open, spec, context=self._context, read=True)
        dtype = DTYPES.get(store.dtype.name)
        if dtype is None:
            _unsupported(where, f"dtype {store.dtype.name}, expected one of {', '.join(DTYPES)}")
        self._spend(store, dtype, where)
        folder = Path(self._folder) if MANIFEST in self._files else Path(self._folder) / name

        def load() -> NDArray:
            list_files(folder)  # a file may have become a link or a pipe since the first search
            return as_native_contiguous(np.asarray(self._call(where, "corrupt", store.read, order="C")))

        return LazyTensor(tuple(store.shape), dtype, load)

    def _read_metadata(self, name: str, where: str) -> tuple[str, dict[str, Any]]:
        """Return the driver of an array and its metadata."""
        for part, driver in _DRIVERS.items():
            key = f"{name}/{part}"
            size, text = self._files.get(key, 0), b""
            if size <= limits.LIMITS.line:
                found = self._call(where, "corrupt", self._values.read, key)
                if found.state != "value":
                    continue
                size, text = len(found.value), found.value
            if size > limits.LIMITS.line:
                _unsupported(where, f"{part} takes {size} bytes, expected at most {limits.LIMITS.line}")
            return driver, parse(text, f"{where}: {part}")
        raise CheckpointError("corrupt", f"{where}: {' or '.join(_DRIVERS)} is missing; copy the whole folder again")

    def _spend(self, store: Any, dtype: np.dtype, where: str) -> None:
        """Count the memory of an array and of its chunks before anything is read."""
        stored, read = (chunk.shape or () for chunk in (store.chunk_layout.write_chunk, store.chunk_layout.read_chunk))
        cells = math.prod(-(-size // step) * step for size, step in zip(store.shape, stored, strict=True))
        with ErrorPrefix(where):
            self._budget.spend(cells * dtype.itemsize + cells // math.prod(read) * _CHUNK_COST)

    def _call(self, where: str, kind: Literal["corrupt", "unsupported"], function: Any, *args: Any, **options: Any) -> Any:
        """Wait for the result of a call. Raises CheckpointError with the error of TensorStore."""
        try:
            return function(*args, **options).result()
        except (ValueError, OverflowError, RuntimeError) as error:
            said = re.split(r" \[(?:tensorstore_spec|source locations)=", str(error))[0].replace(self._folder, "")
            said = said if said.isprintable() else repr(said)
            said = said if len(said) <= 300 else f"{said[:150]} ... {said[-150:]}"
            raise CheckpointError(kind, f"{where}: TensorStore: {said}; copy the whole folder again or save it anew") from None


def _import_tensorstore(root: Path) -> Any:
    try:
        return import_module("tensorstore")
    except ImportError as error:
        raise CheckpointError(
            "unsupported", f"{root}: reading an Orbax folder needs TensorStore: {error}; pip install 'acon-ports[orbax]'"
        ) from None


def _check_metadata(metadata: dict[str, Any], where: str) -> None:
    """Raise CheckpointError for sizes that are no sizes, and for codecs that Orbax does not use."""
    grid = _configuration(metadata.get("chunk_grid"))
    for what, sizes in (("shape", metadata.get("shape")), ("chunk shape", metadata.get("chunks", grid.get("chunk_shape")))):
        if not isinstance(sizes, list) or len(sizes) > limits.LIMITS.ndim:
            raise CheckpointError(
                "corrupt", f"{where}: {what} is {_printed(sizes)}, expected a list of up to {limits.LIMITS.ndim} whole numbers"
            )
        if not all(type(size) is int and 0 <= size < 1 << 62 for size in sizes):
            raise CheckpointError("corrupt", f"{where}: {what} is {_printed(sizes)}, expected whole numbers from 0 on")
    compressor = metadata.get("compressor")
    names = [] if compressor is None else [compressor.get("id") if isinstance(compressor, dict) else compressor]
    for name in (*names, *_codec_names(metadata.get("codecs"))):
        if name not in _CODECS:
            _unsupported(where, f"codec {_printed(name)}, expected one of {', '.join(_CODECS)}")


def _codec_names(codecs: object) -> Iterator[object]:
    """Yield the names of the codecs of zarr 3, with those inside of a shard and of its index."""
    for codec in codecs if isinstance(codecs, list) else []:
        yield codec.get("name") if isinstance(codec, dict) else codec
        for inner in ("codecs", "index_codecs"):
            yield from _codec_names(_configuration(codec).get(inner))


def _configuration(extension: object) -> dict[str, Any]:
    found = extension.get("configuration") if isinstance(extension, dict) else None
    return found if isinstance(found, dict) else {}


def _printed(value: object) -> str:
    """Return a value of the metadata for an error; nested ones may be deep."""
    flat = value if isinstance(value, list) else [value]
    simple = all(isinstance(each, str | int | float | None) for each in flat)
    return printable(f"{value!r:.60}") if simple else f"a nested {type(value).__name__}"


def _unsupported(where: str, message: str) -> NoReturn:
    raise CheckpointError("unsupported", f"{where}: {message}; save it again with Orbax")
