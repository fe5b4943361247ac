"""The checkpoint formats: each backend's own, found with it, and safetensors, the canonical one, with its kin."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from numpy.typing import NDArray

from acon_core import backends
from acon_core.checkpoint import npz_file, safetensors_file, sharded
from acon_core.checkpoint.dialects import Dialect
from acon_core.checkpoint.file import File
from acon_core.errors import AconError, CheckpointError
from acon_core.layout import Layout, Slot
from acon_core.spec.node import Node

SAFETENSORS = "safetensors"


class Files(Protocol):
    """What a module of one file format offers: a backend's `files`, those that it names in `MORE`, and those of the core."""

    @property
    def SUFFIXES(self) -> tuple[str, ...]:  # noqa: N802
        """The endings of its files' names, the usual one first."""

    @property
    def FRAMEWORK(self) -> str:  # noqa: N802
        """What the framework is imported as; empty where the format is no framework's."""

    @property
    def FOLDER(self) -> bool:  # noqa: N802
        """Whether it is a folder of files."""

    @property
    def HELD(self) -> Collection[str]:  # noqa: N802
        """The NumPy dtypes that `write` takes, by name."""

    def sniff(self, path: Path) -> bool:
        """Whether the content of a file or a folder looks like this format; its name is not asked."""

    def read(self, path: Path) -> File:
        """Its tensors by native names. Raises CheckpointError."""

    def write(self, path: Path, tensors: Mapping[str, NDArray], metadata: Mapping[str, str] | None = None) -> None:
        """A file that the framework's own loader accepts, whole or not at all. Raises CheckpointError or AconError."""


class _CanonicalLayout(Layout):
    def slots(self, node: Node) -> Mapping[str, Slot | None]:
        return {name: Slot(name) for name in node.params}


_CANONICAL = _CanonicalLayout(SAFETENSORS)
_CORE: dict[str, Files] = {SAFETENSORS: safetensors_file, "safetensors_sharded": sharded, "npz": npz_file}


@dataclass(frozen=True)
class Format:
    """A file format, and the layout of the tensors in it, under the names of a dialect where there is one.

    `backend`: whose layout it is; none for the formats of the core, whose tensors are as the spec lays them out.
    """

    name: str
    files: Files
    backend: str | None = None
    dialect: Dialect | None = None

    @property
    def layout(self) -> Layout:
        layout: Layout = backends.part(self.backend, "layout").layout if self.backend else _CANONICAL
        return self.dialect.over(layout) if self.dialect else layout


def formats() -> dict[str, Format]:
    """Every format at hand by name. Neither a framework nor its backend module is imported."""
    found = {name: Format(name, files) for name, files in _CORE.items()}
    for name, package in backends.packages().items():
        if find_spec(f"{package}.files"):
            files = backends.part(name, "files")
            more: Mapping[str, Files] = getattr(files, "MORE", {})
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
        if path.name.endswith(each.files.SUFFIXES):
            return each
    endings = ", ".join(f"{each.files.SUFFIXES[0]} ({name})" for name, each in sorted(formats().items()) if each.files.SUFFIXES)
    raise AconError(f"{path}: the ending names no format; pass --to, or use one of {endings}")


def sniff(path: Path) -> list[Format]:
    """The formats that a file's content may be, most often one. Raises CheckpointError when it is none of them."""
    kind = "folder" if path.is_dir() else "file"
    known = {name: each for name, each in formats().items() if path.is_dir() == each.files.FOLDER}
    fitting = [each for each in known.values() if each.files.sniff(path)]
    if not fitting:
        names = ", ".join(sorted(known)) or "none is a folder"
        raise CheckpointError("unsupported", f"{path}: a {kind} that is no checkpoint of any known format ({names})")
    return fitting
