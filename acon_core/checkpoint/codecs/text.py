"""Text from a file as errors and notes print it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from acon_core.errors import CheckpointError


def printable(key: object) -> str:
    """Format a name from a file for an error: one line of at most 200 printable characters."""
    return key[:200] if isinstance(key, str) and key.isprintable() else f"{key!r:.200}"


def format_names(keys: Iterable[object]) -> str:
    """Format the first eight names of many for an error or a note."""
    names = [f"{key!r:.60}" for key in islice(keys, 9)]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


class ErrorPrefix:
    """A context that prefixes a CheckpointError with its place: the file, then names from it."""

    def __init__(self, path: object, *names: object) -> None:
        self.path, self.names = path, names

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, CheckpointError):
            place = ": ".join([str(self.path), *map(printable, self.names)])
            raise CheckpointError(error.kind, f"{place}: {error}") from None
