"""Other people's names for what the spec has: a table a code base, read and written as a framework's own names are."""

from __future__ import annotations

from collections.abc import Iterable

from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.dialects.dialect import Dialect, Names
from acon_core.checkpoint.dialects.paddleclas import paddleclas
from acon_core.checkpoint.dialects.repact import repact, repact_reconstruct
from acon_core.checkpoint.dialects.timm import timm
from acon_core.errors import AconError

DIALECTS = {dialect.name: dialect for dialect in (repact, repact_reconstruct, timm, paddleclas)}

# What a wrapper puts before every name, and whose wrapper it is.
PREFIXES = {"module.": "DataParallel", "_orig_mod.": "torch.compile"}


def dialect_named(name: str | None) -> Dialect | None:
    """The dialect of that name; None, the spec's own names, for None. Raises AconError for one that does not exist."""
    if name is not None and name not in DIALECTS:
        known = "; ".join(f"{each.name}, {each.about}" for each in DIALECTS.values())
        raise AconError(f"--dialect {printable(name)}: no such dialect; known: {known}")
    return DIALECTS[name] if name else None


def dialect_hint(names: Iterable[str]) -> str | None:
    """What to do about a file with names of a dialect, where it was read without one: the end of an error. None: nothing."""
    for name in names:
        speakers = [each for each in DIALECTS.values() if any(name.endswith(f".{mark}") for mark in each.parameter_names)]
        if speakers:
            return f"{name!r:.200} is no name of the spec's; {format_choices(speakers)}"
    return None


def format_choices(speakers: Iterable[Dialect]) -> str:
    """The end of an error: which dialects a file may be in, and why none is taken."""
    choices = ", or ".join(f"--dialect {each.name} for {each.about}" for each in speakers)
    return f"pass {choices}: which it was, the tensors cannot tell"


__all__ = ["DIALECTS", "PREFIXES", "Dialect", "Names", "choice", "dialect_named", "heard"]
