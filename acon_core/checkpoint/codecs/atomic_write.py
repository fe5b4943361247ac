"""Files that are written completely or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from acon_core.checkpoint.codecs.text import printable
from acon_core.errors import AconError

_KINDS = {stat.S_ISCHR: "a device", stat.S_ISBLK: "a device", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}


def check_target(path: Path) -> None:
    """Raise AconError unless a file can take this name: where nothing is, or a regular file.

    A renamed file would replace a device, a pipe or a socket itself, and `/dev/stdout`, a link into
    `/proc`, even where it leads to a regular file.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        streams = path.is_symlink() and path.readlink().parts[:2] == ("/", "proc")
    except (FileNotFoundError, NotADirectoryError):  # also a link to nothing, which is replaced
        return
    except (OSError, ValueError) as error:  # a loop of links, a folder that may not be searched, a NUL
        raise AconError(f"{printable(str(path))}: cannot be written: {error}; nothing was changed") from error
    if stat.S_ISDIR(mode):
        raise AconError(f"{path}: is a folder; give the name of a file")
    if not stat.S_ISREG(mode) or streams:
        kind = next((name for holds, name in _KINDS.items() if holds(mode)), "a stream of a process")
        raise AconError(f"{path}: is {kind}, not a regular file; give the name of a file; nothing was changed")


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `path` only when the block succeeds.

    The bytes go to a temporary file in the same directory, are flushed to disk, and the file is
    then renamed. On any error the old file stays and the temporary file is removed. A symbolic link
    at `path` is replaced, never followed. Raises AconError naming `path` if it cannot be written or
    is no regular file.
    """
    path = Path(path)
    temporary = path.parent / f".acon-{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    check_target(path)
    try:
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
