"""Text from a file as errors and notes print it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

from acon_core.errors import CheckpointError


def printable(key: object) -> str:
    """Format a name from a file for an error: one line of at most 200 printable characters."""
    return key[:200] if isinstance(key, str) and key.isprintable() else f"{key!r:.200}"


def format_names(keys: Iterable[object]) -> str:
    """Format the first eight names of many for an error or a note."""
    names = [f"{key!r:.60}" for key in islice(keys, 9)]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


@contextmanager
def error_prefix(*place: object) -> Iterator[None]:
    """Prefix a CheckpointError raised inside with its place: the file, then names from the file."""
    try:
        yield
    except CheckpointError as error:
        path, *keys = place
        prefix = ": ".join([str(path), *map(printable, keys)])
        raise CheckpointError(error.kind, f"{prefix}: {error}") from None
