"""Memory-mapped checkpoint files: pages are loaded when they are touched."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import cast

from acon_core.checkpoint.codecs import limits
from acon_core.errors import AconError, CheckpointError

_SEARCHED = 1 << 20  # bytes at each end of a file


class _MappedFile(mmap.mmap):
    """A memory map that knows the path of its file."""

    path: Path


def map_file(path: Path) -> memoryview:
    """Map a file into memory.

    Raises CheckpointError if it is empty or larger than `LIMITS.file_bytes`, AconError if it is not
    a regular file or cannot be opened.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise AconError(f"{path}: expected a file, found a folder, a device or a pipe; give the name of a file")
        if size > limits.LIMITS.file_bytes:
            raise CheckpointError("unsupported", f"{path}: {size} bytes, more than {limits.LIMITS.file_bytes}")
        if size == 0:
            raise CheckpointError("corrupt", f"{path}: the file is empty; copy or download it again")
        with path.open("rb") as file:
            mapped = _MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ)
            mapped.path = path
            return memoryview(mapped)
    except OSError as error:
        raise AconError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from error


def check_not_truncated(owner: object) -> None:
    """Raise CheckpointError if a mapped file became shorter: touching lost pages kills the process.

    `owner` is what owns the buffer; only maps made by `map_file` are checked. A truncation between
    this check and the copy of the bytes cannot be caught.
    """
    if isinstance(owner, _MappedFile) and owner.size() < len(owner):
        raise CheckpointError(
            "corrupt",
            f"{owner.path}: truncated from {len(owner)} to {owner.size()} bytes while it was read; copy it again",
        )


def ends_contain(data: memoryview, marker: bytes) -> bool:
    """Whether the first or the last MiB of a mapped file contains `marker`."""
    file = cast("mmap.mmap", data.obj)
    return file.find(marker, 0, _SEARCHED) >= 0 or file.find(marker, max(len(data) - _SEARCHED, 0)) >= 0
