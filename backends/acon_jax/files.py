"""Flax's checkpoint file: msgpack, with arrays as an extension type, of a tree of dicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from acon_core.checkpoint.file import LIMITS, File, Limits, atomic_write, check_writable, map_file, shown
from acon_core.errors import CheckpointError
from acon_core.tensors import described
from acon_jax import orbax
from acon_jax.msgpack import DTYPES, decode, encode_tree, is_map
from acon_jax.tree import named

FRAMEWORK = "jax"
SUFFIXES = (".msgpack",)
FOLDER = False
HELD = DTYPES
# Orbax saves the same trees as a folder.
MORE = {"orbax": orbax}


def sniff(path: Path) -> bool:
    """Whether the content begins as a msgpack map of names does."""
    return is_map(map_file(path))


def read(path: Path, limits: Limits = LIMITS) -> File:
    """Read the arrays of a tree that `flax.serialization` wrote, by the names of `tree.named`. Raises CheckpointError."""
    path = Path(path)
    tree = decode(map_file(path, limits), str(path), limits)
    if type(tree) is not dict:
        raise CheckpointError("unsupported", f"{path}: expected a tree of arrays, found a {type(tree).__name__}")
    return named(tree, path)


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a tree that `flax.serialization.msgpack_restore` and `from_bytes` take; whole or not at all.

    A name's dots are the steps of its path; `layers.0.kernel` lies under `layers` and `"0"`, so that the names that begin
    alike come to lie together. Equal tensors give equal bytes. The format has no place for `metadata`. Raises
    CheckpointError where one name is the beginning of another.
    """
    check_writable(tensors, path, HELD, "Flax")
    tree: dict[str, object] = {}
    for key, tensor in described(tensors).items():
        *steps, last = key.split(".")
        below = tree
        for step in steps:
            inner = below.setdefault(step, {})
            if not isinstance(inner, dict):
                raise CheckpointError(
                    "unsupported", f"{path}: {shown(key)}: a tensor is named {step!r} on the way to it; rename one"
                )
            below = inner
        if last in below:
            raise CheckpointError("unsupported", f"{path}: {shown(key)}: is also the beginning of another name; rename one")
        below[last] = tensor
    with atomic_write(path) as file:
        for part in encode_tree(tree):
            file.write(part)
