"""The state dict in a loaded object: the object itself, or a dict one level below it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from acon_core.checkpoint.codecs.text import format_names
from acon_core.errors import CheckpointError

STATE_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params")


def find_state_dict(value: object, is_tensor: Callable[[object], bool], path: Path) -> tuple[dict[str, object], list[str]]:
    """Find the one dict of tensors in a loaded object; return it and a note per thing left out.

    A dict under one of `STATE_KEYS` wins over tensors beside it, because training scripts also save
    numbers such as the best accuracy as tensors. Raises CheckpointError if there is no dict of
    tensors, or if there are several and none has a usual name.
    """
    if not isinstance(value, dict):
        raise CheckpointError(
            "unsupported", f"{path}: expected a dict of tensors, found an object of type {type(value).__name__}"
        )
    dicts = {id(v): v for v in value.values() if isinstance(v, dict)}  # one dict may occur very often
    states = {mark for mark, v in dicts.items() if any(is_tensor(leaf) for leaf in v.values())}
    inner = [k for k, v in value.items() if id(v) in states]
    usual = [k for k in STATE_KEYS if k in inner]
    notes = []
    if usual or not any(is_tensor(v) for v in value.values()):
        if len(inner) > 1 and not usual:
            raise CheckpointError(
                "unsupported", f"{path}: several dicts of tensors, {format_names(inner)}; save one of them alone"
            )
        if not inner:
            raise CheckpointError(
                "unsupported",
                f"{path}: no dict of tensors at the top level or one level below; found keys {format_names(value)}",
            )
        chosen = (usual or inner)[0]
        others = [k for k in value if k != chosen]
        notes.append(f"read the tensors under {chosen!r}" + (f"; ignored {format_names(others)}" if others else ""))
        value = value[chosen]
        assert isinstance(value, dict)
    for key in value:
        if not isinstance(key, str):
            raise CheckpointError("unsupported", f"{path}: expected names as keys, found {key!r}; save a state dict")
    ignored = [k for k, v in value.items() if not is_tensor(v)]
    if ignored:
        notes.append(f"ignored what is not a tensor: {format_names(ignored)}")
    return {k: v for k, v in value.items() if is_tensor(v)}, notes
