"""Orbax's folder of a tree of arrays, read without Orbax.

`_METADATA` says what the tree is. Each array is one of zarr, in a folder of its own or in a store of keys, OCDBT.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from numpy.typing import NDArray

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.codecs.limits import Budget
from acon_core.checkpoint.codecs.strict_json import parse
from acon_core.checkpoint.codecs.text import format_names, printable
from acon_core.errors import AconError, CheckpointError
from acon_core.tensors import LazyTensor
from acon_jax.checkpoint import ocdbt, zarr
from acon_jax.checkpoint.folder import Folder, Value
from acon_jax.checkpoint.tree import flatten_tree

FRAMEWORK = "jax"
SUFFIXES: tuple[str, ...] = ()
IS_DIRECTORY = True
DTYPES = ()

_TREE = "_METADATA"
_UNFINISHED = ".orbax-checkpoint-tmp"
# Parts of a tree that have nothing in them, and leaves that Orbax gives back as something else than an array.
_EMPTY = ("Dict", "List", "Tuple", "NamedTuple")
_NO_ARRAYS = ("None", "scalar", "string")


def sniff(path: Path) -> bool:
    """Whether it is a folder that Orbax saved, a step of a CheckpointManager, or the manager's folder."""
    return bool(_items(path))


def read(path: Path) -> CheckpointFile:
    """Read the arrays of a folder that Orbax saved, by the names of `flatten_tree`; numbers and text are no arrays.

    `path` is the folder itself, or one above it, such as a CheckpointManager's with one step. Chunks are read and unpacked
    when their array is asked for. No link is followed and nothing outside of the folder is opened. Raises CheckpointError.
    """
    path = Path(path)
    items = _items(path)
    if len(items) != 1:
        found = (
            f"several checkpoints, {format_names(map(str, items))}; give the folder of one" if items else f"no {_TREE} in it"
        )
        raise CheckpointError("unsupported", f"{path}: {found}")
    folder = Folder(path / items[0])
    try:
        metadata = parse(folder.fetch(folder.span(_TREE)), _TREE)
        values = _values(folder)
    except CheckpointError as error:
        raise CheckpointError(error.kind, f"{folder.root}: {error}") from None
    budget = Budget(folder.size)
    whole = metadata.get("store_array_data_equal_to_fill_value") is True
    tree: dict[Any, Any] = {}
    for steps, kind in _leaves(metadata, folder.root):
        leaf = kind if kind in _NO_ARRAYS else _array(".".join(steps), values, folder, budget, whole)
        _put(tree, steps, leaf, folder.root)
    file = flatten_tree(tree, folder.root)
    if items[0] != Path():
        file.notes.insert(0, f"read the checkpoint in {items[0]}")
    return file


def write(path: Path, tensors: Mapping[str, NDArray], metadata: Mapping[str, str] | None = None) -> None:
    """Raise CheckpointError: Orbax's folders are only read."""
    raise CheckpointError("unsupported", f"{path}: Orbax's folders are read and not written; use --to jax, which Flax reads")


def _items(path: Path) -> list[Path]:
    """The folders with a tree, relative to `path`: itself, else those below it (a step's items), else below these (steps)."""
    level = [Path()]
    for _ in range(3):
        found = [each for each in level if os.path.lexists(path / each / _TREE)]
        if found:
            return found
        level = [each / name for each in level for name in _folders(path / each)]
    return []


def _folders(path: Path) -> list[str]:
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and _UNFINISHED not in entry.name]
    except OSError as error:
        raise AconError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from error
    return sorted(names, key=lambda name: (len(name), name))  # steps are numbers


def _values(folder: Folder) -> Mapping[str, Value]:
    """The store that the arrays are in: OCDBT's, or the files themselves."""
    if ocdbt.MANIFEST in folder.files:
        return ocdbt.entries(folder)
    if any(name.endswith(f"/{ocdbt.MANIFEST}") for name in folder.files):
        _corrupt(f"the parts of each process are there, and no {ocdbt.MANIFEST} of them all: it was not saved to the end")
    return {name: folder.span(name) for name in folder.files}


def _array(name: str, values: Mapping[str, Value], folder: Folder, budget: Budget, whole: bool) -> LazyTensor:
    where = f"{folder.root}: {printable(name)}"
    try:
        found = zarr.array(name, values, folder, budget, whole=whole)
    except CheckpointError as error:
        raise CheckpointError(error.kind, f"{where}: {error}") from None

    def load() -> NDArray:
        try:
            return found.load()
        except CheckpointError as error:
            raise CheckpointError(error.kind, f"{where}: {error}") from None

    return LazyTensor(found.shape, found.dtype, load)


def _leaves(metadata: dict[str, Any], where: Path) -> Iterator[tuple[list[str], str]]:
    """The path and the kind of every leaf that `_METADATA` lists. Raises CheckpointError."""
    entries = metadata.get("tree_metadata")
    if type(entries) is not dict:
        _corrupt(f"{where}: {_TREE} has no tree_metadata")
    for name, entry in entries.items():
        keys, value = (entry.get(part) if type(entry) is dict else None for part in ("key_metadata", "value_metadata"))
        steps = [each.get("key") if type(each) is dict else None for each in keys] if type(keys) is list else []
        kind = value.get("value_type") if type(value) is dict else None
        texts = [step for step in steps if type(step) is str]
        if not 0 < len(steps) <= limits.LIMITS.depth or texts != steps or type(kind) is not str:
            _corrupt(f"{where}: {_TREE} has an entry without its keys or its kind: {printable(name)}")
        if kind not in _EMPTY:
            yield texts, kind


def _put(tree: dict[Any, Any], steps: list[str], leaf: object, where: Path) -> None:
    below = tree
    for step in steps[:-1]:
        below = below.setdefault(step, {})
        if type(below) is not dict:
            break
    if type(below) is not dict or steps[-1] in below:
        _corrupt(f"{where}: {printable('.'.join(steps))} stands twice in the tree, or on the way to another leaf")
    below[steps[-1]] = leaf


def _corrupt(message: str) -> NoReturn:
    raise CheckpointError("corrupt", message)
