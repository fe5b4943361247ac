"""The checkpoint formats: safetensors, npz and those of the installed backends."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from acon_core import backends, discovery
from acon_core.checkpoint.codecs import npz_file, safetensors_file, sharded
from acon_core.checkpoint.codecs.codec import Codec
from acon_core.checkpoint.dialects import Dialect
from acon_core.errors import AconError, BackendError, CheckpointError, choices
from acon_core.layout import Layout, Slot
from acon_core.spec.node import Node

SAFETENSORS = "safetensors"


class _CanonicalLayout(Layout):
    def slots(self, node: Node) -> Mapping[str, Slot | None]:
        return {name: Slot(name) for name in node.params}


_CANONICAL = _CanonicalLayout(SAFETENSORS)
_CORE: dict[str, Codec] = {SAFETENSORS: safetensors_file, "safetensors_sharded": sharded, "npz": npz_file}


@dataclass(frozen=True)
class Format:
    """A file format, with the layout and the names of its tensors.

    Parameters
    ----------
    name : str
        The value of ``--to``.
    codec : Codec
        The module that reads and writes the files.
    backend : str, optional
        The backend whose layout the tensors have; None for the canonical layout of the spec.
    dialect : Dialect, optional
        The naming scheme of the tensors; None for the names of the spec.
    """

    name: str
    codec: Codec
    backend: str | None = None
    dialect: Dialect | None = None

    @property
    def layout(self) -> Layout:
        """The names and layouts of the tensors, in the dialect. Imports no framework."""
        layout = _CANONICAL if self.backend is None else _layout(self.backend)
        return self.dialect.rename(layout) if self.dialect else layout


def _layout(backend: str) -> Layout:
    """Return the layout of a backend. Raises BackendError if it has none."""
    layout: object = getattr(backends.import_module(backend, "checkpoint.layout"), "layout", None)
    if not isinstance(layout, Layout):
        raise BackendError(f"backend {backend!r}: its module checkpoint.layout has no object `layout`, a Layout")
    return layout


def formats() -> dict[str, Format]:
    """Return the available formats by name. Imports no framework.

    Returns
    -------
    dict of str to Format
        The formats of the core, then those of each installed backend.

    Examples
    --------
    >>> formats()["safetensors"].codec.SUFFIXES
    ('.safetensors',)
    """
    return {each.name: each for each in _found()[0]}


def problems() -> dict[str, str]:
    """Return why formats of registered backends cannot be used, by name of the format."""
    return _found()[1]


@cache
def _found() -> tuple[tuple[Format, ...], dict[str, str]]:
    """Return the usable formats, this project's first, and what is wrong with the others."""
    known = {name: Format(name, codec) for name, codec in _CORE.items()}
    wrong: dict[str, str] = {}
    for name in backends.packages():
        try:
            for each, codec in _codecs(name).items():
                if each in known:
                    wrong[each] = f"backend {name!r} has a format of a name that is taken, {each}; it needs another name"
                elif lacks := _lacks(codec):
                    wrong[each] = f"the codec of backend {name!r} is not complete: {lacks}; `Codec` says what it must have"
                else:
                    known[each] = Format(each, codec, name)
        except BackendError as error:
            wrong[name] = str(error)
    return tuple(known.values()), wrong


def _codecs(name: str) -> dict[str, Codec]:
    """Return the codecs of a backend by format. Raises BackendError if they cannot be imported."""
    package = backends.import_module(name, "")
    if not hasattr(package, "__path__") or find_spec(f"{package.__name__}.checkpoint") is None:
        return {}
    codec: Any = backends.import_module(name, "checkpoint.codec")
    extra = getattr(codec, "EXTRA_CODECS", {})
    if not isinstance(extra, Mapping):
        raise BackendError(f"the codec of backend {name!r}: EXTRA_CODECS must be a dict from format to codec")
    return {name: codec, **extra}


def _lacks(codec: Codec) -> str:
    """Return what a codec lacks, or has of the wrong type; empty if it is complete."""
    types = {"SUFFIXES": tuple, "FRAMEWORK": str, "IS_DIRECTORY": bool, "DTYPES": Collection}
    wrong = [name for name, kind in types.items() if not isinstance(getattr(codec, name, None), kind)]
    wrong += [name for name in ("sniff", "read", "write") if not callable(getattr(codec, name, None))]
    return ", ".join(wrong)


def format_named(name: str, option: str = "--to") -> Format:
    """Return the format of that name. Raises AconError for an unknown name."""
    known = formats()
    if name not in known:
        if name in problems():
            raise AconError(f"{option} {name}: {problems()[name]}")
        raise AconError(f"{option} {name}: no such format; {choices(name, sorted(known))}")
    return known[name]


def format_for(path: Path) -> Format:
    """Return the format of a file name's suffix. Raises AconError for an unknown suffix."""
    known = formats()
    for each in known.values():
        if path.name.endswith(each.codec.SUFFIXES):
            return each
    suffixes = ", ".join(f"{each.codec.SUFFIXES[0]} ({name})" for name, each in sorted(known.items()) if each.codec.SUFFIXES)
    raise AconError(f"{path}: unknown suffix; pass --to, or use one of {suffixes}")


def sniff(path: Path) -> list[Format]:
    """Return the formats that a file's content matches. Raises CheckpointError if none does."""
    kind = "folder" if path.is_dir() else "file"
    known = {name: each for name, each in formats().items() if path.is_dir() == each.codec.IS_DIRECTORY}
    matches, failed = [], []
    for each in known.values():
        try:
            if each.codec.sniff(path):
                matches.append(each)
        except Exception as error:
            if discovery.is_own(each.backend):
                raise
            failed.append(f"; format {each.name} could not say: {type(error).__name__}: {error}")
    if not matches:
        expected = f"expected one of {', '.join(sorted(known))}" if known else f"no known format is a {kind}"
        expected += "".join(failed)
        raise CheckpointError("unsupported", f"{path}: not a checkpoint {kind} of a known format; {expected}")
    return matches
