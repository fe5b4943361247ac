"""Native file -> canonical state -> native file: read, recognised, written, read again and compared bit for bit."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.cast import cast as cast_state
from acon_core.checkpoint.codecs import sharded
from acon_core.checkpoint.codecs.arrays import little_endian_bytes
from acon_core.checkpoint.dialects import dialect_named
from acon_core.checkpoint.formats import Format, format_for, format_named
from acon_core.checkpoint.metadata import metadata
from acon_core.checkpoint.reading import Checkpoint, check_size, read_network
from acon_core.errors import AconError, CheckpointError, SpecError, StateError
from acon_core.networks import Preprocessing
from acon_core.spec import ChannelwiseActivation, Graph, Node, bind, count, initial_state, named_params

_PART = 1 << 20  # bytes


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
    contract: Preprocessing | None = None,
    shard_bytes: int | None = None,
    cast: bool = False,
    change: Callable[[Checkpoint], Checkpoint] = lambda checkpoint: checkpoint,
    step: Step = lambda text: None,
    verify: Callable[[Checkpoint, Path, Format], list[str]] | None = None,
) -> Conversion:
    """Write `source` as a checkpoint of another framework, and prove that it holds the same.

    `to`: the format, else the one of the target's ending. `dialect`, `to_dialect`: whose names the tensors of each have, where
    they are not the spec's. `options`: the network's own, as for `read_network`. `contract`: what the input must be, where the
    source does not say it or says it wrongly. `shard_bytes`: the size of a shard of `safetensors_sharded`. `cast`: whether a
    dtype that the format cannot hold may become one that it can (`cast.INSTEAD`). `change` makes another network and state of
    what was read (`simplified`). `step` is told what happens. Raises AconError and its kinds.

    The new file is written beside the target, read again, compared with the source bit for bit, shown to `verify`, and only
    then takes the target's name: whatever fails before leaves the target as it was.
    """
    source, target = Path(source), Path(target)
    format = replace(format_named(to) if to else format_for(target), dialect=dialect_named(to_dialect))
    if target.is_dir():
        raise AconError(f"{target}: is a folder; give the name of a file")
    if target.exists() and source.exists() and (source.samefile(target) or _is_part(target, source)):
        raise AconError(f"{target}: is the file that is read; give another target")
    step("reading")
    checkpoint = change(read_network(source, network, act, dialect, **options))
    if contract is not None:
        check_size(checkpoint.network, contract)
        checkpoint = replace(checkpoint, network=replace(checkpoint.network, input=contract), warnings=())
    if format.dialect is not None:
        format.dialect.check(checkpoint.network.name)
    if cast:
        checkpoint = cast_state(checkpoint, format)
    step("writing")
    native = format.layout.to_native(checkpoint.network.graph, checkpoint.state)
    with staging(target) as draft:
        write(format, draft, native, metadata(checkpoint.network, format.dialect), shard_bytes)
        step("comparing")
        told = compare(checkpoint, native, format, draft)
        if verify is not None:
            step("running")
            told += verify(checkpoint, draft, format)
    return Conversion(checkpoint, format, len(native), (*checkpoint.notes, *told))


def _is_part(target: Path, source: Path) -> bool:
    """Whether a file is one of those that a source is made of: a shard of an index, or anything in a folder."""
    if source.is_dir():
        return source.resolve() in target.resolve().parents
    return sharded.sniff(source) and any(shard.exists() and shard.samefile(target) for shard in sharded.shards(source))


def write(
    format: Format, path: Path, native: Mapping[str, NDArray], entries: Mapping[str, str], shard_bytes: int | None
) -> None:
    """Write native tensors, in shards of a size where one is given. Raises AconError where the format has no shards."""
    if shard_bytes is None:
        format.codec.write(path, native, entries)
    elif format.codec is sharded:
        sharded.write(path, native, entries, shard_bytes=shard_bytes)
    else:
        raise AconError(f"{path}: a {format.name} file has no shards; end the target's name in {sharded.SUFFIXES[0]}")


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
            try:
                part.replace(target.parent / part.name)
            except OSError as error:
                raise AconError(f"{target.parent / part.name}: cannot be replaced: {error.strerror}; move it away") from error
    except AconError as error:
        message = str(error).replace(str(folder), str(target.parent))
        raise CheckpointError(error.kind, message) if isinstance(error, CheckpointError) else type(error)(message) from error
    finally:
        shutil.rmtree(folder)


def compare(checkpoint: Checkpoint, native: Mapping[str, NDArray], format: Format, written: Path) -> list[str]:
    """Read the written file again: the same names, and every bit of the state that its tensors stand for.

    Returns notes on what the format has no place for. Raises StateError otherwise.
    """
    again = format.codec.read(written)
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
    if not again.metadata:
        told = [f"{name}={value}" for name, value in checkpoint.network.options.items()]
        told += [f"--dialect {format.dialect.name}"] if format.dialect else []
        told += [f"that the input must be {checkpoint.network.input}"] if checkpoint.network.input else []
        if told:
            notes.append(f"a {format.name} file has no place for what its reader must know or pass: {', '.join(told)}")
    return notes


def difference_of_names(expected: Mapping[str, object], found: Mapping[str, object]) -> str:
    """The first name that one has and the other has not."""
    first = sorted(set(expected) ^ set(found))[0]
    return f"{first!r} is {'missing' if first in expected else 'left over'}"


def _same_bits(name: str, expected: NDArray, found: NDArray) -> None:
    if expected.dtype != found.dtype or expected.shape != found.shape:
        raise StateError(f"{name}: wrote {expected.dtype} {expected.shape}, read {found.dtype} {found.shape}")
    first, second = (np.frombuffer(little_endian_bytes(array), np.uint8) for array in (expected, found))
    # Part by part, so that what the comparison makes stays in the cache and never has a tensor's size.
    if not all(np.array_equal(first[at : at + _PART], second[at : at + _PART]) for at in range(0, first.size, _PART)):
        raise StateError(f"{name}: what was written and what was read again differ")
