"""The interface of a codec, the module of one file format, and what it returns for a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.codecs.text import printable
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensors, lazy_items


@dataclass
class CheckpointFile:
    """A checkpoint's tensors by name, in the file's order, and what else is worth telling about the file.

    `metadata` is empty for the formats that have no place for it. `notes` says, a sentence each, what was left out or
    resolved while reading. `globals_seen` lists the names that a pickle mentions; none of them was looked up or called.
    `foreign`: those among them that are classes of a whole module, which any other loader would import.
    """

    tensors: LazyTensors
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    globals_seen: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


class Codec(Protocol):
    """What a module of one file format offers: a backend's `files`, those that it names in `MORE`, and those of the core."""

    @property
    def SUFFIXES(self) -> tuple[str, ...]:  # noqa: N802
        """The endings of its files' names, the usual one first."""

    @property
    def FRAMEWORK(self) -> str:  # noqa: N802
        """What the framework is imported as; empty where the format is no framework's."""

    @property
    def IS_DIRECTORY(self) -> bool:  # noqa: N802
        """Whether it is a folder of files."""

    @property
    def DTYPES(self) -> Collection[str]:  # noqa: N802
        """The NumPy dtypes that `write` takes, by name."""

    def sniff(self, path: Path) -> bool:
        """Whether the content of a file or a folder looks like this format; its name is not asked."""

    def read(self, path: Path) -> CheckpointFile:
        """Its tensors by native names. Raises CheckpointError."""

    def write(self, path: Path, tensors: Mapping[str, NDArray], metadata: Mapping[str, str] | None = None) -> None:
        """A file that the framework's own loader accepts, whole or not at all. Raises CheckpointError or AconError."""


def check_writable(tensors: Mapping[str, np.ndarray], path: Path, dtypes: Mapping[str, object], framework: str) -> None:
    """Raise CheckpointError for a name that is not text or a dtype that the framework would not give back."""
    for key, array in lazy_items(tensors).items():
        if not isinstance(key, str) or not key or any("\ud800" <= letter <= "\udfff" for letter in key):
            raise CheckpointError("unsupported", f"{path}: {key!r:.80} is not a name for a tensor; give it one of text")
        if array.dtype.name not in dtypes:
            raise CheckpointError(
                "unsupported",
                f"{path}: {printable(key)}: {framework} cannot hold {array.dtype.name}; "
                f"convert it to one of {', '.join(sorted(dtypes))}, or let `acon convert --cast` do it",
            )
