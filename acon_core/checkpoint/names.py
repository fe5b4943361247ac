"""Tensor names in a file: which of them are the network's, without what wrappers put in them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.codecs.state_dict import STATE_KEYS
from acon_core.checkpoint.codecs.text import format_names, printable
from acon_core.checkpoint.dialects import WRAPPERS
from acon_core.errors import AconError
from acon_core.tensors import LazyTensor, LazyTensors

# Buffers of one number that tools add to a module: thop's counters, AveragedModel's steps.
BOOKKEEPING = {"total_ops": "thop", "total_params": "thop", "n_averaged": "AveragedModel"}


def strip_wrappers(file: CheckpointFile) -> CheckpointFile:
    """Remove the names of wrapper modules from all tensor names, wherever they stand.

    A wrapper has one child and no tensors of its own, so that all names below its path have the
    child's name next. `module` elsewhere is an ordinary name.
    """
    names = {name: name for name in file.tensors}  # by the names in the file
    removed: Counter[str] = Counter()
    while True:
        paths = _wrapper_paths(name for name in names.values() if not _is_bookkeeping(name))
        if not paths:
            break
        for name, stripped in names.items():
            names[name] = _without_steps(stripped, paths, removed)
    if not removed:
        return file
    tensors = {names[name]: tensor for name, tensor in file.tensors.lazies.items()}
    if len(tensors) < len(names):  # names that differ only in a wrapper's
        return file
    notes = [_wrapper_note(step, count, len(names)) for step, count in removed.items()]
    return replace(file, tensors=LazyTensors(tensors), notes=[*file.notes, *notes])


def _wrapper_paths(names: Iterable[str]) -> set[str]:
    """Return the paths, ending in a dot, whose next name is a wrapper's in all names below them."""
    below: Counter[str] = Counter()
    wrapped: Counter[str] = Counter()
    for name in names:
        path = ""
        for step in name.split(".")[:-1]:
            below[path] += 1
            if step in WRAPPERS:
                wrapped[f"{path}{step}."] += 1
            path = f"{path}{step}."
        below[path] += 1
    return {path for path, count in wrapped.items() if below[path[: path[:-1].rfind(".") + 1]] == count}


def _without_steps(name: str, paths: Collection[str], removed: Counter[str]) -> str:
    """Return a name without the last names of those of its parents that are in `paths`."""
    steps, path, kept = name.split("."), "", []
    for step in steps[:-1]:
        path = f"{path}{step}."
        if path in paths:
            removed[step] += 1
        else:
            kept.append(step)
    return ".".join([*kept, steps[-1]])


def _wrapper_note(step: str, count: int, names: int) -> str:
    if count >= names:
        return f"removed the prefix '{step}.' ({WRAPPERS[step]}) from all tensor names"
    return f"removed '{step}.' ({WRAPPERS[step]}) from {count} tensor names"


def _is_bookkeeping(name: str) -> bool:
    return name.rpartition(".")[2] in BOOKKEEPING


def without_bookkeeping(file: CheckpointFile) -> CheckpointFile:
    """Leave out the buffers of tools that count operations or average weights."""
    found = [name for name, tensor in file.tensors.lazies.items() if _is_bookkeeping(name) and math.prod(tensor.shape) == 1]
    if not found:
        return file
    tools = dict.fromkeys(BOOKKEEPING[name.rpartition(".")[2]] for name in found)
    return _without(file, found, f"ignored the counters of {' and '.join(tools)}: {format_names(found)}")


def select(file: CheckpointFile, prefixes: Sequence[str], ignored: Sequence[str]) -> CheckpointFile:
    """Remove prefixes from the names that have them, then the tensors that a pattern matches.

    A pattern such as ``total_*`` is that of a whole name, or, without a dot in it, of what follows
    the last dot. Raises AconError for a prefix or a pattern that no name has.
    """
    for prefix in prefixes:
        names = {name: name.removeprefix(prefix) for name in file.tensors}
        count = sum(name != stripped for name, stripped in names.items())
        if not count:
            raise AconError(f"--strip-prefix {printable(prefix)}: no tensor name begins with it; {_beginnings(names)}")
        tensors = {names[name]: tensor for name, tensor in file.tensors.lazies.items()}
        if len(tensors) < len(names):
            twice = next(name for name, times in Counter(names.values()).items() if times > 1)
            raise AconError(
                f"--strip-prefix {printable(prefix)}: two tensors would have the name {printable(twice)}; use --key"
            )
        note = f"removed the prefix {prefix!r} from {count} tensor names"
        file = replace(file, tensors=LazyTensors(tensors), notes=[*file.notes, note])
    for pattern in ignored:
        found = [name for name in file.tensors if _matches(name, pattern)]
        if not found:
            raise AconError(f"--ignore {printable(pattern)}: no tensor has such a name; {_beginnings(file.tensors)}")
        file = _without(file, found, f"ignored {len(found)} tensors as asked: {format_names(found)}")
    return file


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or ("." not in pattern and fnmatchcase(name.rpartition(".")[2], pattern))


def _beginnings(names: Iterable[str]) -> str:
    return f"they begin with {format_names(dict.fromkeys(name.partition('.')[0] for name in names))}"


def _without(file: CheckpointFile, names: Collection[str], note: str) -> CheckpointFile:
    left_out = set(names)
    tensors = {name: tensor for name, tensor in file.tensors.lazies.items() if name not in left_out}
    return replace(file, tensors=LazyTensors(tensors), notes=[*file.notes, note])


def usual_prefix(names: Collection[str]) -> str:
    """Return the usual name of a network that all tensor names begin with, and a dot; or ""."""
    steps = {name.partition(".")[0] for name in names}
    step = steps.pop() if len(steps) == 1 else ""
    return f"{step}." if step in STATE_KEYS else ""


def groups(tensors: Mapping[str, LazyTensor]) -> dict[str, dict[str, LazyTensor]]:
    """Return the tensors by the first step of their names, under the rest of the names."""
    parts: dict[str, dict[str, LazyTensor]] = {}
    for name, tensor in tensors.items():
        step, dot, rest = name.partition(".")
        if dot:
            parts.setdefault(step, {})[rest] = tensor
    return parts
