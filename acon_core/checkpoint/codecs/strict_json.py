"""The metadata that travels with tensors, as JSON: one object of text by name, the same bytes for the same entries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from acon_core.checkpoint.codecs import limits
from acon_core.errors import CheckpointError


def encode(metadata: Mapping[str, str]) -> bytes:
    """The entries as JSON in ASCII, sorted by name. Raises CheckpointError for what `decode` would refuse."""
    encoded = json.dumps(dict(metadata), sort_keys=True, separators=(",", ":")).encode("ascii")
    decode(encoded, "the metadata to be written")
    return encoded


def decode(text: bytes | memoryview, where: str) -> dict[str, str]:
    """The entries that `encode` wrote. Raises CheckpointError, beginning with `where`, for anything else."""
    entries = parse(text, f"{where}: its metadata")
    if not all(type(value) is str and is_text(value) for value in entries.values()):
        raise CheckpointError("corrupt", f"{where}: its metadata must map names to text")
    return entries


def parse(text: bytes | memoryview, where: str) -> dict[str, Any]:
    """One JSON object, read strictly: in UTF-8, no name twice, nothing that JSON does not have.

    Raises CheckpointError, beginning with `where`.
    """
    if len(text) > limits.LIMITS.header_bytes:
        raise CheckpointError("unsupported", f"{where} takes {len(text)} bytes, more than {limits.LIMITS.header_bytes}")
    try:
        found = json.loads(str(text, "utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError("corrupt", f"{where} is not JSON as the format has it: {str(error)[:80]}") from None
    if type(found) is not dict:
        raise CheckpointError("corrupt", f"{where} is not a JSON object")
    if not is_text("".join(found)):
        raise CheckpointError("corrupt", f"{where} has a name that is not text")
    return found


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: JSON can spell half of a surrogate pair, which is no letter."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")
