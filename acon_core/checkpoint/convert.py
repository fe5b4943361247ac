"""Native file -> canonical state -> native file: read, recognised, written, read again and compared bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.dialects import PREFIXES, Dialect, dialect_named
from acon_core.checkpoint.file import File, raw
from acon_core.checkpoint.formats import Format, format_for, format_named, sniff
from acon_core.checkpoint.recognise import recognise
from acon_core.errors import AconError, CheckpointError, SpecError, StateError
from acon_core.networks import NETWORKS, Network
from acon_core.random import Stream
from acon_core.spec import ChannelwiseActivation, Graph, Node, activation_name, bind, count, initial_state, named_params
from acon_core.tensors import Tensors, described

FLOATS = ("float16", "bfloat16", "float32", "float64")
# What a file says of its network costs no more than this to try: pixels of an image's side, or blocks of a stage.
LARGEST = 4096


@dataclass(frozen=True)
class Checkpoint:
    """A file that was read and recognised: its network, its canonical state in the published order, what is worth telling."""

    path: Path
    format: Format
    network: Network
    state: Mapping[str, NDArray]
    notes: tuple[str, ...]

    def features(self, names: Sequence[str]) -> Checkpoint:
        """The same cut to a backbone whose outputs are those stages; as it is where none is named."""
        if not names:
            return self
        network = self.network.features(names)
        state = described(self.state)
        return replace(self, network=network, state=Tensors({path: state[path] for path in named_params(network.graph)}))

    @property
    def dtype(self) -> str:
        """The float dtype that holds every weight: the one that they have, or the widest where they differ."""
        table = named_params(self.network.graph)
        names = {str(tensor.dtype) for path, tensor in described(self.state).items() if not table[path].integer}
        return max(names, key=FLOATS.index, default="float32")

    def cast(self, dtype: str) -> dict[str, NDArray]:
        """The state with every weight and statistic in `dtype`; counters stay int64."""
        table = named_params(self.network.graph)
        return {path: array if table[path].integer else array.astype(dtype) for path, array in self.state.items()}


def read_file(path: str | os.PathLike[str]) -> tuple[Format, File]:
    """A file by its content, whatever its name. Where two formats share an encoding, the first that can be read."""
    path = Path(path)
    if not path.exists():
        raise AconError(f"{path}: no such file")
    format = sniff(path)[0]
    return format, strip_prefix(format.files.read(path))


def strip_prefix(file: File) -> File:
    """The tensors without what DataParallel and torch.compile put before every name, each once, whichever came first."""
    for _ in PREFIXES:
        for prefix, wrapper in PREFIXES.items():
            if file.tensors and all(name.startswith(prefix) for name in file.tensors):
                tensors = {name.removeprefix(prefix): tensor for name, tensor in file.tensors.lazies.items()}
                note = f"{prefix!r} ({wrapper}) was taken off every name"
                file = replace(file, tensors=Tensors(tensors), notes=[*file.notes, note])
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
    that was written here with metadata (safetensors) says all of these itself; what is given counts before what it says.
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


def as_checkpoint(
    path: Path, format: Format, file: File, network: str | None, act: str | None, options: Mapping[str, Any]
) -> Checkpoint:
    """Recognise what was read. What the file's own metadata says counts where the caller says nothing."""
    if format.dialect is None:
        format = replace(format, dialect=dialect_named(file.metadata.get("dialect")))
    stated = file.metadata.get("network")
    # A registry's name alone: package.module:function would be run, and nothing that a file says is.
    if stated in NETWORKS and network in (None, stated):
        network, act = stated, act or file.metadata.get("activation")
        options = {**stated_options(file.metadata.get("options", "{}")), **options}
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
    return Checkpoint(path, format, found, state, tuple(notes))


def stated_options(text: str) -> dict[str, Any]:
    """The options that a file's metadata holds, lists as tuples. Raises CheckpointError for what no network here can have."""

    def small(value: object) -> bool:
        return isinstance(value, int) and abs(value) <= LARGEST

    try:
        options = json.loads(text)
    except (ValueError, RecursionError):
        options = None
    fine = isinstance(options, dict) and all(
        small(value) or (isinstance(value, list) and len(value) <= 8 and all(map(small, value))) for value in options.values()
    )
    if not fine:
        raise CheckpointError(
            "corrupt", f"its options are {text[:80]!r}, expected whole numbers or lists of them by name, none above {LARGEST}"
        )
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def metadata(network: Network, dialect: Dialect | None = None) -> dict[str, str]:
    """What travels beside the tensors where the format has room: the network, the activation, the classes, the input, the
    options, and the dialect of the names."""
    entries = {
        "network": network.name,
        "activation": activation_name(network.activation) if network.activation else "",
        "num_classes": str(network.num_classes or ""),
        "input": json.dumps(asdict(network.input)) if network.input else "",
        "options": json.dumps(dict(network.options)) if network.options else "",
    }
    told = {name: text for name, text in entries.items() if text and ":" not in network.name}
    return told | ({"dialect": dialect.name} if dialect else {}) | {"writer": "acon-ports"}


@dataclass(frozen=True)
class Conversion:
    """What a conversion did: what was read, the format written, the tensors written and what was left out."""

    source: Checkpoint
    target: Format
    tensors: int
    notes: tuple[str, ...]


Step = Callable[[str], None]
Operation = Callable[[Node, Mapping[str, NDArray]], tuple[Node, dict[str, NDArray]]]


def simplified(operation: Operation) -> Callable[[Checkpoint], Checkpoint]:
    """`fuse` or `fold` of `acon_core.spec` as a change of checkpoints: the network's activation changes with its graph."""

    def change(checkpoint: Checkpoint) -> Checkpoint:
        network = checkpoint.network
        try:
            graph, state = operation(network.graph, dict(checkpoint.state))
        except SpecError as error:
            raise SpecError(f"{checkpoint.path}: {error}") from None
        assert isinstance(graph, Graph)  # whatever is done to a graph gives one
        activation = network.activation
        if activation is not None:
            changed, _ = operation(bind(activation, 8), initial_state(bind(activation, 8)))
            activation = replace(changed, channels=None) if isinstance(changed, ChannelwiseActivation) else changed
        saved = count(network.graph).parameters - count(graph).parameters
        note = (
            f"{saved} of {count(network.graph).parameters} parameters were folded away; the function in evaluation is the same"
        )
        found = replace(network, graph=graph, activation=activation)
        return replace(checkpoint, network=found, state=state, notes=(*checkpoint.notes, note))

    return change


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    to: str | None = None,
    network: str | None = None,
    act: str | None = None,
    *,
    dialect: str | None = None,
    to_dialect: str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    change: Callable[[Checkpoint], Checkpoint] = lambda checkpoint: checkpoint,
    step: Step = lambda text: None,
    verify: Callable[[Checkpoint, Path, Format], list[str]] | None = None,
) -> Conversion:
    """Write `source` as a checkpoint of another framework, and prove that it holds the same.

    `to`: the format, else the one of the target's ending. `dialect`, `to_dialect`: whose names the tensors of each have, where
    they are not the spec's. `options`: the network's own, as for `read_network`. The new file is written beside the target,
    read again, compared with the source bit for bit, shown to `verify`, and only then takes the target's name: whatever fails
    before leaves the target as it was. `change` makes another network and state of what was read (`simplified`). `step` is
    told what happens. Raises AconError and its kinds.
    """
    source, target = Path(source), Path(target)
    format = replace(format_named(to) if to else format_for(target), dialect=dialect_named(to_dialect))
    if target.is_dir():
        raise AconError(f"{target}: is a folder; give the name of a file")
    if target.exists() and source.exists() and source.samefile(target):
        raise AconError(f"{target}: is the file that is read; give another target")
    step("reading")
    checkpoint = change(read_network(source, network, act, dialect, **options))
    if format.dialect is not None:
        format.dialect.check(checkpoint.network.name)
    step("writing")
    native = format.layout.to_native(checkpoint.network.graph, checkpoint.state)
    with staging(target) as draft:
        format.files.write(draft, native, metadata(checkpoint.network, format.dialect))
        step("comparing")
        told = compare(checkpoint, native, format, draft)
        if verify is not None:
            step("running")
            told += verify(checkpoint, draft, format)
    return Conversion(checkpoint, format, len(native), (*checkpoint.notes, *told))


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Where to write what shall become `target`: the same name in a folder beside it, which lives no longer than this.

    At the end the file, and before it whatever else was written there, takes its place; after an error nothing does.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=".acon-", dir=target.parent))
    except OSError as error:
        raise AconError(
            f"{target}: cannot be written: {error.strerror}; check that the folder exists and may be written to"
        ) from error
    try:
        draft = folder / target.name
        yield draft
        for part in sorted(folder.iterdir(), key=lambda each: each == draft):
            part.replace(target.parent / part.name)
    except AconError as error:
        message = str(error).replace(str(folder), str(target.parent))
        raise CheckpointError(error.kind, message) if isinstance(error, CheckpointError) else type(error)(message) from error
    finally:
        shutil.rmtree(folder)


def compare(checkpoint: Checkpoint, native: Mapping[str, NDArray], format: Format, written: Path) -> list[str]:
    """Read the written file again: the same names, and every bit of the state that its tensors stand for.

    Returns notes on what the format has no place for. Raises StateError otherwise.
    """
    again = format.files.read(written)
    if sorted(again.tensors) != sorted(native):
        raise StateError(f"{written}: read again, the names differ: {difference_of_names(native, again.tensors)}")
    state, made = format.layout.to_canonical(checkpoint.network.graph, again.tensors)
    for path, array in checkpoint.state.items():
        if path not in made:
            _same_bits(path, array, state[path])
    table = named_params(checkpoint.network.graph)
    notes = []
    lost = [path for path in made if table[path].kind == "counter" and checkpoint.state[path].any()]
    if lost:
        notes.append(f"{len(lost)} counters (first: {lost[0]}) have no place in a {format.name} file; they come back as 0")
    if checkpoint.network.options and "options" not in again.metadata:
        told = ", ".join(f"{name}={value}" for name, value in checkpoint.network.options.items())
        notes.append(f"options have no place in a {format.name} file; whoever reads it must pass {told}")
    return notes


def difference_of_names(expected: Mapping[str, object], found: Mapping[str, object]) -> str:
    """The first name that one has and the other has not."""
    first = sorted(set(expected) ^ set(found))[0]
    return f"{first!r} is {'missing' if first in expected else 'left over'}"


def _same_bits(name: str, expected: NDArray, found: NDArray) -> None:
    if expected.dtype != found.dtype or expected.shape != found.shape:
        raise StateError(f"{name}: wrote {expected.dtype} {expected.shape}, read {found.dtype} {found.shape}")
    if not np.array_equal(np.frombuffer(raw(expected), np.uint8), np.frombuffer(raw(found), np.uint8)):
        raise StateError(f"{name}: what was written and what was read again differ")


__all__ = ["Checkpoint", "Conversion", "convert", "metadata", "read_file", "read_network"]
