"""Flat tensor names from a tree of arrays, whatever file the tree was in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.codecs.state_dict import STATE_KEYS
from acon_core.checkpoint.codecs.text import format_names, printable
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor, LazyTensors

# The top level of Linen's variables and TrainState.
_COLLECTIONS = ("params", "batch_stats")
_OTHER_FIELDS = {"step", "opt_state", "cache", "intermediates", "rng", "tx", "apply_fn"}
# What training scripts save beside the network. Whatever is not a dict is left out too.
_BESIDE = {
    *("opt", "optim", "optimizer", "optimizers", "opt_state", "optimizer_state", "tx", "scheduler", "schedule"),
    *("ema", "ema_params", "ema_state", "ema_model", "rng", "rngs", "key", "keys", "seed", "dropout_rng"),
    *("step", "steps", "epoch", "iteration", "metrics", "metric", "loss", "best", "config", "args", "hparams", "meta"),
    *("metadata", "data", "dataloader", "dataset", "iterator", "scaler", "loss_scale", "dynamic_scale"),
}


def flatten_tree(tree: dict[Any, Any], path: Path, key: str = "") -> CheckpointFile:
    """Name the arrays of a tree by their paths, joined with dots.

    `key` is the place of the network in the tree; by default, a usual key such as `model` if
    nothing stands beside it but what training scripts save, such as `opt`.

    List indices become decimal digits. If all leaves lie under `value`, as in nnx variables that
    Orbax saved, that last step is left out. Linen's `params` and `batch_stats` are merged, and
    other fields of a TrainState ignored, as are random streams and leaves that are not arrays;
    `notes` says so. Raises CheckpointError naming `path` if two leaves have the same name, or if
    there is no array.
    """
    notes: list[str] = []
    place, tree = _network(tree, path, key)
    if place:
        notes.append(f"read the tensors under {place!r}")
    trees = [tree]
    if type(tree.get("params")) is dict and set(tree) <= {*_COLLECTIONS, *_OTHER_FIELDS}:
        used = [name for name in _COLLECTIONS if type(tree.get(name)) is dict]
        trees = [tree[name] for name in used]
        others = [name for name in tree if name not in used]
        notes.append(f"merged {' and '.join(used)}" + (f"; ignored {format_names(others)}" if others else ""))
    tensors: dict[str, LazyTensor] = {}
    ignored: dict[str, list[str]] = {"random streams": [], "what is not an array": []}
    for key, leaf in (pair for subtree in trees for pair in _leaves(subtree, "")):
        if key in tensors:
            raise CheckpointError("corrupt", f"{path}: {printable(key)} occurs twice in the tree")
        if isinstance(leaf, LazyTensor):
            tensors[key] = leaf
        else:
            ignored["random streams" if type(leaf) is dict else "what is not an array"].append(key)
    notes += [f"ignored {kind}: {format_names(keys)}" for kind, keys in ignored.items() if keys]
    if not tensors:
        raise CheckpointError("unsupported", f"{path}: no arrays; save the tree of a state")
    if all(key.endswith(".value") for key in tensors):
        tensors = {key.removesuffix(".value"): array for key, array in tensors.items()}
        notes.append("left out the last step of every path, value")
    return CheckpointFile(LazyTensors(tensors), notes=notes, place=place)


def _network(tree: dict[Any, Any], path: Path, key: str) -> tuple[str, dict[Any, Any]]:
    """Return the place of the network in the tree, and the part of the tree there."""
    if key:
        part: object = tree
        for step in key.split("."):
            found = next((each for name, each in part.items() if str(name) == step), None) if type(part) is dict else None
            if type(found) is not dict:
                raise CheckpointError(
                    "unsupported", f"{path}: --key {printable(key)}: no such part of the tree; found {format_names(tree)}"
                )
            part = found
        assert isinstance(part, dict)
        return key, part
    usual = [name for name in STATE_KEYS if type(tree.get(name)) is dict and name not in _COLLECTIONS]
    others = [name for name, each in tree.items() if name not in usual and type(each) is dict]
    if len(usual) == 1 and (len(tree) > 1 or _has_collections(tree[usual[0]])) and all(name in _BESIDE for name in others):
        place, part = _network(tree[usual[0]], path, "")
        return f"{usual[0]}.{place}" if place else usual[0], part
    return "", tree


def _has_collections(tree: dict[Any, Any]) -> bool:
    return type(tree.get("params")) is dict


def _leaves(tree: dict[object, object], prefix: str) -> Iterator[tuple[str, object]]:
    """Yield every leaf with its path; a random stream counts as one leaf."""
    for step, value in tree.items():
        if type(value) is dict and not _is_random_stream(value):
            yield from _leaves(value, f"{prefix}{step}.")
        else:
            yield f"{prefix}{step}", value


def _is_random_stream(value: dict[object, object]) -> bool:
    """Whether a dict is an nnx random stream: a key and a counter, both unsigned integers."""
    leaves = [v["value"] if type(v) is dict and set(v) == {"value"} else v for v in value.values()]
    unsigned = all(isinstance(leaf, LazyTensor) and leaf.dtype == np.uint32 for leaf in leaves)
    return set(value) == {"count", "key"} and unsigned
