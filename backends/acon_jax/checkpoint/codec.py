"""Flax's checkpoint file: a tree of dicts in msgpack, with arrays as an extension type."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from acon_core.checkpoint.codecs.atomic_write import atomic_write
from acon_core.checkpoint.codecs.codec import CheckpointFile, check_writable
from acon_core.checkpoint.codecs.mapped_file import map_file
from acon_core.checkpoint.codecs.text import printable
from acon_core.errors import CheckpointError
from acon_core.tensors import lazy_items
from acon_jax.checkpoint import orbax
from acon_jax.checkpoint.msgpack import DTYPES as DTYPES
from acon_jax.checkpoint.msgpack import decode, encode_tree, is_map
from acon_jax.checkpoint.tree import flatten_tree

FRAMEWORK = "jax"
SUFFIXES = (".msgpack",)
IS_DIRECTORY = False
EXTRA_CODECS = {"orbax": orbax}  # the same trees, saved as a folder


def sniff(path: Path) -> bool:
    """Whether the file begins with a msgpack map from text or small integers."""
    return is_map(map_file(path))


def read(path: Path, key: str = "") -> CheckpointFile:
    """Read a tree that `flax.serialization` wrote; see `flatten_tree`. Raises CheckpointError."""
    path = Path(path)
    tree = decode(map_file(path), str(path))
    if type(tree) is not dict:
        raise CheckpointError("unsupported", f"{path}: expected a tree of arrays, found a {type(tree).__name__}")
    return flatten_tree(tree, path, key)


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a tree that `flax.serialization.from_bytes` reads; completely or not at all.

    Names are split at dots: `layers.0.kernel` lies under `layers` and `"0"`. Equal tensors give
    equal bytes. `metadata` is ignored: the format cannot store it. Raises CheckpointError if one
    name is a prefix of another.
    """
    check_writable(tensors, path, DTYPES, "Flax")
    tree: dict[str, object] = {}
    for key, tensor in lazy_items(tensors).items():
        *steps, last = key.split(".")
        parent = tree
        for step in steps:
            child = parent.setdefault(step, {})
            if not isinstance(child, dict):
                raise CheckpointError("unsupported", f"{path}: {printable(key)}: its parent {step!r} is a tensor; rename one")
            parent = child
        if last in parent:
            raise CheckpointError("unsupported", f"{path}: {printable(key)}: is a prefix of another name; rename one")
        parent[last] = tensor
    with atomic_write(path) as file:
        file.writelines(encode_tree(tree))
