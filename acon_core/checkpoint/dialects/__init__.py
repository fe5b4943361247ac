"""Dialects: the parameter names of other code bases, one module each."""

from __future__ import annotations

from collections.abc import Iterable

from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.dialects.dialect import Dialect, Names
from acon_core.checkpoint.dialects.paddleclas import paddleclas
from acon_core.checkpoint.dialects.repact import repact, repact_reconstruct
from acon_core.checkpoint.dialects.timm import timm
from acon_core.errors import AconError, meant

DIALECTS = {dialect.name: dialect for dialect in (repact, repact_reconstruct, timm, paddleclas)}

# Names of the child of a wrapper module, and the wrapper.
WRAPPERS = {
    "module": "DataParallel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
}


def dialect_named(name: str | None) -> Dialect | None:
    """Return the dialect of that name, and None for None. Raises AconError for an unknown name."""
    if name is not None and name not in DIALECTS:
        known = "; ".join(f"{each.name} ({each.description})" for each in DIALECTS.values())
        hint = meant(name, DIALECTS)
        raise AconError(f"--dialect {printable(name)}: no such dialect; {hint and f'{hint} '}expected one of {known}")
    return DIALECTS[name] if name else None


def dialect_hint(names: Iterable[str]) -> str | None:
    """Return what to pass when a tensor name belongs to a dialect, as the end of an error."""
    for name in names:
        dialects = [each for each in DIALECTS.values() if any(name.endswith(f".{own}") for own in each.parameter_names)]
        if dialects:
            return f"{name!r:.200} is not a name of the spec; {format_choices(dialects)}"
    return None


def format_choices(dialects: Iterable[Dialect]) -> str:
    """Return the dialects to choose from, as the end of an error."""
    choices = " or ".join(f"--dialect {each.name} ({each.description})" for each in dialects)
    return f"the tensor names are ambiguous; pass {choices}"


__all__ = ["DIALECTS", "WRAPPERS", "Dialect", "Names", "dialect_hint", "dialect_named", "format_choices"]
