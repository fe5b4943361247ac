"""The interface of a codec: one module per file format, with these names in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.codecs.strict_json import is_encodable
from acon_core.checkpoint.codecs.text import printable
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensors, lazy_items


@dataclass
class CheckpointFile:
    """The tensors of a checkpoint file and what else it holds.

    Attributes
    ----------
    tensors : LazyTensors
        The tensors by the names that the file gives them, in the file's order.
    metadata : dict of str to str
        The entries that `Codec.write` was given; empty for formats that cannot store them.
    notes : list of str
        One sentence per thing that was left out or resolved while reading.
    globals_seen : tuple of str
        The dotted names that a pickle mentions. None of them was imported or called.
    foreign_globals : tuple of str
        Those of `globals_seen` that other loaders would import, because a whole module was pickled.
    """

    tensors: LazyTensors
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    globals_seen: tuple[str, ...] = ()
    foreign_globals: tuple[str, ...] = ()


class Codec(Protocol):
    """Reader and writer of one file format, as a module with these attributes and functions.

    A backend's `checkpoint/codec.py` is the codec of its framework's format. It may name further
    modules in `EXTRA_CODECS`, a dict from format name to codec. The formats of no framework are in
    `acon_core/checkpoint/codecs`. A codec imports no framework and executes nothing that a file
    contains; it is registered by `acon_core.checkpoint.formats`.
    """

    @property
    def SUFFIXES(self) -> tuple[str, ...]:  # noqa: N802
        """File name endings, the usual one first; empty if another codec has them."""

    @property
    def FRAMEWORK(self) -> str:  # noqa: N802
        """Import name of the framework whose format this is; empty for a neutral format."""

    @property
    def IS_DIRECTORY(self) -> bool:  # noqa: N802
        """Whether a checkpoint is a directory instead of a file."""

    @property
    def DTYPES(self) -> Collection[str]:  # noqa: N802
        """NumPy names of the dtypes that `write` accepts; empty for a format that is only read."""

    def sniff(self, path: Path) -> bool:
        """Tell by content, never by name, whether a file is of this format.

        Parameters
        ----------
        path : Path
            An existing file, or a directory if `IS_DIRECTORY`.

        Returns
        -------
        bool
            True also for files that only `read` can refuse with a precise error.

        Raises
        ------
        AconError
            If the file cannot be opened.
        """

    def read(self, path: Path) -> CheckpointFile:
        """Read the tensors of a file by their native names.

        Shapes, dtypes and sizes are checked here, against `limits.LIMITS`. Bytes are copied or
        decompressed when a tensor is asked for.

        Parameters
        ----------
        path : Path
            A file of any content; it is not trusted.

        Returns
        -------
        CheckpointFile
            Arrays are read-only, C-contiguous, aligned and of native byte order.

        Raises
        ------
        CheckpointError
            If the file is unsafe, corrupt or unsupported. The message begins with `path`, names the
            tensor if there is one, and is one printable line. Asking for a tensor may raise it too.
        AconError
            If the file cannot be opened.
        """

    def write(self, path: Path, tensors: Mapping[str, NDArray], metadata: Mapping[str, str] | None = None) -> None:
        """Write a file that the framework's own loader accepts; completely or not at all.

        Equal arguments give equal bytes. One tensor is in memory at a time.

        Parameters
        ----------
        path : Path
            The target. An existing file is replaced, a symbolic link is not followed.
        tensors : mapping of str to array
            Arrays of any memory layout and byte order, with native names and shapes.
        metadata : mapping of str to str, optional
            Stored where the framework's loader does not see it; ignored by formats that cannot.

        Raises
        ------
        CheckpointError
            If a name or a dtype cannot be stored.
        AconError
            If the target cannot be written.
        """


def check_writable(tensors: Mapping[str, np.ndarray], path: Path, dtypes: Collection[str], framework: str) -> None:
    """Raise CheckpointError for a name that is not text or a dtype that the format cannot store."""
    for key, array in lazy_items(tensors).items():
        if not isinstance(key, str) or not key or not is_encodable(key):
            raise CheckpointError("unsupported", f"{path}: {key!r:.80} is not a tensor name; expected non-empty Unicode text")
        if array.dtype.name not in dtypes:
            raise CheckpointError(
                "unsupported",
                f"{path}: {printable(key)}: {framework} cannot store {array.dtype.name}; "
                f"convert it to one of {', '.join(sorted(dtypes))}, or pass --cast to `acon convert`",
            )
