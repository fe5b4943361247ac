"""JSON in checkpoint files, parsed strictly, and metadata stored as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from acon_core.checkpoint.codecs import limits
from acon_core.errors import CheckpointError


def encode_metadata(metadata: Mapping[str, str]) -> bytes:
    """Encode metadata as ASCII JSON sorted by name: equal entries give equal bytes.

    Raises CheckpointError for entries that `decode_metadata` would refuse.
    """
    encoded = json.dumps(dict(metadata), sort_keys=True, separators=(",", ":")).encode("ascii")
    decode_metadata(encoded, "the metadata to be written")
    return encoded


def decode_metadata(text: bytes | memoryview, where: str) -> dict[str, str]:
    """Decode the metadata that `encode_metadata` wrote.

    Raises CheckpointError for anything else. The message begins with `where`.
    """
    entries = parse(text, f"{where}: its metadata")
    if not all(type(value) is str and is_encodable(value) for value in entries.values()):
        raise CheckpointError("corrupt", f"{where}: its metadata must map names to text")
    return entries


def parse(text: bytes | memoryview, where: str) -> dict[str, Any]:
    """Parse one JSON object in UTF-8, without duplicate names and without NaN or Infinity.

    Raises CheckpointError for anything else. The message begins with `where`.
    """
    if len(text) > limits.LIMITS.header_bytes:
        raise CheckpointError("unsupported", f"{where} takes {len(text)} bytes, more than {limits.LIMITS.header_bytes}")
    try:
        value = json.loads(str(text, "utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError("corrupt", f"{where} is not valid JSON: {str(error)[:80]}") from None
    if type(value) is not dict:
        raise CheckpointError("corrupt", f"{where} is not a JSON object")
    if not is_encodable("".join(value)):
        raise CheckpointError("corrupt", f"{where} has a name with an unpaired surrogate")
    return value


def is_encodable(text: str) -> bool:
    """Whether text can be encoded as UTF-8: JSON and pickles can spell unpaired surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("duplicate name")
    return entries


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")
