"""Formatting of untrusted names from a file for errors and notes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from acon_core.errors import CheckpointError


def printable(key: object) -> str:
    """Format a name from a file as one line of at most 200 printable characters."""
    return key[:200] if isinstance(key, str) and key.isprintable() else f"{key!r:.200}"


def escaped(text: object) -> str:
    """Return the whole text as one line: what cannot be printed, as escape sequences."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(text))


def whole_name(name: str) -> str:
    """Format the name of a tensor as one line: whole, unless no program made it."""
    shown = escaped(name)
    return shown if len(shown) <= 800 else f"{shown[:800]}..."


def format_names(keys: Iterable[object]) -> str:
    """Format names as a list, shortened to the first eight."""
    names = [f"{key!r:.60}" for key in islice(keys, 9)]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


class ErrorPrefix:
    """A context manager that prefixes a CheckpointError with its file and names from the file."""

    def __init__(self, path: object, *names: object) -> None:
        self.path, self.names = path, names

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, CheckpointError):
            place = ": ".join([str(self.path), *map(printable, self.names)])
            raise CheckpointError(error.kind, f"{place}: {error}") from None
