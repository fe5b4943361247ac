"""Flax's checkpoint file: msgpack, with arrays as an extension type, of a tree of dicts."""

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
from acon_jax.checkpoint.tree import named

FRAMEWORK = "jax"
SUFFIXES = (".msgpack",)
IS_DIRECTORY = False
# Orbax saves the same trees as a folder.
EXTRA_CODECS = {"orbax": orbax}


def sniff(path: Path) -> bool:
    """Whether the content begins as a msgpack map of names does."""
    return is_map(map_file(path))


def read(path: Path) -> CheckpointFile:
    """Read the arrays of a tree that `flax.serialization` wrote, by the names of `tree.named`. Raises CheckpointError."""
    path = Path(path)
    tree = decode(map_file(path), str(path))
    if type(tree) is not dict:
        raise CheckpointError("unsupported", f"{path}: expected a tree of arrays, found a {type(tree).__name__}")
    return named(tree, path)


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a tree that `flax.serialization.msgpack_restore` and `from_bytes` take; whole or not at all.

    A name's dots are the steps of its path; `layers.0.kernel` lies under `layers` and `"0"`, so that the names that begin
    alike come to lie together. Equal tensors give equal bytes. The format has no place for `metadata`. Raises
    CheckpointError where one name is the beginning of another.
    """
    check_writable(tensors, path, DTYPES, "Flax")
    tree: dict[str, object] = {}
    for key, tensor in lazy_items(tensors).items():
        *steps, last = key.split(".")
        below = tree
        for step in steps:
            inner = below.setdefault(step, {})
            if not isinstance(inner, dict):
                raise CheckpointError(
                    "unsupported", f"{path}: {printable(key)}: a tensor is named {step!r} on the way to it; rename one"
                )
            below = inner
        if last in below:
            raise CheckpointError("unsupported", f"{path}: {printable(key)}: is also the beginning of another name; rename one")
        below[last] = tensor
    with atomic_write(path) as file:
        for part in encode_tree(tree):
            file.write(part)
