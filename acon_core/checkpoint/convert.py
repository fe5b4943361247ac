"""Convert a checkpoint to another format: read, write, read again, and compare bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.cast import cast as cast_state
from acon_core.checkpoint.codecs import sharded
from acon_core.checkpoint.codecs.arrays import little_endian_bytes
from acon_core.checkpoint.codecs.atomic_write import check_target
from acon_core.checkpoint.dialects import dialect_named
from acon_core.checkpoint.formats import Format, format_for, format_named
from acon_core.checkpoint.metadata import check_size, metadata
from acon_core.checkpoint.plain import read_plainly
from acon_core.checkpoint.query import NetworkQuery
from acon_core.checkpoint.reading import Checkpoint
from acon_core.errors import AconError, SpecError, StateError
from acon_core.networks import Preprocessing
from acon_core.spec import ChannelwiseActivation, Graph, Node, bind, count, initial_state, named_params
from acon_core.tensors import check_names

_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class Conversion:
    """The result of `convert`.

    Parameters
    ----------
    source : Checkpoint
        What was written, after `transform` and `cast`. Its network has no name if it is not known.
    target : Format
        The format that was written.
    tensors : int
        The number of tensors in the new file.
    notes : tuple of str
        What was left out, renamed, cast or verified.
    """

    source: Checkpoint
    target: Format
    tensors: int
    notes: tuple[str, ...]


Transform = Callable[[Node, Mapping[str, NDArray]], tuple[Node, dict[str, NDArray]]]
Verify = Callable[[Checkpoint, Path, Format], list[str]]


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    to: str | None = None,
    query: NetworkQuery = NetworkQuery(),
    *,
    to_dialect: str | None = None,
    preprocessing: Preprocessing | None = None,
    shard_bytes: int | None = None,
    cast: bool = False,
    transform: Transform | None = None,
    verify: Verify | None = None,
    dry_run: bool = False,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Conversion:
    """Write a checkpoint in another format, and prove that it holds the same values.

    The new file is written beside the target, read again, compared bit for bit and passed to
    `verify`. Only then does it replace the target: an error leaves the target unchanged.

    Where both formats keep the same names and layouts, such as PyTorch's, safetensors and npz, the
    network need not be known: the tensors are copied, and a note says so.

    Parameters
    ----------
    source, target : path-like
        The checkpoint to read, and the file to write.
    to : str, optional
        The name of the target format; by default, the target's suffix decides.
    query : NetworkQuery
        What is known about the network in `source`.
    to_dialect : str, optional
        The naming scheme of the tensors in `target`.
    preprocessing : Preprocessing, optional
        The preprocessing of the input, if `source` does not state it or states it wrongly.
    shard_bytes : int, optional
        The size of a shard in bytes, for ``safetensors_sharded``.
    cast : bool
        Whether to cast dtypes that the format cannot store; see `acon_core.checkpoint.cast`.
    transform : callable, optional
        `acon_core.spec.fuse` or `acon_core.spec.fold`, applied to graph and state before writing.
    verify : callable, optional
        Called with the source, the new file and its format; returns notes, or raises. `acon convert
        --verify` passes `acon_core.verification.verify.verify`.
    dry_run : bool
        Whether to do everything but the last step: the new file is removed, not moved into place.
    on_stage : callable
        Called with ``"reading"``, ``"writing"``, ``"comparing"`` and ``"running"``.

    Returns
    -------
    Conversion
        The source, the format and notes.

    Raises
    ------
    AconError
        If the source cannot be read or recognised, the target cannot be written or is no regular
        file, or the format or dialect does not exist.
    CheckpointError
        If the format cannot store a tensor.
    StateError
        If the file that was written differs from the source.

    Examples
    --------
    >>> from acon_core.checkpoint import convert, formats, metadata
    >>> from acon_core.networks import create
    >>> from acon_core.spec import initial_state
    >>> network = create("acon/dcn", "acon_c")
    >>> state = initial_state(network.graph)
    >>> formats()["npz"].codec.write(Path("dcn.npz"), state, metadata(network))
    >>> convert("dcn.npz", "dcn.safetensors").target.name
    'safetensors'
    """
    source, target = Path(source), Path(target)
    check_target(target)
    format = replace(format_named(to) if to else format_for(target), dialect=dialect_named(to_dialect))
    if target.exists() and source.exists() and (source.samefile(target) or _is_part(target, source)):
        raise AconError(f"{target}: is the source file, or part of it; choose another target")
    on_stage("reading")
    needs_network = to_dialect is not None or preprocessing is not None or transform is not None or verify is not None
    checkpoint, format, entries = read_plainly(source, query, format, needs_network)
    if transform is not None:
        checkpoint = _transformed(checkpoint, transform)
    if preprocessing is not None:
        check_size(checkpoint.network, preprocessing)
        checkpoint = replace(checkpoint, network=replace(checkpoint.network, input=preprocessing), warnings=())
    if format.dialect is not None:
        format.dialect.check(checkpoint.network.name)
    if cast:
        checkpoint = cast_state(checkpoint, format)
    on_stage("writing")
    native = format.layout.to_native(checkpoint.network.graph, checkpoint.state)
    if entries is None:
        entries = metadata(checkpoint.network, format.dialect)
    with staging(target, dry_run) as draft:
        write(format, draft, native, entries, shard_bytes)
        on_stage("comparing")
        notes = compare(checkpoint, native, format, draft)
        if verify is not None:
            on_stage("running")
            notes += verify(checkpoint, draft, format)
    return Conversion(checkpoint, format, len(native), (*checkpoint.notes, *notes))


def _transformed(checkpoint: Checkpoint, transform: Transform) -> Checkpoint:
    """Return the checkpoint with its graph, state and activation transformed."""
    network = checkpoint.network
    try:
        graph, state = transform(network.graph, dict(checkpoint.state))
    except SpecError as error:
        raise SpecError(f"{checkpoint.path}: {error}") from None
    assert isinstance(graph, Graph)  # fuse and fold map a graph to a graph
    activation = network.activation
    if activation is not None:
        changed, _ = transform(bind(activation, 8), initial_state(bind(activation, 8)))
        activation = replace(changed, channels=None) if isinstance(changed, ChannelwiseActivation) else changed
    before, after = count(network.graph).parameters, count(graph).parameters
    note = f"removed {before - after} of {before} parameters; the outputs in evaluation mode are the same"
    network = replace(network, graph=graph, activation=activation)
    return replace(checkpoint, network=network, state=state, notes=(*checkpoint.notes, note))


def _is_part(target: Path, source: Path) -> bool:
    """Return whether a file is one of the source's: a shard of an index, or a file in a folder."""
    if source.is_dir():
        return source.resolve() in target.resolve().parents
    return sharded.sniff(source) and any(shard.exists() and shard.samefile(target) for shard in sharded.shard_paths(source))


def write(
    format: Format, path: Path, native: Mapping[str, NDArray], entries: Mapping[str, str], shard_bytes: int | None
) -> None:
    """Write native tensors and metadata. Raises AconError if the format has no shards to size."""
    if shard_bytes is None:
        format.codec.write(path, native, entries)
    elif format.codec is sharded:
        sharded.write(path, native, entries, shard_bytes=shard_bytes)
    else:
        raise AconError(f"{path}: format {format.name} has no shards; expected a target that ends in {sharded.SUFFIXES[0]}")


@contextmanager
def staging(target: Path, dry_run: bool = False) -> Iterator[Path]:
    """Yield a path in a temporary directory next to `target`.

    On success, move everything written there into place, or remove it if this is a dry run.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=".acon-", dir=target.parent))
    except OSError as error:
        raise AconError(
            f"{target}: cannot be written: {error.strerror}; check that the folder exists and is writable"
        ) from error
    try:
        draft = folder / target.name
        yield draft
        # The target last, so that an index never names shards that are not in place yet.
        parts = sorted(folder.iterdir(), key=lambda each: each == draft)
        for part in parts:
            check_target(target.parent / part.name)
        for part in parts if not dry_run else ():
            try:
                part.replace(target.parent / part.name)
            except OSError as error:
                raise AconError(f"{target.parent / part.name}: cannot be replaced: {error.strerror}; move it away") from error
    except AconError as error:
        raise error.with_message(str(error).replace(str(folder), str(target.parent))) from error
    finally:
        shutil.rmtree(folder)


def compare(checkpoint: Checkpoint, native: Mapping[str, NDArray], format: Format, written: Path) -> list[str]:
    """Read the new file and compare its names and the bits of its state with the source.

    Returns notes on what the format cannot store. Raises StateError for a difference.
    """
    file = format.codec.read(written)
    check_names(native, file.tensors, f"{written}: read back")
    state, regenerated = format.layout.to_canonical(checkpoint.network.graph, file.tensors)
    for path, array in checkpoint.state.items():
        if path not in regenerated:
            _check_same_bits(path, array, state[path])
    table = named_params(checkpoint.network.graph)
    notes = []
    lost = [path for path in regenerated if table[path].kind == "counter" and checkpoint.state[path].any()]
    if lost:
        notes.append(f"format {format.name} does not store counters: {len(lost)} will be read as 0 (first: {lost[0]})")
    if not file.metadata:
        network = checkpoint.network
        needed = [f"--option {name}={json.dumps(value, separators=(',', ':'))}" for name, value in network.options.items()]
        needed += [f"--dialect {format.dialect.name}"] if format.dialect else []
        needed += [f"the preprocessing ({network.input})"] if network.input else []
        if needed:
            notes.append(f"format {format.name} has no metadata; its reader must know: {', '.join(needed)}")
    return notes


def _check_same_bits(name: str, expected: NDArray, found: NDArray) -> None:
    if expected.dtype != found.dtype or expected.shape != found.shape:
        raise StateError(f"{name}: wrote {expected.dtype} {expected.shape}, read {found.dtype} {found.shape}")
    first, second = (np.frombuffer(little_endian_bytes(array), np.uint8) for array in (expected, found))
    # In blocks: the result of a comparison stays in the cache and never has the size of a tensor.
    if not all(np.array_equal(first[at : at + _BLOCK], second[at : at + _BLOCK]) for at in range(0, first.size, _BLOCK)):
        raise StateError(f"{name}: the values read back differ from the values written")
