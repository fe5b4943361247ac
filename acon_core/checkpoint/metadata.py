"""What travels beside the tensors where a format has room: whose weights they are, and what their input must be."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.dialects import Dialect
from acon_core.errors import CheckpointError, SpecError
from acon_core.networks import Network, Preprocessing, as_tuples
from acon_core.spec import activation_name

# What a file says of its network costs no more than this to try: pixels of an image's side; blocks of a stage and the like.
LARGEST = 4096
MOST = 64


def parse_options(text: str) -> dict[str, Any]:
    """The options that a file's metadata holds, lists as tuples. Raises CheckpointError for what no network here can have."""

    def small(name: str, value: object) -> bool:
        return isinstance(value, int) and abs(value) <= (LARGEST if name == "image_size" else MOST)

    try:
        options = json.loads(text)
    except (ValueError, RecursionError):
        options = None
    fine = isinstance(options, dict) and all(
        small(name, value) or (isinstance(value, list) and len(value) <= 8 and all(small(name, each) for each in value))
        for name, value in options.items()
    )
    if not fine:
        raise CheckpointError(
            "corrupt",
            f"its options are {printable(text[:80])}, expected whole numbers or lists of them by name, none above {MOST}",
        )
    return as_tuples(options)


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
    own = ("num_classes", "input") if ":" in network.name else tuple(entries)  # a user's function is never run for a file
    told = {name: entries[name] for name in own if entries[name]}
    return told | ({"dialect": dialect.name} if dialect else {}) | {"writer": "acon-ports"}


def parse_input(text: str) -> Preprocessing:
    """The input contract in a file's metadata, or on the command line. Raises CheckpointError for what is none."""
    try:
        given = json.loads(text)
        if type(given) is not dict:
            raise SpecError("expected an object")
        return Preprocessing(**as_tuples(given))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError("corrupt", f"its input is {printable(text[:80])}: {printable(str(error)[:120])}") from None
