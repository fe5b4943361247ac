"""A file of any format as a network and its canonical state: read by its content, recognised by its tensors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.dialects import PREFIXES, dialect_named
from acon_core.checkpoint.formats import Format, sniff
from acon_core.checkpoint.metadata import parse_input, parse_options
from acon_core.checkpoint.recognise import recognise
from acon_core.errors import AconError, CheckpointError, SpecError, StateError
from acon_core.networks import NETWORKS, Network, Preprocessing, create
from acon_core.random import Stream
from acon_core.spec import named_params
from acon_core.tensors import LazyTensors, lazy_items

Said = TypeVar("Said")
FLOATS = ("float8_e5m2", "float8_e4m3fn", "float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Checkpoint:
    """A file that was read and recognised: its network, its canonical state in the published order, what is worth telling.

    `made`: the paths that its format does not keep, whose values are those that the spec says. `warnings`: what the file says
    of itself that is not so with the published network.
    """

    path: Path
    format: Format
    network: Network
    state: Mapping[str, NDArray]
    notes: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def features(self, names: Sequence[str]) -> Checkpoint:
        """The same cut to a backbone whose outputs are those stages; as it is where none is named."""
        if not names:
            return self
        network = self.network.features(names)
        state = lazy_items(self.state)
        return replace(self, network=network, state=LazyTensors({path: state[path] for path in named_params(network.graph)}))

    @property
    def dtype(self) -> str:
        """The float dtype that holds every weight: the one that they have, or the widest where they differ."""
        table = named_params(self.network.graph)
        names = {str(tensor.dtype) for path, tensor in lazy_items(self.state).items() if not table[path].integer}
        return max(names, key=FLOATS.index, default="float32")

    def cast(self, dtype: str) -> dict[str, NDArray]:
        """The state with every weight and statistic in `dtype`; counters stay int64."""
        table = named_params(self.network.graph)
        return {path: array if table[path].integer else array.astype(dtype) for path, array in self.state.items()}


def read_file(path: str | os.PathLike[str]) -> tuple[Format, CheckpointFile]:
    """A file by its content, whatever its name. Where two formats share an encoding, the first that can be read."""
    path = Path(path)
    try:
        path.stat()
    except (OSError, ValueError) as error:  # a name with a NUL in it is a ValueError
        raise AconError(f"{printable(str(path))}: no such file, or one that cannot be reached: {error}") from error
    format = sniff(path)[0]
    return format, strip_prefix(format.codec.read(path))


def strip_prefix(file: CheckpointFile) -> CheckpointFile:
    """The tensors without what DataParallel and torch.compile put before every name, one within the other or twice."""
    for _ in PREFIXES:
        for prefix, wrapper in PREFIXES.items():
            if file.tensors and all(name.startswith(prefix) for name in file.tensors):
                tensors = {name.removeprefix(prefix): tensor for name, tensor in file.tensors.lazies.items()}
                note = f"{prefix!r} ({wrapper}) was taken off every name"
                file = replace(file, tensors=LazyTensors(tensors), notes=[*file.notes, note])
    return file


def read_network(
    path: str | os.PathLike[str],
    network: str | None = None,
    act: str | None = None,
    dialect: str | None = None,
    **options: Any,
) -> Checkpoint:
    """Read any checkpoint as a network and its canonical state. No framework is needed, nothing in the file is run.

    `network`, `act`: a registry name (or `package.module:function`) and an activation's name, where the tensors leave a
    choice; else both are recognised. `dialect`: whose names the tensors have, where they are not the spec's. `options`: the
    network's own, as for `networks.create`, such as `replace_stride_with_dilation`, which the tensors cannot tell. A file
    that was written here says all of these itself, where its format has room; what is given counts before what it says.
    Raises CheckpointError, StateError or AconError, whose message begins with the file.
    """
    spoken = dialect_named(dialect)
    format, file = read_file(path)
    try:
        format = replace(format, dialect=spoken)
        return as_checkpoint(Path(path), format, file, network, act, options)
    except CheckpointError as error:
        raise CheckpointError(error.kind, f"{path}: {error}") from None
    except (SpecError, StateError) as error:
        raise type(error)(f"{path}: {error}") from None
    except AconError as error:
        raise AconError(f"{path}: {error}") from None


def load_network(
    path: str | os.PathLike[str],
    network: str | None,
    act: str | None,
    dialect: str | None,
    features: Sequence[str],
    options: Mapping[str, Any],
) -> Checkpoint:
    """`read_network` for a backend's `load`: cut to `features`, and a UserWarning for what its user must know of the input."""
    checkpoint = read_network(path, network, act, dialect, **options)
    for text in checkpoint.warnings:
        warnings.warn(f"{path}: {text}", stacklevel=3)
    return checkpoint.features(features)


def as_checkpoint(
    path: Path, format: Format, file: CheckpointFile, network: str | None, act: str | None, options: Mapping[str, Any]
) -> Checkpoint:
    """Recognise what was read. What the file's own metadata says counts where the caller says nothing."""
    if format.dialect is None:
        format = replace(format, dialect=from_metadata(lambda: dialect_named(file.metadata.get("dialect"))))
    stated = file.metadata.get("network")
    # A registry's name alone: package.module:function would be run, and nothing that a file says is.
    if stated in NETWORKS and network in (None, stated):
        said, activation = parse_options(file.metadata.get("options", "{}")), file.metadata.get("activation")
        from_metadata(lambda: create(stated, activation, **said))
        network, act, options = stated, act or activation, {**said, **options}
    shapes = {name: tensor.shape for name, tensor in file.tensors.lazies.items()}
    asked = format.dialect
    format, found = recognise(format, shapes, network, act, options)
    state, made = format.layout.to_canonical(found.graph, file.tensors)
    notes, table = list(file.notes), named_params(found.graph)
    if format.dialect is not asked and format.dialect is not None:
        notes.append(f"the names are those of {format.dialect.about}: dialect {format.dialect.name}, which no other fits")
    counters = [name for name in made if table[name].kind == "counter"]
    if counters:
        notes.append(f"{len(counters)} counters that {format.name} does not keep were set to 0 (first: {counters[0]})")
    for name, param in table.items():
        kind = str(state.lazies[name].dtype)
        if kind != "int64" if param.integer else kind not in FLOATS:
            expected = "int64" if param.integer else "a float dtype"
            raise CheckpointError("unsupported", f"{name}: expected {expected}, found {kind}; convert the tensor first")
        if param.kind == "derived" and (state[name] != param.init.draw(param.shape, Stream(name)).astype(kind)).any():
            raise CheckpointError("unsupported", f"{name}: follows from the network, and the file has other values")
    found, told = apply_metadata_input(found, file.metadata)
    return Checkpoint(path, format, found, state, tuple(notes), tuple(made), told)


def from_metadata(what: Callable[[], Said]) -> Said:
    """What a file says of itself, as a CheckpointError where that cannot be."""
    try:
        return what()
    except CheckpointError:
        raise
    except AconError as error:
        raise CheckpointError("corrupt", f"what it says of itself cannot be: {printable(str(error))}") from None


def apply_metadata_input(network: Network, metadata: Mapping[str, str]) -> tuple[Network, tuple[str, ...]]:
    """The network with the input that the file says its weights were trained for, and a warning where that is news.

    Raises CheckpointError where the file says another number of classes than its tensors have.
    """
    classes = metadata.get("num_classes")
    if classes and classes != str(network.num_classes):
        told = f"says that it has {printable(classes[:20])} classes, its tensors have {network.num_classes}"
        raise CheckpointError("corrupt", told)
    stated = parse_input(metadata["input"]) if "input" in metadata else None
    if stated is None or stated == network.input:
        return network, ()
    check_size(network, stated)
    published = f"; {network.name} was published with {network.input}" if network.input else ""
    return replace(network, input=stated), (f"its input must be {stated}{published}",)


def check_size(network: Network, contract: Preprocessing) -> None:
    """Raise CheckpointError for an input that the network does not take."""
    try:
        network.graph.out_shapes((1, 3, contract.size, contract.size))
    except SpecError as error:
        raise CheckpointError("corrupt", f"its input is {contract.size} pixels wide, which it does not take: {error}") from None
