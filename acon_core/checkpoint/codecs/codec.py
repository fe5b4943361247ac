"""The interface of a codec, the module that reads and writes one file format."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.codecs.strict_json import is_encodable
from acon_core.checkpoint.codecs.text import format_names, printable
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensors, lazy_items


@dataclass
class CheckpointFile:
    """The content of a checkpoint file.

    Attributes
    ----------
    tensors : LazyTensors
        The tensors by their names in the file, in the order of the file.
    metadata : dict of str to str
        The metadata passed to `Codec.write`; empty for formats that cannot store it.
    notes : list of str
        Messages for the user: what was ignored, or which of several readings was taken.
    globals_seen : tuple of str
        Dotted names of the globals in a pickle. None of them was imported or called.
    foreign_globals : tuple of str
        Those of `globals_seen` outside the table of globals that the reader knows. They occur where
        a whole module was pickled, or objects of other classes beside the weights; a loader that
        unpickles the file would import them.
    place : str
        The keys of the file, joined with dots, under which the tensors are; empty at the top.
    """

    tensors: LazyTensors
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    globals_seen: tuple[str, ...] = ()
    foreign_globals: tuple[str, ...] = ()
    place: str = ""

    def under(self, key: str, path: Path) -> CheckpointFile:
        """Return the tensors whose names begin with `key` and a dot, without that; all for ""."""
        if not key:
            return self
        start = f"{key}."
        lazies = {name.removeprefix(start): each for name, each in self.tensors.lazies.items() if name.startswith(start)}
        if not lazies:
            found = format_names(dict.fromkeys(name.partition(".")[0] for name in self.tensors))
            message = f"no tensor name begins with {printable(start)}; they begin with {found}"
            raise CheckpointError("unsupported", f"{path}: --key {printable(key)}: {message}")
        note = f"read the tensors under {key!r}"
        return replace(self, tensors=LazyTensors(lazies), notes=[*self.notes, note], place=key)


class Codec(Protocol):
    """Reader and writer of one file format, as a module with these attributes and functions.

    A backend's `checkpoint/codec.py` is the codec of its framework's format. It may name further
    modules in `EXTRA_CODECS`, a dict from format name to codec. Formats that belong to no framework
    are in `acon_core/checkpoint/codecs`. A codec imports no framework and executes nothing that a
    file contains. `acon_core.checkpoint.formats` registers the codecs.
    """

    @property
    def SUFFIXES(self) -> tuple[str, ...]:  # noqa: N802
        """File name suffixes, the usual one first; empty if another codec claims them."""

    @property
    def FRAMEWORK(self) -> str:  # noqa: N802
        """Import name of the framework whose format this is; empty for a neutral format."""

    @property
    def IS_DIRECTORY(self) -> bool:  # noqa: N802
        """Whether a checkpoint is a directory instead of a file."""

    @property
    def DTYPES(self) -> Collection[str]:  # noqa: N802
        """NumPy names of the dtypes that `write` accepts; empty for a read-only format."""

    def sniff(self, path: Path) -> bool:
        """Tell from the content of a file, not its name, whether it has this format.

        Parameters
        ----------
        path : Path
            An existing file, or a directory if `IS_DIRECTORY`.

        Returns
        -------
        bool
            True also for a damaged or unsafe file of this format, which `read` then refuses.

        Raises
        ------
        AconError
            If the file cannot be opened.
        """

    def read(self, path: Path, key: str = "") -> CheckpointFile:
        """Read the tensors of a file under the names that the file gives them.

        Shapes, dtypes and sizes are checked here, against `limits.LIMITS`. The
        bytes of a tensor are copied or decompressed when it is loaded.

        Parameters
        ----------
        path : Path
            A file of any content; it is not trusted.
        key : str
            Where the tensors are, as keys joined with dots; by default, where the only state dict
            of the file is.

        Returns
        -------
        CheckpointFile
            Arrays are read-only, C-contiguous, aligned and of native byte order.

        Raises
        ------
        CheckpointError
            If the file is unsafe, corrupt or unsupported. The message begins with `path`, names the
            tensor if there is one, and is one printable line. Loading a tensor may raise it too.
        AconError
            If the file cannot be opened.
        """

    def write(self, path: Path, tensors: Mapping[str, NDArray], metadata: Mapping[str, str] | None = None) -> None:
        """Write a file atomically, in the form that the framework's own loader accepts.

        Equal arguments give equal bytes. Lazy tensors are loaded one at a time.

        Parameters
        ----------
        path : Path
            The target. An existing file or symbolic link is replaced; a link is not followed.
        tensors : mapping of str to array
            Arrays of any memory layout and byte order, with native names and shapes.
        metadata : mapping of str to str, optional
            Stored where the framework's loader ignores it. Dropped by formats that cannot store it.

        Raises
        ------
        CheckpointError
            If a name or a dtype cannot be stored.
        AconError
            If the target cannot be written.
        """


def check_writable(tensors: Mapping[str, np.ndarray], path: Path, dtypes: Collection[str], framework: str) -> None:
    """Raise CheckpointError for a name that is not Unicode text or a dtype not in `dtypes`."""
    for key, array in lazy_items(tensors).items():
        if not isinstance(key, str) or not key or not is_encodable(key):
            raise CheckpointError("unsupported", f"{path}: {key!r:.80} is not a tensor name; expected non-empty Unicode text")
        if array.dtype.name not in dtypes:
            raise CheckpointError(
                "unsupported",
                f"{path}: {printable(key)}: {framework} cannot store {array.dtype.name}; "
                f"convert it to one of {', '.join(sorted(dtypes))}, or pass --cast to `acon convert`",
            )
