"""The checkpoint formats: each backend's own, found with it, and safetensors, the canonical one, with its kin."""

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
    """A file format, and the layout of the tensors in it, under the names of a dialect where there is one.

    `backend`: whose layout it is; none for the formats of the core, whose tensors are as the spec lays them out.
    """

    name: str
    codec: Codec
    backend: str | None = None
    dialect: Dialect | None = None

    @property
    def layout(self) -> Layout:
        layout: Layout = backends.import_module(self.backend, "checkpoint.layout").layout if self.backend else _CANONICAL
        return self.dialect.rename(layout) if self.dialect else layout


def formats() -> dict[str, Format]:
    """Every format at hand by name. Neither a framework nor its backend module is imported."""
    found = {name: Format(name, files) for name, files in _CORE.items()}
    for name, package in backends.packages().items():
        if find_spec(f"{package}.checkpoint"):
            files = backends.import_module(name, "checkpoint.codec")
            more: Mapping[str, Codec] = getattr(files, "EXTRA_CODECS", {})
            found |= {each: Format(each, module, name) for each, module in {name: files, **more}.items()}
    return found


def format_named(name: str) -> Format:
    """The format of that name. Raises AconError for one that does not exist."""
    known = formats()
    if name not in known:
        raise AconError(f"--to {name}: no such format; expected one of {', '.join(sorted(known))}")
    return known[name]


def format_for(path: Path) -> Format:
    """The format that a file name's ending stands for. Raises AconError where it stands for none."""
    for each in formats().values():
        if path.name.endswith(each.codec.SUFFIXES):
            return each
    endings = ", ".join(f"{each.codec.SUFFIXES[0]} ({name})" for name, each in sorted(formats().items()) if each.codec.SUFFIXES)
    raise AconError(f"{path}: the ending names no format; pass --to, or use one of {endings}")


def sniff(path: Path) -> list[Format]:
    """The formats that a file's content may be, most often one. Raises CheckpointError when it is none of them."""
    kind = "folder" if path.is_dir() else "file"
    known = {name: each for name, each in formats().items() if path.is_dir() == each.codec.IS_DIRECTORY}
    fitting = [each for each in known.values() if each.codec.sniff(path)]
    if not fitting:
        names = ", ".join(sorted(known)) or "none is a folder"
        raise CheckpointError("unsupported", f"{path}: a {kind} that is no checkpoint of any known format ({names})")
    return fitting
