"""The checkpoint formats: each backend's own, found with it, and safetensors, the canonical one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from numpy.typing import NDArray

from acon_core import backends
from acon_core.checkpoint import safetensors_file
from acon_core.checkpoint.dialects import Dialect
from acon_core.checkpoint.file import File
from acon_core.errors import AconError, CheckpointError
from acon_core.layout import Layout, Slot
from acon_core.spec.node import Node

SAFETENSORS = "safetensors"


class Files(Protocol):
    """What a backend's `files` module offers."""

    @property
    def SUFFIXES(self) -> tuple[str, ...]:  # noqa: N802
        """The endings of its files' names, the usual one first."""

    @property
    def FRAMEWORK(self) -> str:  # noqa: N802
        """What the framework is imported as; empty where the format is no framework's."""

    def sniff(self, path: Path) -> bool:
        """Whether the content of a file looks like this format; its name is not asked."""

    def read(self, path: Path) -> File:
        """Its tensors by native names. Raises CheckpointError."""

    def write(self, path: Path, tensors: Mapping[str, NDArray], metadata: Mapping[str, str] | None = None) -> None:
        """A file that the framework's own loader accepts, whole or not at all. Raises CheckpointError or AconError."""


class _CanonicalLayout(Layout):
    def slots(self, node: Node) -> Mapping[str, Slot | None]:
        return {name: Slot(name) for name in node.params}


_CANONICAL = _CanonicalLayout(SAFETENSORS)


@dataclass(frozen=True)
class Format:
    """A file format, and the layout of the tensors in it, under the names of a dialect where there is one."""

    name: str
    files: Files
    dialect: Dialect | None = None

    @property
    def layout(self) -> Layout:
        layout: Layout = _CANONICAL if self.name == SAFETENSORS else backends.part(self.name, "layout").layout
        return self.dialect.over(layout) if self.dialect else layout


def formats() -> dict[str, Format]:
    """Every format at hand by name. Neither a framework nor its backend module is imported."""
    found = {SAFETENSORS: Format(SAFETENSORS, safetensors_file)}
    for name, package in backends.packages().items():
        if find_spec(f"{package}.files"):
            found[name] = Format(name, backends.part(name, "files"))
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
        if path.name.endswith(each.files.SUFFIXES):
            return each
    endings = ", ".join(f"{each.files.SUFFIXES[0]} ({name})" for name, each in sorted(formats().items()))
    raise AconError(f"{path}: the ending names no format; pass --to, or use one of {endings}")


def sniff(path: Path) -> list[Format]:
    """The formats that a file's content may be, most often one. Raises CheckpointError when it is none of them."""
    known = formats()
    fitting = [each for each in known.values() if each.files.sniff(path)]
    if not fitting:
        raise CheckpointError("unsupported", f"{path}: not a checkpoint of any known format ({', '.join(sorted(known))})")
    return fitting
