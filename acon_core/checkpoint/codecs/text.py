"""Names from a file as an error or a note prints them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice


def printable(key: object) -> str:
    """A name as an error prints it: on one line, of bounded length, without a terminal's control characters."""
    return key[:200] if isinstance(key, str) and key.isprintable() else f"{key!r:.200}"


def format_names(keys: Iterable[object]) -> str:
    """The first few names of many, for a note or an error."""
    shown = [f"{key!r:.60}" for key in islice(keys, 9)]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "")
