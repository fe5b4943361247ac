"""Read a file for a conversion: as a network, or tensor for tensor where names and layouts stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.files import read_as_named
from acon_core.checkpoint.formats import Format
from acon_core.checkpoint.names import strip_wrappers
from acon_core.checkpoint.query import NetworkQuery
from acon_core.checkpoint.reading import Checkpoint, identify
from acon_core.checkpoint.recognise import OWN_NETWORK
from acon_core.errors import UnknownNetworkError
from acon_core.networks import Network
from acon_core.spec import Constant, Graph, Param


def read_plainly(
    path: Path, query: NetworkQuery, target: Format, needs_network: bool
) -> tuple[Checkpoint, Format, Mapping[str, str] | None]:
    """Return what to write, the format to write, and the metadata of a file of an unknown network.

    The metadata are None for a network that is known. An unknown network is one whose parameters
    are the tensors of the file; it has no name. `needs_network`: whether the network must be known.

    Raises UnknownNetworkError if it must be known and is not: also because the formats have
    different layouts, or because the query or the file names a network.
    """
    format, file = read_as_named(path, query)
    try:
        return identify(path, format, strip_wrappers(file), query), target, None
    except UnknownNetworkError as error:
        if needs_network or query.is_about_network or "network" in file.metadata:
            raise
        if _layout_of(format) != _layout_of(target):
            layouts = f"{format.name} and {target.name} lay out some layers differently, so the layers must be known"
            raise error.with_message(f"{error}; {layouts}") from None
        reason = str(error).removeprefix(f"{path}: ").removesuffix(f"; {OWN_NETWORK}")
        note = f"copied tensor for tensor, names and layouts unchanged: {reason}"
        # Without a backend, a format has the canonical layout, which changes nothing.
        return _bag(path, replace(format, backend=None), file, note), replace(target, backend=None), file.metadata


def _layout_of(format: Format) -> str:
    """Return the framework whose names and layouts a format has; the spec's are PyTorch's."""
    return format.backend or "torch"


def _bag(path: Path, format: Format, file: CheckpointFile, note: str) -> Checkpoint:
    """Return the tensors of a file as the parameters of a network without layers."""
    zeros = Constant(0.0)
    params = {name: Param(tensor.shape, zeros) for name, tensor in file.tensors.lazies.items()}
    return Checkpoint(path, format, Network("", Graph((), (), (), {}, params)), file.tensors, (*file.notes, note))
