"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from acon_core.errors import AconError


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` whole, or not at all: on any error the old file stays and no other is left behind.

    The bytes go to a new file in the same folder, reach the disk, and then take the name. A symbolic link at `path` is
    replaced, never followed. Raises AconError naming the path where the system refuses.
    """
    path = Path(path)
    temporary = path.parent / f".acon-{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        if path.is_dir():
            raise AconError(f"{path}: is a folder; give the name of a file")
        descriptor = os.open(temporary, flags, 0o666)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:  # an interrupt from the keyboard too must leave nothing behind
        temporary.unlink()
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        raise


def _unwritable(path: Path, error: OSError) -> AconError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "the disk is full: make room" if full else "check that the folder exists and may be written to"
    return AconError(f"{path}: cannot be written: {error.strerror or error}; {hint}; nothing was changed")
