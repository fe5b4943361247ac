"""Read the folders that Orbax saves, without Orbax.

`_METADATA` describes the tree; TensorStore reads the arrays (see `array_store`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from numpy.typing import NDArray

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.codecs.mapped_file import map_file
from acon_core.checkpoint.codecs.strict_json import is_encodable, parse
from acon_core.checkpoint.codecs.text import format_names, printable
from acon_core.errors import AconError, CheckpointError
from acon_jax.checkpoint.array_store import MANIFEST, ArrayStore, list_files
from acon_jax.checkpoint.tree import flatten_tree

FRAMEWORK = "jax"
SUFFIXES: tuple[str, ...] = ()
IS_DIRECTORY = True
DTYPES = ()

_METADATA = "_METADATA"
_UNFINISHED = ".orbax-checkpoint-tmp"
_EMPTY = ("Dict", "List", "Tuple", "NamedTuple")  # nodes without children
_NOT_ARRAYS = ("None", "scalar", "string")


def sniff(path: Path) -> bool:
    """Whether `path` is an Orbax checkpoint, a step of a CheckpointManager, or its folder."""
    return bool(_find_checkpoints(path))


def read(path: Path, key: str = "") -> CheckpointFile:
    """Read the arrays of a checkpoint, named by `flatten_tree`; numbers and strings are left out.

    Nothing outside of the folder is read, and a link in it is an error. An array is read when it is
    asked for.

    Parameters
    ----------
    path
        The checkpoint, or a folder that holds one checkpoint and no other, such as that of a
        CheckpointManager with a single step.
    key
        The place of the network in the tree, as keys joined with dots.

    Raises
    ------
    CheckpointError
        The folder is damaged, holds a link, or is not one checkpoint; or TensorStore is not
        installed.
    """
    path = Path(path)
    checkpoints = _find_checkpoints(path)
    if len(checkpoints) > 1:
        listed = format_names(map(str, checkpoints))
        raise CheckpointError("unsupported", f"{path}: several checkpoints, {listed}; give the folder of one")
    if not checkpoints:
        raise CheckpointError("unsupported", f"{path}: no {_METADATA} in it; give the folder of an Orbax checkpoint")
    root = path / checkpoints[0]
    files = list_files(root)
    metadata = parse(map_file(root / _METADATA), f"{root}: {_METADATA}")
    if MANIFEST not in files and any(name.endswith(f"/{MANIFEST}") for name in files):
        _corrupt(f"{root}: {MANIFEST} is missing; the hosts did not finish saving, use an earlier step")
    store = ArrayStore(root, files, complete=metadata.get("store_array_data_equal_to_fill_value") is True)
    tree: dict[Any, Any] = {}
    for steps, kind in _leaves(metadata, root):
        _insert(tree, steps, kind if kind in _NOT_ARRAYS else store.array(".".join(steps)), root)
    file = flatten_tree(tree, root, key)
    if checkpoints[0] != Path():
        file.notes.insert(0, f"read the checkpoint in {checkpoints[0]}")
    return file


def write(path: Path, tensors: Mapping[str, NDArray], metadata: Mapping[str, str] | None = None) -> None:
    """Raise CheckpointError: Orbax folders cannot be written."""
    raise CheckpointError("unsupported", f"{path}: Orbax folders cannot be written; use --to jax, which Flax reads")


def _find_checkpoints(path: Path) -> list[Path]:
    """Return the checkpoints at `path`, in its subfolders (items), or in theirs (steps)."""
    level = [Path()]
    for _ in range(3):
        found = [each for each in level if os.path.lexists(path / each / _METADATA)]
        if found:
            return found
        level = [each / name for each in level for name in _subfolders(path / each)]
    return []


def _subfolders(path: Path) -> list[str]:
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and _UNFINISHED not in entry.name]
    except OSError as error:
        raise AconError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from error
    return sorted(names, key=lambda name: (len(name), name))  # steps are numbers


def _leaves(metadata: dict[str, Any], root: Path) -> Iterator[tuple[list[str], str]]:
    """Yield the path and the kind of every leaf in `_METADATA`. Raises CheckpointError."""
    entries = metadata.get("tree_metadata")
    if type(entries) is not dict:
        _corrupt(f"{root}: {_METADATA} has no tree_metadata; copy the whole folder again")
    for name, entry in entries.items():
        keys, value = (entry.get(part) if type(entry) is dict else None for part in ("key_metadata", "value_metadata"))
        steps = [each.get("key") if type(each) is dict else None for each in keys] if type(keys) is list else []
        kind = value.get("value_type") if type(value) is dict else None
        strings = [step for step in steps if type(step) is str and is_encodable(step)]
        if not 0 < len(steps) <= limits.LIMITS.depth or strings != steps or type(kind) is not str:
            _corrupt(
                f"{root}: {printable(name)}: {_METADATA} gives no list of 1 to {limits.LIMITS.depth} keys, or no value_type; "
                "copy the whole folder again"
            )
        if kind not in _EMPTY:
            yield strings, kind


def _insert(tree: dict[Any, Any], steps: list[str], leaf: object, root: Path) -> None:
    """Add a leaf at its path. Raises CheckpointError where a leaf is in the way."""
    below = tree
    for step in steps[:-1]:
        below = below.setdefault(step, {})
        if type(below) is not dict:
            break
    if type(below) is not dict or steps[-1] in below:
        _corrupt(f"{root}: {printable('.'.join(steps))}: this or a shorter path is in the tree twice; save it again with Orbax")
    below[steps[-1]] = leaf


def _corrupt(message: str) -> NoReturn:
    raise CheckpointError("corrupt", message)
