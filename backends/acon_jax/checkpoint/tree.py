"""The names that a tree of arrays gives them, whatever file the tree was in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.codecs.text import format_names, printable
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor, LazyTensors

# What Linen and its TrainState put at the top of a tree; the variables are those of the first two.
_COLLECTIONS = ("params", "batch_stats")
_BESIDE = {"step", "opt_state", "cache", "intermediates", "rng", "tx", "apply_fn"}


def named(tree: dict[Any, Any], path: Path) -> CheckpointFile:
    """The arrays of a tree; a name is the path to its leaf, joined by dots.

    Indices of lists become their decimal digits. Where every leaf lies under `value`, as Orbax lays out nnx variables,
    that last step is left out. Linen's `params` and `batch_stats` are merged into one tree, and what else a TrainState
    holds is ignored; so are random streams and leaves that are no arrays. Each of these is told in `notes`.
    Raises CheckpointError, beginning with `path`, where two leaves have one name or none is an array.
    """
    notes: list[str] = []
    trees = [tree]
    if type(tree.get("params")) is dict and set(tree) <= {*_COLLECTIONS, *_BESIDE}:
        used = [name for name in _COLLECTIONS if type(tree.get(name)) is dict]
        trees = [tree[name] for name in used]
        others = [name for name in tree if name not in used]
        notes.append(f"merged {' and '.join(used)}" + (f"; ignored {format_names(others)}" if others else ""))
    tensors: dict[str, LazyTensor] = {}
    ignored: dict[str, list[str]] = {"random streams": [], "what is not an array": []}
    for key, leaf in (pair for part in trees for pair in _leaves(part, "")):
        if key in tensors:
            raise CheckpointError("corrupt", f"{path}: {printable(key)} stands twice in the tree")
        if isinstance(leaf, LazyTensor):
            tensors[key] = leaf
        else:
            ignored["random streams" if type(leaf) is dict else "what is not an array"].append(key)
    notes += [f"ignored {kind}: {format_names(keys)}" for kind, keys in ignored.items() if keys]
    if not tensors:
        raise CheckpointError("unsupported", f"{path}: no arrays in it; save the tree of a state")
    if all(key.endswith(".value") for key in tensors):
        tensors = {key.removesuffix(".value"): array for key, array in tensors.items()}
        notes.append("left out the last step of every path, value")
    return CheckpointFile(LazyTensors(tensors), notes=notes)


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
    unsigned = all(isinstance(leaf, LazyTensor) and leaf.dtype == np.uint32 for leaf in leaves)
    return set(value) == {"count", "key"} and unsigned
