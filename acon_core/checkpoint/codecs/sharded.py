"""Sharded safetensors as Hugging Face writes them: a JSON index names the file of each tensor.

The checkpoint's path is the index, `model.safetensors.index.json`. The shards lie in its directory.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from acon_core.checkpoint.codecs import safetensors_file
from acon_core.checkpoint.codecs.atomic_write import atomic_write
from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.codecs.mapped_file import ends_contain, map_file
from acon_core.checkpoint.codecs.strict_json import is_encodable, parse
from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.codecs.zip_archive import is_relative_path
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor, LazyTensors, lazy_items

FRAMEWORK = ""
SUFFIXES = (".safetensors.index.json",)
IS_DIRECTORY = False
DTYPES = safetensors_file.DTYPES

SHARD_BYTES = 5_000_000_000
_TOTAL_SIZE = "total_size"


def sniff(path: Path) -> bool:
    """Whether the file begins as a JSON object and contains a `weight_map`."""
    data = map_file(path)
    return bytes(data[:64]).lstrip()[:1] == b"{" and ends_contain(data, b'"weight_map"')


def read(path: Path, key: str = "") -> CheckpointFile:
    """Read an index and its shards; names come in the index's order.

    A shard is a file in the index's directory. It is not a link, unless index and shards all link
    into one other directory, as in Hugging Face's cache. It holds exactly the tensors that the
    index says. Metadata is the text in the index's metadata. Raises CheckpointError.
    """
    path = Path(path)
    weight_map, stored = _read_index(path)
    expected: dict[str, list[str]] = {}
    for tensor, name in weight_map.items():
        expected.setdefault(_shard_name(path, tensor, name), []).append(tensor)
    all_tensors: dict[str, LazyTensor] = {}
    for name, keys in expected.items():
        shard = _read_shard(path, name)
        differing = sorted(set(keys) ^ set(shard))
        if differing:
            where = "the index" if differing[0] in keys else "the shard"
            raise CheckpointError(
                "corrupt",
                f"{path}: {printable(differing[0])}: only {where} says that it is in {name}; download all files again",
            )
        all_tensors |= shard
    tensors = {name: all_tensors[name] for name in weight_map}
    metadata = {name: value for name, value in stored.items() if type(value) is str and is_encodable(value)}
    total, stated = sum(tensor.nbytes for tensor in tensors.values()), stored.get(_TOTAL_SIZE)
    differs = type(stated) is int and stated != total
    notes = [f"the index states {stated} bytes in all, the tensors take {total}"] if differs else []
    return CheckpointFile(LazyTensors(tensors), metadata, notes).under(key, path)


def shard_paths(path: Path) -> set[Path]:
    """Return the files that an index names. Raises CheckpointError if `path` is not an index."""
    return {path.with_name(_shard_name(path, key, name)) for key, name in _read_index(path)[0].items()}


def _read_index(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the weight_map and the metadata of an index, whose values are not checked yet."""
    index = parse(map_file(path), f"{path}: the index")
    weight_map, metadata = index.get("weight_map"), index.get("metadata", {})
    if type(weight_map) is not dict or type(metadata) is not dict:
        raise CheckpointError("corrupt", f"{path}: expected an object as weight_map and as metadata")
    return weight_map, metadata


def write(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write shards and then their index; completely or not at all.

    A shard takes tensors in the given order up to `shard_bytes`; a larger tensor gets its own
    shard. The name of a shard contains a hash of its bytes. So new shards never overwrite those of
    an older index, which stay until you delete them. Equal arguments give equal bytes. Raises
    CheckpointError for a name or a dtype that safetensors cannot store.
    """
    path, entries = Path(path), dict(sorted((metadata or {}).items()))
    safetensors_file.check_storable(tensors, path)
    if _TOTAL_SIZE in entries:
        raise CheckpointError(
            "unsupported", f"{path}: metadata {_TOTAL_SIZE!r}: this name is reserved by the format; rename it"
        )
    lazies = lazy_items(tensors)
    groups = _groups(lazies, shard_bytes)
    created: list[Path] = []
    try:
        with atomic_write(path) as file:
            weight_map: dict[str, str] = {}
            for number, keys in enumerate(groups, 1):
                # transformers requires "format". Ours is the canonical layout, which is PyTorch's.
                group = LazyTensors({key: lazies[key] for key in keys})
                digest, temporary = _write_shard(path.parent, group, {"format": "pt", **entries}, created)
                stem = path.name.removesuffix(SUFFIXES[0])
                shard = path.with_name(f"{stem}-{digest}-{number:05}-of-{len(groups):05}.safetensors")
                if not shard.exists():
                    created.append(shard)
                temporary.replace(shard)
                weight_map |= dict.fromkeys(keys, shard.name)
            stored = {_TOTAL_SIZE: sum(tensor.nbytes for tensor in lazies.values()), **entries}
            file.write(json.dumps({"metadata": stored, "weight_map": weight_map}, indent=2).encode() + b"\n")
    except BaseException:  # also KeyboardInterrupt
        for part in created:
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


def _write_shard(folder: Path, tensors: LazyTensors, metadata: Mapping[str, str], created: list[Path]) -> tuple[str, Path]:
    """Write a shard to a temporary file, which is added to `created`; return its hash and path."""
    temporary = folder / f".acon-{secrets.token_hex(8)}.tmp"
    digest = blake2b(digest_size=4)
    with temporary.open("xb") as file:
        created.append(temporary)

        def emit(data: bytes | memoryview) -> None:
            digest.update(data)
            file.write(data)

        safetensors_file.serialize(emit, tensors, metadata)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), temporary


def _shard_name(path: Path, key: str, name: object) -> str:
    if type(name) is not str or not is_relative_path(name) or "/" in name or ":" in name:
        raise CheckpointError(
            "unsafe",
            f"{path}: {printable(key)}: its shard is {str(name)[:80]!r}, expected a file name without a folder",
        )
    if not name.endswith(safetensors_file.SUFFIXES):
        raise CheckpointError(
            "unsupported",
            f"{path}: {printable(key)}: its shard {name[:80]} is not a safetensors file; save with safe_serialization=True",
        )
    return name


def _read_shard(path: Path, name: str) -> dict[str, LazyTensor]:
    shard = path.with_name(name)
    in_cache = path.is_symlink() and shard.resolve().parent == path.resolve().parent
    if shard.is_symlink() and not in_cache:
        raise CheckpointError("unsafe", f"{path}: its shard {name} is a link; copy the file itself there")
    if not shard.exists():
        raise CheckpointError("corrupt", f"{path}: its shard {name} is missing; put all shards into the folder of the index")
    return safetensors_file.read(shard).tensors.lazies
