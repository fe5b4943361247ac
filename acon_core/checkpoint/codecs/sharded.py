"""Safetensors in several files, as Hugging Face has them: an index in JSON says which file holds each tensor.

The index is the checkpoint's file, `model.safetensors.index.json`; its shards lie beside it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import numpy as np

from acon_core.checkpoint.codecs import safetensors_file
from acon_core.checkpoint.codecs.atomic_write import atomic_write
from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.codecs.mapped_file import contains, map_file
from acon_core.checkpoint.codecs.strict_json import is_text, parse
from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.codecs.zip_archive import is_plain
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor, LazyTensors, lazy_items

FRAMEWORK = ""
SUFFIXES = (".safetensors.index.json",)
IS_DIRECTORY = False
DTYPES = safetensors_file.DTYPES

SHARD_BYTES = 5_000_000_000
_TOTAL = "total_size"


def sniff(path: Path) -> bool:
    """Whether the content begins as a JSON object does and speaks of a `weight_map`."""
    data = map_file(path)
    return bytes(data[:64]).lstrip()[:1] == b"{" and contains(data, b'"weight_map"')


def read(path: Path) -> CheckpointFile:
    """Read an index and its shards; names come in the index's order.

    A shard is named by a plain name in the index's own folder. It is no link, or, as in Hugging Face's cache, index and
    shards are all links into one other folder. It holds the tensors that the index says, and no other. Metadata are the
    index's, as far as they are text. Raises CheckpointError.
    """
    path = Path(path)
    index = parse(map_file(path), f"{path}: the index")
    places, told = index.get("weight_map"), index.get("metadata", {})
    if type(places) is not dict or type(told) is not dict:
        raise CheckpointError("corrupt", f"{path}: expected an object as weight_map and as metadata")
    expected: dict[str, list[str]] = {}
    for key, name in places.items():
        expected.setdefault(_shard_name(path, key, name), []).append(key)
    found: dict[str, LazyTensor] = {}
    for name, keys in expected.items():
        held = _shard(path, name)
        differing = sorted(set(keys) ^ set(held))
        if differing:
            where = "the index" if differing[0] in keys else "the shard"
            raise CheckpointError(
                "corrupt",
                f"{path}: {printable(differing[0])}: only {where} says that it is in {name}; download all of them again",
            )
        found |= held
    tensors = {key: found[key] for key in places}
    metadata = {key: value for key, value in told.items() if type(value) is str and is_text(value)}
    total = sum(tensor.nbytes for tensor in tensors.values())
    differs = type(told.get(_TOTAL)) is int and told[_TOTAL] != total
    notes = [f"the index says {told[_TOTAL]} bytes in all, the tensors take {total}"] if differs else []
    return CheckpointFile(LazyTensors(tensors), metadata, notes)


def shards(path: Path) -> set[Path]:
    """The files beside an index that it names. Raises CheckpointError where it is no index."""
    places = parse(map_file(path), f"{path}: the index").get("weight_map")
    if type(places) is not dict:
        raise CheckpointError("corrupt", f"{path}: expected an object as weight_map")
    return {path.with_name(_shard_name(path, key, name)) for key, name in places.items()}


def write(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write shards of at most `shard_bytes` of tensors each, in the given order, and then the index; whole or not at all.

    A tensor larger than that gets a shard of its own. A shard's name has a hash of its bytes in it, so that new shards stand
    beside those of an older index until the new index takes the old one's place; the older shards are left where they are.
    Equal arguments give equal bytes. Raises CheckpointError for a name or a dtype that safetensors does not have.
    """
    path, entries = Path(path), dict(sorted((metadata or {}).items()))
    safetensors_file.check(tensors, path)
    if _TOTAL in entries:
        raise CheckpointError("unsupported", f"{path}: metadata {_TOTAL!r}: the format keeps this name for itself; rename it")
    lazies = lazy_items(tensors)
    groups = _groups(lazies, shard_bytes)
    made: list[Path] = []
    try:
        with atomic_write(path) as file:
            places: dict[str, str] = {}
            for number, keys in enumerate(groups, 1):
                # transformers takes no file that does not say whose layout it has; the canonical one is PyTorch's.
                group = LazyTensors({key: lazies[key] for key in keys})
                hashed, draft = _put(path.parent, group, {"format": "pt", **entries}, made)
                stem = path.name.removesuffix(SUFFIXES[0])
                shard = path.with_name(f"{stem}-{hashed}-{number:05}-of-{len(groups):05}.safetensors")
                if not shard.exists():
                    made.append(shard)
                draft.replace(shard)
                places |= dict.fromkeys(keys, shard.name)
            told = {_TOTAL: sum(tensor.nbytes for tensor in lazies.values()), **entries}
            file.write(json.dumps({"metadata": told, "weight_map": places}, indent=2).encode() + b"\n")
    except BaseException:  # an interrupt from the keyboard too must leave nothing behind
        for part in made:
            part.unlink(missing_ok=True)
        raise


def _groups(lazies: Mapping[str, LazyTensor], shard_bytes: int) -> list[list[str]]:
    groups: list[list[str]] = []
    left = -1
    for key, tensor in lazies.items():
        if not groups or tensor.nbytes > left:
            groups.append([])
            left = shard_bytes
        groups[-1].append(key)
        left -= tensor.nbytes
    return groups


def _put(folder: Path, tensors: LazyTensors, metadata: Mapping[str, str], made: list[Path]) -> tuple[str, Path]:
    """Write a shard under a name of no meaning, which is added to `made`; returns the hash of its bytes, and the name."""
    draft = folder / f".acon-{secrets.token_hex(8)}.tmp"
    digest = blake2b(digest_size=4)
    with draft.open("xb") as file:
        made.append(draft)

        def out(data: bytes | memoryview) -> None:
            digest.update(data)
            file.write(data)

        safetensors_file.put(out, tensors, metadata)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), draft


def _shard_name(path: Path, key: str, name: object) -> str:
    if type(name) is not str or not is_plain(name) or "/" in name or ":" in name:
        raise CheckpointError(
            "unsafe",
            f"{path}: {printable(key)}: its shard is {str(name)[:80]!r}, expected the name of a file in the index's folder",
        )
    if not name.endswith(safetensors_file.SUFFIXES):
        raise CheckpointError(
            "unsupported",
            f"{path}: {printable(key)}: its shard {name[:80]} is no safetensors file; save with safe_serialization=True",
        )
    return name


def _shard(path: Path, name: str) -> dict[str, LazyTensor]:
    shard = path.with_name(name)
    beside = path.is_symlink() and shard.resolve().parent == path.resolve().parent
    if shard.is_symlink() and not beside:
        raise CheckpointError(
            "unsafe", f"{path}: its shard {name} is a link, which may lead anywhere; put the file itself there"
        )
    if not shard.exists():
        raise CheckpointError("corrupt", f"{path}: its shard {name} is missing; put all of them beside the index")
    return safetensors_file.read(shard).tensors.lazies
