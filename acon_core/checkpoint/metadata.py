"""The metadata of a checkpoint: its network, options, dialect and preprocessing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.dialects import Dialect
from acon_core.checkpoint.query import NetworkQuery
from acon_core.errors import AconError, CheckpointError, SpecError
from acon_core.networks import NETWORKS, Network, Preprocessing, as_tuples, create
from acon_core.spec import activation_name

# Upper bounds for options read from file metadata, so that an untrusted file cannot make us build
# a huge network: for these options, and for every other, such as blocks per stage.
MAX_OPTIONS = {
    "image_size": 4096,
    "embed_dim": 2048,
    "width_per_group": 512,
    "channels": 4096,
    "in_channels": 1024,
    "window_size": 24,
}
MAX_OPTION = 64


def parse_options(text: str) -> dict[str, Any]:
    """Return the network options in metadata. Raises CheckpointError if they are invalid."""

    try:
        options = json.loads(text)
    except (ValueError, RecursionError):
        options = None
    if not isinstance(options, dict) or not are_small(options):
        raise CheckpointError(
            "corrupt",
            f"invalid metadata: options are {printable(text[:80])}, expected an object of integers or lists of them, "
            f"none above {MAX_OPTION}, or {MAX_OPTIONS}",
        )
    return as_tuples(options)


def are_small(options: Mapping[str, Any]) -> bool:
    """Return whether options are small numbers, truth values or short sequences of them."""

    def small(name: str, value: object) -> bool:
        return isinstance(value, int) and abs(value) <= MAX_OPTIONS.get(name, MAX_OPTION)

    return all(
        small(name, value) or (isinstance(value, list | tuple) and len(value) <= 8 and all(small(name, each) for each in value))
        for name, value in options.items()
    )


def metadata(network: Network, dialect: Dialect | None = None) -> dict[str, str]:
    """Return what a checkpoint of a network says about itself.

    Parameters
    ----------
    network : Network
        The network whose state is written. A network of the user's own function records only its
        number of classes and its preprocessing, because such a function is never run for a file.
    dialect : Dialect, optional
        The naming scheme of the tensors.

    Returns
    -------
    dict of str to str
        Some of ``network``, ``activation``, ``num_classes``, ``input``, ``options`` and
        ``dialect``; and ``writer``.

    Examples
    --------
    >>> from acon_core.networks import create
    >>> metadata(create("acon/dcn", "acon_c"))["activation"]
    'acon_c'
    """
    entries = {
        "network": network.name,
        "activation": activation_name(network.activation) if network.activation else "",
        "num_classes": str(network.num_classes or ""),
        "input": json.dumps(asdict(network.input)) if network.input else "",
        "options": json.dumps(dict(network.options)) if network.options else "",
    }
    names = ("num_classes", "input") if ":" in network.name else tuple(entries)
    known = {name: entries[name] for name in names if entries[name]}
    return known | ({"dialect": dialect.name} if dialect else {}) | {"writer": "acon-ports"}


def complete(query: NetworkQuery, metadata: Mapping[str, str]) -> NetworkQuery:
    """Return the query with the file's metadata where the caller left something out.

    Raises CheckpointError for metadata that describe no network.
    """
    network, act = metadata.get("network"), metadata.get("activation")
    try:
        query = replace(query, dialect=metadata.get("dialect") if query.dialect is None else query.dialect)
        # Only a registered name: `package.module:function` would run code that a file names.
        if network in NETWORKS and query.network in (None, network):
            options = parse_options(metadata.get("options", "{}"))
            create(network, act, **options)
            query = replace(query, network=network, act=query.act or act, options={**options, **query.options})
    except CheckpointError:
        raise
    except AconError as error:
        raise CheckpointError("corrupt", f"invalid metadata: {printable(str(error))}") from None
    return query


def parse_input(text: str) -> Preprocessing:
    """Return the preprocessing from JSON text. Raises CheckpointError if it is invalid."""
    try:
        fields = json.loads(text)
        if type(fields) is not dict:
            raise SpecError("expected an object")
        return Preprocessing(**as_tuples(fields))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError("corrupt", f"invalid input {printable(text[:80])}: {printable(str(error)[:120])}") from None


def apply_metadata_input(network: Network, metadata: Mapping[str, str]) -> tuple[Network, tuple[str, ...]]:
    """Return the network with the metadata's preprocessing, and a warning if it is another one.

    Raises CheckpointError if the metadata have another number of classes than the tensors.
    """
    classes = metadata.get("num_classes")
    if classes and classes != str(network.num_classes):
        message = f"metadata say {printable(classes[:20])} classes, but the tensors have {network.num_classes}"
        raise CheckpointError("corrupt", f"invalid metadata: {message}")
    preprocessing = parse_input(metadata["input"]) if "input" in metadata else None
    if preprocessing is None or preprocessing == network.input:
        return network, ()
    check_size(network, preprocessing)
    published = f"; {network.name} was published with {network.input}" if network.input else ""
    return replace(network, input=preprocessing), (f"the input must be {preprocessing}{published}",)


def check_size(network: Network, preprocessing: Preprocessing) -> None:
    """Raise CheckpointError if the network does not accept images of this size."""
    size = preprocessing.size
    try:
        network.graph.out_shapes((1, network.in_channels, size, size))
    except SpecError as error:
        raise CheckpointError("corrupt", f"invalid input: the network does not accept {size}x{size} images: {error}") from None
