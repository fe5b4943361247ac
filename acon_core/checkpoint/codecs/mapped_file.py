"""Checkpoint files mapped into memory: a page is loaded when it is touched."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import cast

from acon_core.checkpoint.codecs import limits
from acon_core.errors import AconError, CheckpointError


class _Mapped(mmap.mmap):
    """A mapped file that knows its name."""

    path: Path


def map_file(path: Path) -> memoryview:
    """The bytes of a file, mapped and not read: a page is loaded when it is touched."""
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
            mapped = _Mapped(file.fileno(), 0, access=mmap.ACCESS_READ)
            mapped.path = path
            return memoryview(mapped)
    except OSError as error:
        raise AconError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from error


def check_still_there(mapped: object) -> None:
    """Raise CheckpointError where a mapped file was cut short since: to touch what it lost would end the process.

    `mapped`: what a buffer belongs to. What is lost between this and the copy of the bytes cannot be caught.
    """
    if isinstance(mapped, _Mapped) and mapped.size() < len(mapped):
        raise CheckpointError(
            "corrupt", f"{mapped.path}: {len(mapped)} bytes have become {mapped.size()} while it was read; copy it again"
        )


def contains(data: memoryview, mark: bytes) -> bool:
    """Whether the first or the last MiB of a mapped file has `mark` in it: what tells of a format stands at an end."""
    file = cast("mmap.mmap", data.obj)
    return file.find(mark, 0, 1 << 20) >= 0 or file.find(mark, max(len(data) - (1 << 20), 0)) >= 0
