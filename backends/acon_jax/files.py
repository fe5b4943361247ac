"""Flax's checkpoint file: msgpack, with arrays as an extension type, of a tree of dicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from acon_core.checkpoint.file import LIMITS, File, Limits, atomic_write, check_writable, listed, map_file, shown
from acon_core.errors import CheckpointError
from acon_core.tensors import Lazy, Tensors, described
from acon_jax.msgpack import DTYPES, decode, encode_tree, is_map

FRAMEWORK = "jax"
SUFFIXES = (".msgpack",)
FOLDER = False

# What Linen and its TrainState put at the top of a tree; the variables are those of the first two.
_COLLECTIONS = ("params", "batch_stats")
_BESIDE = {"step", "opt_state", "cache", "intermediates", "rng", "tx", "apply_fn"}


def sniff(path: Path) -> bool:
    """Whether the content begins as a msgpack map of names does."""
    return is_map(map_file(path))


def read(path: Path, limits: Limits = LIMITS) -> File:
    """Read the arrays of a tree that `flax.serialization` wrote; a name is the path to its leaf, joined by dots.

    Indices of lists become their decimal digits. Where every leaf lies under `value`, as Orbax lays out nnx variables,
    that last step is left out. Linen's `params` and `batch_stats` are merged into one tree, and what else a TrainState
    holds is ignored; so are random streams and leaves that are no arrays. Each of these is told in `notes`.
    """
    path = Path(path)
    tree = decode(map_file(path, limits), str(path), limits)
    if type(tree) is not dict:
        raise CheckpointError("unsupported", f"{path}: expected a tree of arrays, found a {type(tree).__name__}")
    notes: list[str] = []
    trees = [tree]
    if type(tree.get("params")) is dict and set(tree) <= {*_COLLECTIONS, *_BESIDE}:
        used = [name for name in _COLLECTIONS if type(tree.get(name)) is dict]
        trees = [tree[name] for name in used]
        others = [name for name in tree if name not in used]
        notes.append(f"merged {' and '.join(used)}" + (f"; ignored {listed(others)}" if others else ""))
    tensors: dict[str, Lazy] = {}
    ignored: dict[str, list[str]] = {"random streams": [], "what is not an array": []}
    for key, leaf in (pair for part in trees for pair in _leaves(part, "")):
        if key in tensors:
            raise CheckpointError("corrupt", f"{path}: {shown(key)} stands twice in the tree")
        if isinstance(leaf, Lazy):
            tensors[key] = leaf
        else:
            ignored["random streams" if type(leaf) is dict else "what is not an array"].append(key)
    notes += [f"ignored {kind}: {listed(keys)}" for kind, keys in ignored.items() if keys]
    if not tensors:
        raise CheckpointError("unsupported", f"{path}: no arrays in it; save flax.serialization.to_bytes of the state")
    if all(key.endswith(".value") for key in tensors):
        tensors = {key.removesuffix(".value"): array for key, array in tensors.items()}
        notes.append("left out the last step of every path, value")
    return File(Tensors(tensors), notes=notes)


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a tree that `flax.serialization.msgpack_restore` and `from_bytes` take; whole or not at all.

    A name's dots are the steps of its path; `layers.0.kernel` lies under `layers` and `"0"`, so that the names that begin
    alike come to lie together. Equal tensors give equal bytes. The format has no place for `metadata`. Raises
    CheckpointError where one name is the beginning of another.
    """
    check_writable(tensors, path, DTYPES, "Flax")
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


def _leaves(tree: dict[object, object], above: str) -> Iterator[tuple[str, object]]:
    """Every leaf under its path; a random stream counts as one."""
    for step, value in tree.items():
        if type(value) is dict and not _is_random_stream(value):
            yield from _leaves(value, f"{above}{step}.")
        else:
            yield f"{above}{step}", value


def _is_random_stream(value: dict[object, object]) -> bool:
    """Whether a dict is what nnx keeps for one stream of random numbers: a key and how often it was used."""
    leaves = [v["value"] if type(v) is dict and set(v) == {"value"} else v for v in value.values()]
    unsigned = all(isinstance(leaf, Lazy) and leaf.dtype == np.uint32 for leaf in leaves)
    return set(value) == {"count", "key"} and unsigned
