"""Read a file of any format as a network and its canonical state."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.files import formats_of, read_as, read_file
from acon_core.checkpoint.formats import Format
from acon_core.checkpoint.metadata import apply_metadata_input, complete
from acon_core.checkpoint.names import groups, select, usual_prefix, without_bookkeeping
from acon_core.checkpoint.query import NetworkQuery
from acon_core.checkpoint.recognise import OWN_NETWORK, fits, recognise
from acon_core.errors import AconError, SpecError, UnknownNetworkError
from acon_core.networks import Network
from acon_core.networks.sizes import unseen
from acon_core.random import Stream
from acon_core.spec import BatchNorm, initial_state, named_params, walk
from acon_core.tensors import LazyTensors, eager, lazy_items

# Modules whose names the loaders of all frameworks accept.
_ROOTS = {"__builtin__", "_codecs", "builtins", "collections", "megengine", "numpy", "paddle", "torch"}
_PARTS = 4  # more in a file are not tried for a hint
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
    as_stored : bool
        Whether the file holds this state and nothing else, so that the framework's own loader can
        read it.
    """

    path: Path
    format: Format
    network: Network
    state: Mapping[str, NDArray]
    notes: tuple[str, ...] = ()
    regenerated: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    as_stored: bool = True

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

    def resized(self, num_classes: int | None = None, in_channels: int | None = None, seed: int = 0) -> Checkpoint:
        """Return the network with another head, another first convolution, or both.

        Parameters
        ----------
        num_classes, in_channels : int, optional
            As for `acon_core.networks.Network.resized`.
        seed : int
            Seed of the initial values of the layers that changed. Those of
            `acon_core.spec.initial_state` with this seed are the same.

        Returns
        -------
        Checkpoint
            The other layers keep their values. The checkpoint itself if no number changes.

        Raises
        ------
        SpecError
            As for `acon_core.networks.Network.resized`.
        """
        network = self.network.resized(num_classes, in_channels)
        if network is self.network:
            return self
        before = {path: node for path, node in walk(self.network.graph) if node.params}
        changed = {path for path, node in walk(network.graph) if node.params and node != before[path] and not node.children}
        state = dict(lazy_items(self.state))
        for path, array in initial_state(network.graph, seed, self.dtype, only=changed).items():
            state[path] = eager(array)
        ordered = {path: state[path] for path in named_params(network.graph)}
        return replace(self, network=network, state=LazyTensors(ordered))

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


def read_network(
    path: str | os.PathLike[str],
    network: str | None = None,
    act: str | None = None,
    dialect: str | None = None,
    *,
    key: str = "",
    strip_prefix: str | Sequence[str] = (),
    ignore: str | Sequence[str] = (),
    format: str | None = None,
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
    key, strip_prefix, ignore, format : str or sequence of str, optional
        Which tensors of the file are the network's, and its format, as in `NetworkQuery`.
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
    return read_checkpoint(path, NetworkQuery(network, act, dialect, options, key, strip_prefix, ignore, format))


def read_checkpoint(path: str | os.PathLike[str], query: NetworkQuery) -> Checkpoint:
    """Read a checkpoint of any format as `read_network` does."""
    return identify(Path(path), *read_file(path, query), query)


def load_network(
    path: str | os.PathLike[str],
    query: NetworkQuery,
    features: Sequence[str],
    num_classes: int | None = None,
    in_channels: int | None = None,
    seed: int = 0,
) -> Checkpoint:
    """Read a checkpoint for a backend's `load`.

    Parameters
    ----------
    path : path-like
        A checkpoint of any format in `formats`.
    query : NetworkQuery
        What is known about the network.
    features : sequence of str
        Stages whose outputs the network returns; empty for the whole network.
    num_classes, in_channels, seed : int, optional
        As for `Checkpoint.resized`.

    Returns
    -------
    Checkpoint
        The network, or its backbone, and the state.

    Raises
    ------
    SpecError
        If `num_classes` is given with `features`, which have no classes, and as for
        `Checkpoint.resized`.

    Warns
    -----
    UserWarning
        If the file states another preprocessing than the published one.
    """
    checkpoint = read_checkpoint(path, query)
    for text in checkpoint.warnings:
        warnings.warn(f"{path}: {text}", stacklevel=4)
    if features and num_classes is not None:
        raise SpecError(f"{path}: stages have no classes; omit num_classes={num_classes} or features")
    return checkpoint.resized(num_classes, in_channels, seed).features(features)


def identify(path: Path, format: Format, file: CheckpointFile, query: NetworkQuery) -> Checkpoint:
    """Return the network and canonical state of a file that was read. Errors name the path.

    If other formats share the encoding of the file, they are tried too. Raises AconError if the
    weights of one network would be others in another format.
    """
    rivals = [] if format.codec.IS_DIRECTORY else [each for each in formats_of(path, query) if each.name != format.name]
    try:
        try:
            found = _identify(path, format, file, query)
        except UnknownNetworkError as error:
            for rival, again in read_as(rivals, path, query):
                with suppress(UnknownNetworkError):
                    return _identify(path, rival, again, query)
            raise error from None
        for rival, again in read_as(rivals, path, query):
            _check_same_weights(found, rival, again)
    except AconError as error:
        raise error.with_message(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    return found


def _check_same_weights(found: Checkpoint, rival: Format, file: CheckpointFile) -> None:
    """Raise AconError if the tensors fit the network in another format too, with other weights."""
    shapes = {name: tensor.shape for name, tensor in file.tensors.lazies.items()}
    graph = found.network.graph
    if found.format.dialect is not None or shapes != rival.layout.native_shapes(graph):
        return
    state, _ = rival.layout.to_canonical(graph, file.tensors)
    other = next((path for path in state if not np.array_equal(state[path], found.state[path], equal_nan=True)), None)
    if other is not None:
        names = f"{found.format.name} and {rival.name}"
        choice = f"--format {found.format.name} or --format {rival.name}"
        raise AconError(f"the tensors fit formats {names}, which lay out {other} differently; pass {choice}")


def _identify(path: Path, format: Format, file: CheckpointFile, query: NetworkQuery) -> Checkpoint:
    chosen = query.key or query.strip_prefix or query.ignore or query.format or _is_adapted(file)
    query = complete(query, file.metadata)
    format, network, network_file, created = _recognised(format, without_bookkeeping(file), query)
    state, regenerated = format.layout.to_canonical(network.graph, network_file.tensors)
    notes, table = list(network_file.notes), named_params(network.graph)
    if query.dialect is None and format.dialect is not None:
        notes.append(f"recognised the tensor names of {format.dialect.description} (dialect {format.dialect.name})")
    counters = [name for name in regenerated if table[name].kind == "counter"]
    if counters:
        notes.append(f"set {len(counters)} counters to 0 that {format.name} does not store (first: {counters[0]})")
    if created:
        regenerated += [path for path, _, native, _ in format.layout.table(network.graph) if native in created]
        notes.append(f"set {len(created)} counters to 0 that the file does not have (first: {created[0]})")
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
    adapted = chosen or created or network_file is not file
    return Checkpoint(path, format, network, state, tuple(notes), tuple(regenerated), input_warnings, not adapted)


def _is_adapted(file: CheckpointFile) -> bool:
    """Whether the file holds more than a state dict that a framework's own loader can read."""
    roots = {name.partition(".")[0] for name in file.globals_seen}
    return file.place not in ("", "state_dict") or bool(file.foreign_globals) or not roots <= _ROOTS


def _recognised(format: Format, file: CheckpointFile, query: NetworkQuery) -> tuple[Format, Network, CheckpointFile, list[str]]:
    """Return format and network, the tensors under the network's names, and the counters added.

    The usual name of a network, such as Lightning's `model.`, is removed where all names begin with
    it and the network is known without it.
    """
    file, created = _with_counters(format, file)
    prefix = usual_prefix(file.tensors)
    if prefix and not (query.network and ":" in query.network):
        stripped = select(file, [prefix], [])
        try:
            return *recognise(format, _shapes(stripped), query), stripped, [name.removeprefix(prefix) for name in created]
        except UnknownNetworkError as error:
            raise _with_hint(error, format, stripped, query) from None
    try:
        return *recognise(format, _shapes(file), query), file, created
    except UnknownNetworkError as error:
        raise _with_hint(error, format, file, query) from None


def _with_hint(error: UnknownNetworkError, format: Format, file: CheckpointFile, query: NetworkQuery) -> AconError:
    """Return the error with the part of the file that is a network, if a part is."""
    parts = groups(file.tensors.lazies)
    whole = len(parts) == 1 and len(next(iter(parts.values()))) == len(file.tensors)
    shapes = {step: {name: tensor.shape for name, tensor in part.items()} for step, part in parts.items()}
    known = [step for step, part in shapes.items() if fits(format, part, query)] if len(parts) <= _PARTS else []
    if not known:
        return error
    choices = " or ".join(f"--strip-prefix {step}." if whole else f"--key {step}" for step in map(printable, known))
    return error.with_message(f"{str(error).removesuffix(f'; {OWN_NETWORK}')}; a network is below {known[0]!r}: pass {choices}")


def _with_counters(format: Format, file: CheckpointFile) -> tuple[CheckpointFile, list[str]]:
    """Add the counters of BatchNorms, as 0, that PyTorch before 0.4.1 did not store."""
    slots = format.layout.slots(BatchNorm(1))
    mean, counter = slots["running_mean"], slots["num_batches_tracked"]
    if mean is None or counter is None:
        return file, []
    paths = [name.removesuffix(mean.name) for name in file.tensors if f".{name}".endswith(f".{mean.name}")]
    created = [f"{path}{counter.name}" for path in paths if f"{path}{counter.name}" not in file.tensors]
    if not created:
        return file, []
    tensors = file.tensors.lazies | {name: eager(np.zeros((), np.int64)) for name in created}
    return replace(file, tensors=LazyTensors(tensors)), created


def _shapes(file: CheckpointFile) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in file.tensors.lazies.items()}
