"""Files that are written completely or not at all."""

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
    """Open a file for writing that replaces `path` only when the block succeeds.

    The bytes go to a temporary file in the same directory, are flushed to disk, and the file is
    then renamed. On any error the old file stays and the temporary file is removed. A symbolic link
    at `path` is replaced, never followed. Raises AconError naming `path` if it cannot be written.
    """
    path = Path(path)
    temporary = path.parent / f".acon-{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        if path.is_dir():
            raise AconError(f"{path}: is a folder; give the name of a file")
        descriptor = os.open(temporary, flags, 0o666)
    except OSError as error:
        raise _write_error(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:  # also KeyboardInterrupt
        temporary.unlink()
        if isinstance(error, OSError):
            raise _write_error(path, error) from error
        raise


def _write_error(path: Path, error: OSError) -> AconError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "the disk is full: free some space" if full else "check that the folder exists and is writable"
    return AconError(f"{path}: cannot be written: {error.strerror or error}; {hint}; nothing was changed")
