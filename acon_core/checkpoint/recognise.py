"""Which network a file's tensors are: by their names and shapes, held against the specs of the registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np

from acon_core.checkpoint.formats import Format
from acon_core.errors import AconError, CheckpointError
from acon_core.networks import NETWORKS, Network, create
from acon_core.spec.activations import ACTIVATIONS, activation_name
from acon_core.spec.node import Node
from acon_core.spec.param import Shape

# What is tried when the activation is not named: the published forms, and the generators that people train in their place.
CANDIDATES = (
    *(name for name in ACTIVATIONS if name != "meta_acon"),
    "meta_acon",
    *(f"meta_acon(reduction={r}, norm={norm})" for norm in ("batch", "none", "layer") for r in (4, 8, 16, 32)),
    "meta_acon(level=pixel)",
    "meta_acon(level=layer)",
    "prelu(shared=false)",
    "dyrelu(variant=B)",
    "repact(variant=2)",
    "repact(variant=3)",
    "fused_repact(shift=true)",
)

Shapes = Mapping[str, Shape]


@cache
def _published(name: str, act: str) -> Network:
    return create(name, act)


def recognise(format: Format, shapes: Shapes, network: str | None, act: str | None) -> Network:
    """The one network whose tensors in this format have exactly these names and shapes.

    `network`, `act`: narrow the search; the number of classes is read off the head. Raises CheckpointError when none fits
    (with the nearest one and where it differs), or several do (with the option that decides between them).
    """
    if network is not None and ":" in network:
        own = create(network)
        return _exactly(format, shapes, [own])
    seen: dict[tuple[str, str], Network] = {}
    for candidate in _candidates(format, shapes, network, act):
        key = (candidate.name, activation_name(candidate.activation)) if candidate.activation else (candidate.name, "")
        seen.setdefault(key, candidate)
    return _exactly(format, shapes, list(seen.values()))


def _candidates(format: Format, shapes: Shapes, network: str | None, act: str | None) -> Iterator[Network]:
    names = [network] if network else list(NETWORKS)
    # A file has whatever its network has besides the activations: one spec a network tells, before all of theirs are tried.
    for name in [name for name in names if _has(format, shapes, name)] or names:
        for activation in [act] if act else CANDIDATES:
            published = _published(name, activation)
            classes = _classes(format, shapes, published)
            yield published if classes in (None, published.num_classes) else create(name, activation, classes)


def _has(format: Format, shapes: Shapes, name: str) -> bool:
    """Whether the tensors that a network has with every activation are there, in their shapes, whatever its classes."""
    bare = _published(name, "identity")
    return all(
        native in shapes and (native.startswith(f"{bare.head}.") or shapes[native] == shape)
        for native, shape in format.layout.native_shapes(bare.graph).items()
    )


def _classes(format: Format, shapes: Shapes, network: Network) -> int | None:
    """The number of classes that the head's weight in the file stands for, None where there is no such weight."""
    if network.head is None:
        return None
    head: Node = network.graph
    for name in network.head.split("."):
        head = head.children[name]
    slot = format.layout.slots(head)["weight"]
    native = shapes.get(f"{network.head}.{slot.name}", ()) if slot else ()
    if slot is None or len(native) != len(head.params["weight"].shape):
        return None
    return max(int(slot.to_canonical(np.broadcast_to(np.int8(0), native)).shape[0]), 1)


def _exactly(format: Format, shapes: Shapes, candidates: list[Network]) -> Network:
    differences = [difference(shapes, format.layout.native_shapes(each.graph)) for each in candidates]
    fitting = [each for each, found in zip(candidates, differences, strict=True) if not found]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        nearest = min(range(len(candidates)), key=lambda index: len(differences[index]))
        raise CheckpointError(
            "unsupported",
            f"no network fits these {len(shapes)} tensors; nearest is {describe(candidates[nearest])}: "
            f"{differences[nearest][0]} ({len(differences[nearest])} differences); name another with --network and --act",
        )
    option = "--act" if len({each.name for each in fitting}) == 1 else "--network"
    raise AconError(
        f"{len(fitting)} networks have exactly these names and shapes, and the tensors cannot tell which: "
        f"{'; '.join(describe(each) for each in fitting)}; pass {option}"
    )


def difference(found: Shapes, expected: Shapes) -> list[str]:
    """What keeps a set of named shapes from being another, a phrase each."""
    lines = [f"{name!r} is missing" for name in expected if name not in found]
    lines += [f"{name!r} is left over" for name in found if name not in expected]
    lines += [
        f"{name!r} has shape {tuple(found[name])}, expected {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != shape
    ]
    return lines


def describe(network: Network) -> str:
    """A network in one phrase: name, activation, classes."""
    act = f" with {activation_name(network.activation)}" if network.activation else ""
    classes = f", {network.num_classes} classes" if network.num_classes else ""
    return f"{network.name}{act}{classes}"
