"""The files of a folder whose names come from other files of it: nothing outside of it is opened, no link is followed."""

from __future__ import annotations

import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.text import printable
from acon_core.errors import AconError, CheckpointError


@dataclass(frozen=True)
class Span:
    """Bytes of a file of the folder."""

    file: str
    offset: int
    length: int


# A value of a store of keys: where it is, or itself.
Value = Span | bytes


def length(value: Value) -> int:
    """How many bytes it has."""
    return value.length if isinstance(value, Span) else len(value)


class Folder:
    """A folder's files by their names, which are relative and have `/` between folders, with their sizes.

    They are listed once and only what was listed is opened, so that no name that a file gives can lead out of the folder.
    Raises CheckpointError naming the folder, AconError where the system refuses.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, int] = {}
        self.links: list[str] = []
        try:
            self._list(root, "", 0)
        except OSError as error:
            raise AconError(
                f"{error.filename or root}: cannot be read: {error.strerror}; check the path and its permissions"
            ) from error
        if self.size > limits.LIMITS.file_bytes:
            raise CheckpointError("unsupported", f"{root}: {self.size} bytes, more than {limits.LIMITS.file_bytes}")

    def _list(self, folder: Path, above: str, depth: int) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = f"{above}{entry.name}"
                if len(self.files) >= limits.LIMITS.members or depth > limits.LIMITS.depth:
                    raise CheckpointError(
                        "corrupt", f"{self.root}: more than {limits.LIMITS.members} files, or nested too deep"
                    )
                if entry.is_dir(follow_symlinks=False):
                    self._list(folder / entry.name, f"{name}/", depth + 1)
                elif entry.is_file(follow_symlinks=False):
                    self.files[name] = entry.stat(follow_symlinks=False).st_size
                else:
                    self.links.append(name)

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(self.files.values())

    def span(self, name: str) -> Span:
        """All of a file. Raises CheckpointError when there is none of that name."""
        if name not in self.files:
            raise self.missing(name)
        return Span(name, 0, self.files[name])

    def is_linked(self, name: str) -> bool:
        """Whether a name leads over a link or to a device."""
        return any(f"{name}/".startswith(f"{link}/") for link in self.links)

    def missing(self, name: str) -> CheckpointError:
        """The error of a key that is wanted and not there, or is a link."""
        if self.is_linked(name):
            return CheckpointError(
                "unsafe", f"{printable(name)}: a link or a device, which is not followed; copy the file there"
            )
        return CheckpointError("corrupt", f"{printable(name)}: is missing")

    def part(self, name: str, offset: int, count: int) -> Span:
        """Some bytes of a file. Raises CheckpointError when it does not have them."""
        whole = self.span(name)
        if offset + count > whole.length:
            raise CheckpointError(
                "corrupt", f"{printable(name)}: bytes {offset} to {offset + count} are wanted, and it has {whole.length}"
            )
        return Span(name, offset, count)

    def fetch(self, value: Value) -> memoryview:
        """The bytes of a value, mapped. Raises CheckpointError when the file is no longer what was listed."""
        if isinstance(value, bytes):
            return memoryview(value)
        if value.length == 0:
            return memoryview(b"")
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(self.root / value.file, flags)
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode) or found.st_size < value.offset + value.length:
                    raise CheckpointError("corrupt", f"{printable(value.file)}: has changed since it was listed")
                mapped = mmap.mmap(descriptor, value.offset + value.length, access=mmap.ACCESS_READ)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise CheckpointError("corrupt", f"{printable(value.file)}: cannot be read: {error.strerror or error}") from error
        return memoryview(mapped)[value.offset :]
