"""Read a file of any format as a network and its canonical state."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.dialects import PREFIXES
from acon_core.checkpoint.formats import Format, sniff
from acon_core.checkpoint.metadata import apply_metadata_input, complete
from acon_core.checkpoint.query import NetworkQuery
from acon_core.checkpoint.recognise import recognise
from acon_core.errors import AconError, UnknownNetworkError
from acon_core.networks import Network
from acon_core.networks.sizes import unseen
from acon_core.random import Stream
from acon_core.spec import named_params
from acon_core.tensors import LazyTensors, lazy_items

FLOATS = ("float8_e5m2", "float8_e4m3fn", "float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Checkpoint:
    """A recognised file: its network and canonical state.

    Parameters
    ----------
    path : Path
        The file, or the folder of a format that is a folder.
    format : Format
        The format of the file, with the dialect of its tensor names.
    network : Network
        The recognised network, with the preprocessing that the file states.
    state : mapping of str to array
        The canonical state, in the published order. Arrays are loaded when they are accessed.
    notes : tuple of str
        What was left out, renamed or resolved while reading.
    regenerated : tuple of str
        Paths that the format does not store. Their values follow from the spec.
    warnings : tuple of str
        Metadata of the file that differ from the published network.
    """

    path: Path
    format: Format
    network: Network
    state: Mapping[str, NDArray]
    notes: tuple[str, ...] = ()
    regenerated: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def features(self, names: Sequence[str]) -> Checkpoint:
        """Return the backbone whose outputs are these stages; the checkpoint itself for no names.

        Parameters
        ----------
        names : sequence of str
            Stages of the network, as for `acon_core.networks.Network.features`.

        Returns
        -------
        Checkpoint
            The cut network, with the part of the state that it needs.

        Raises
        ------
        SpecError
            If a stage does not exist.
        """
        if not names:
            return self
        network = self.network.features(names)
        state = lazy_items(self.state)
        return replace(self, network=network, state=LazyTensors({path: state[path] for path in named_params(network.graph)}))

    @property
    def dtype(self) -> str:
        """The widest float dtype of the weights."""
        table = named_params(self.network.graph)
        names = {str(tensor.dtype) for path, tensor in lazy_items(self.state).items() if not table[path].integer}
        return max(names, key=FLOATS.index, default="float32")

    def cast(self, dtype: str) -> dict[str, NDArray]:
        """Return the state with floats cast to a dtype; integers stay int64.

        Parameters
        ----------
        dtype : str
            A float dtype, such as ``"float32"``.

        Returns
        -------
        dict of str to array
            The state in memory.
        """
        table = named_params(self.network.graph)
        return {path: array if table[path].integer else array.astype(dtype) for path, array in self.state.items()}


def read_file(path: str | os.PathLike[str]) -> tuple[Format, CheckpointFile]:
    """Read a file by its content, whatever its name. No code in the file is executed.

    Parameters
    ----------
    path : path-like
        A checkpoint of any format in `formats`.

    Returns
    -------
    format : Format
        The format, without a dialect. If several formats share the encoding, the first of them.
    file : CheckpointFile
        The tensors under the names in the file, without the prefixes of wrapper modules.

    Raises
    ------
    AconError
        If there is no such file.
    CheckpointError
        If the file is unsafe, corrupt, or of no known format.
    """
    format, file = read_as_named(path)
    return format, strip_prefix(file)


def read_as_named(path: str | os.PathLike[str]) -> tuple[Format, CheckpointFile]:
    """Read a file as `read_file` does, with the prefixes of wrapper modules."""
    path = Path(path)
    try:
        path.stat()
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        raise AconError(f"{printable(str(path))}: no such file, or it is not accessible: {error}") from error
    format = sniff(path)[0]
    return format, format.codec.read(path)


def strip_prefix(file: CheckpointFile) -> CheckpointFile:
    """Remove the prefixes of wrapper modules, nested in any order, from all tensor names."""
    for _ in PREFIXES:
        for prefix, wrapper in PREFIXES.items():
            if file.tensors and all(name.startswith(prefix) for name in file.tensors):
                tensors = {name.removeprefix(prefix): tensor for name, tensor in file.tensors.lazies.items()}
                note = f"removed the prefix {prefix!r} ({wrapper}) from all tensor names"
                file = replace(file, tensors=LazyTensors(tensors), notes=[*file.notes, note])
    return file


def read_network(
    path: str | os.PathLike[str],
    network: str | None = None,
    act: str | None = None,
    dialect: str | None = None,
    **options: Any,
) -> Checkpoint:
    """Read a checkpoint of any format as a network and its canonical state.

    No framework is needed, and no code in the file is executed.

    Parameters
    ----------
    path : path-like
        A checkpoint of any format in `formats`.
    network, act, dialect : str, optional
        What is known about the network, as in `NetworkQuery`. They take precedence over the file's
        metadata. Everything left out is read from the metadata or recognised from the tensors.
    **options
        Options of the network, likewise.

    Returns
    -------
    Checkpoint
        The network, and its state under canonical names in canonical layouts.

    Raises
    ------
    CheckpointError
        If the file is unsafe, corrupt, or not a checkpoint of a known network.
    SpecError
        If the network, activation or option does not exist.
    StateError
        If the tensors are not those of the network.
    AconError
        If several networks have exactly these tensors; the message lists what to pass.

    Examples
    --------
    >>> from acon_core.checkpoint import formats, metadata, read_network
    >>> from acon_core.networks import create
    >>> from acon_core.spec import initial_state
    >>> network = create("acon/dcn", "acon_c")
    >>> state = initial_state(network.graph)
    >>> formats()["npz"].codec.write(Path("dcn.npz"), state, metadata(network))
    >>> read_network("dcn.npz").network.name
    'acon/dcn'
    """
    return read_checkpoint(path, NetworkQuery(network, act, dialect, options))


def read_checkpoint(path: str | os.PathLike[str], query: NetworkQuery) -> Checkpoint:
    """Read a checkpoint of any format as `read_network` does."""
    return identify(Path(path), *read_file(path), query)


def load_network(path: str | os.PathLike[str], query: NetworkQuery, features: Sequence[str]) -> Checkpoint:
    """Read a checkpoint for a backend's `load`.

    Parameters
    ----------
    path : path-like
        A checkpoint of any format in `formats`.
    query : NetworkQuery
        What is known about the network.
    features : sequence of str
        Stages whose outputs the network returns; empty for the whole network.

    Returns
    -------
    Checkpoint
        The network, or its backbone, and the state.

    Warns
    -----
    UserWarning
        If the file states another preprocessing than the published one.
    """
    checkpoint = read_checkpoint(path, query)
    for text in checkpoint.warnings:
        warnings.warn(f"{path}: {text}", stacklevel=4)
    return checkpoint.features(features)


def identify(path: Path, format: Format, file: CheckpointFile, query: NetworkQuery) -> Checkpoint:
    """Return the network and canonical state of a file that was read. Errors name the path."""
    try:
        return _identify(path, format, file, query)
    except AconError as error:
        raise error.with_message(f"{path}: {error}") from None


def _identify(path: Path, format: Format, file: CheckpointFile, query: NetworkQuery) -> Checkpoint:
    query = complete(query, file.metadata)
    shapes = {name: tensor.shape for name, tensor in file.tensors.lazies.items()}
    format, network = recognise(format, shapes, query)
    state, regenerated = format.layout.to_canonical(network.graph, file.tensors)
    notes, table = list(file.notes), named_params(network.graph)
    if query.dialect is None and format.dialect is not None:
        notes.append(f"recognised the tensor names of {format.dialect.description} (dialect {format.dialect.name})")
    counters = [name for name in regenerated if table[name].kind == "counter"]
    if counters:
        notes.append(f"set {len(counters)} counters to 0 that {format.name} does not store (first: {counters[0]})")
    for name, param in table.items():
        dtype = str(state.lazies[name].dtype)
        if dtype != "int64" if param.integer else dtype not in FLOATS:
            expected = "int64" if param.integer else "a float dtype"
            raise UnknownNetworkError("unsupported", f"{name}: expected {expected}, found {dtype}; convert the tensor first")
        if param.kind == "derived" and (state[name] != param.init.draw(param.shape, Stream(name)).astype(dtype)).any():
            message = f"{name}: the network determines its values, but the file has other values"
            raise UnknownNetworkError("unsupported", message)
    notes += unseen(network)
    network, input_warnings = apply_metadata_input(network, file.metadata)
    return Checkpoint(path, format, network, state, tuple(notes), tuple(regenerated), input_warnings)
