"""Read the tensors of a file: its format, and which of its tensors the caller means."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.formats import Format, format_named, sniff
from acon_core.checkpoint.names import select, strip_wrappers
from acon_core.checkpoint.query import NetworkQuery
from acon_core.errors import AconError, CheckpointError
from acon_core.spec import BatchNorm


def read_file(path: str | os.PathLike[str], query: NetworkQuery = NetworkQuery()) -> tuple[Format, CheckpointFile]:
    """Read a file by its content, whatever its name. No code in the file is executed.

    Parameters
    ----------
    path : path-like
        A checkpoint of any format in `formats`.
    query : NetworkQuery
        Which tensors of the file: its `key`, `strip_prefix`, `ignore` and `format`.

    Returns
    -------
    format : Format
        The format, without a dialect. If several formats share the encoding, that whose names the
        tensors have, or the first of them.
    file : CheckpointFile
        The tensors under the names in the file, without those of wrapper modules.

    Raises
    ------
    AconError
        If there is no such file, or no tensor that the query asks for.
    CheckpointError
        If the file is unsafe, corrupt, of no known format, or holds several state dicts.
    """
    format, file = read_as_named(path, query)
    return format, strip_wrappers(file)


def read_as_named(path: str | os.PathLike[str], query: NetworkQuery = NetworkQuery()) -> tuple[Format, CheckpointFile]:
    """Read a file as `read_file` does, with the names of wrapper modules."""
    path = Path(path)
    try:
        path.stat()
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        raise AconError(f"{printable(str(path))}: no such file, or it is not accessible: {error}") from error
    first, *others = formats_of(path, query)
    format, file = first, _read(first, path, query.key)
    for other in others:
        if not _has_statistics(first, file.tensors) and _has_statistics(other, file.tensors):
            format, file = other, _read(other, path, query.key)
            break
    return format, _selected(path, file, query)


def _read(format: Format, path: Path, key: str) -> CheckpointFile:
    """Read with the format's codec; one without dicts in its files need not take a key."""
    if not key or "key" in inspect.signature(format.codec.read).parameters:
        return format.codec.read(path, key) if key else format.codec.read(path)
    return format.codec.read(path).under(key, path)


def _selected(path: Path, file: CheckpointFile, query: NetworkQuery) -> CheckpointFile:
    try:
        return select(file, query.strip_prefix, query.ignore)
    except AconError as error:
        raise error.with_message(f"{path}: {error}") from None


def formats_of(path: Path, query: NetworkQuery) -> list[Format]:
    """Return the formats that a file's content matches, or that of them which the query names."""
    matches = sniff(path)
    if query.format is None:
        return matches
    format_named(query.format, "--format")
    chosen = [each for each in matches if each.name == query.format]
    if not chosen:
        names = " or ".join(each.name for each in matches)
        raise CheckpointError("unsupported", f"{path}: --format {query.format}: it is not; its content is of format {names}")
    return chosen


def _has_statistics(format: Format, names: Iterable[str]) -> bool:
    """Whether some tensors have the format's name for the running mean of a BatchNorm."""
    slot = format.layout.slots(BatchNorm(1))["running_mean"]
    return slot is not None and any(f".{name}".endswith(f".{slot.name}") for name in names)


def read_as(formats: Iterable[Format], path: Path, query: NetworkQuery) -> Iterator[tuple[Format, CheckpointFile]]:
    """Read a file in each of the formats that can."""
    for format in formats:
        with suppress(CheckpointError):
            yield format, strip_wrappers(_selected(path, _read(format, path, query.key), query))
