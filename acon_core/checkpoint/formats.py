"""The checkpoint formats: safetensors, npz and those of the installed backends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from acon_core import backends
from acon_core.checkpoint.codecs import npz_file, safetensors_file, sharded
from acon_core.checkpoint.codecs.codec import Codec
from acon_core.checkpoint.dialects import Dialect
from acon_core.errors import AconError, CheckpointError
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
        layout: Layout = backends.import_module(self.backend, "checkpoint.layout").layout if self.backend else _CANONICAL
        return self.dialect.rename(layout) if self.dialect else layout


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
    known = {name: Format(name, codec) for name, codec in _CORE.items()}
    for name, package in backends.packages().items():
        if find_spec(f"{package}.checkpoint"):
            codec = backends.import_module(name, "checkpoint.codec")
            extra: Mapping[str, Codec] = getattr(codec, "EXTRA_CODECS", {})
            known |= {each: Format(each, module, name) for each, module in {name: codec, **extra}.items()}
    return known


def format_named(name: str) -> Format:
    """Return the format of that name. Raises AconError for an unknown name."""
    known = formats()
    if name not in known:
        raise AconError(f"--to {name}: no such format; expected one of {', '.join(sorted(known))}")
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
    matches = [each for each in known.values() if each.codec.sniff(path)]
    if not matches:
        expected = f"expected one of {', '.join(sorted(known))}" if known else f"no known format is a {kind}"
        raise CheckpointError("unsupported", f"{path}: not a checkpoint {kind} of a known format; {expected}")
    return matches
