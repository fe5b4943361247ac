"""Which network a file's tensors are: by their names and shapes, held against the specs of the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NoReturn

import numpy as np

from acon_core.checkpoint.dialects import DIALECTS, dialect_hint, format_choices
from acon_core.checkpoint.formats import Format
from acon_core.errors import AconError, CheckpointError, SpecError
from acon_core.networks import NETWORKS, Network, create, has_choice
from acon_core.spec.activation_base import bind
from acon_core.spec.activations import ACTIVATIONS, activation, activation_name
from acon_core.spec.node import Node
from acon_core.spec.param import Shape

# What is tried when the activation is not named: the published forms, and the generators that people train in their place.
CANDIDATES = (
    *(name for name in ACTIVATIONS if name != "meta_acon"),
    *(f"meta_acon(reduction={r}, norm={norm})" for norm in ("batch", "none", "layer") for r in (4, 8, 16, 32)),
    "meta_acon(norm=none, generator=first)",
    "acon_c(shared=true)",
    "meta_acon(level=pixel)",
    "meta_acon(level=layer)",
    "prelu(shared=false)",
    "dyrelu(variant=B)",
    "repact(variant=2)",
    "repact(variant=3)",
    "fused_repact(shift=true)",
)

# At which no two candidates have the same tensors but those that have them at every width.
WIDTH = 96

Shapes = Mapping[str, Shape]
Options = Mapping[str, Any]

_plain = cache(create)


def recognise(format: Format, shapes: Shapes, network: str | None, act: str | None, options: Options) -> tuple[Format, Network]:
    """The one network whose tensors in this format have exactly these names and shapes, and the format in its dialect.

    `network`, `act`: narrow the search; the number of classes is read off the head. `options`: of the network, which without
    a name is the one that is recognised without them. Where no network fits under the names that the format says, and it says
    no dialect, the one dialect under whose names some fits is taken. Raises CheckpointError when none fits (with the nearest
    network and where it differs), or under several dialects, AconError when several networks do (with the option that decides
    between them), and SpecError for an option that does not exist.
    """
    named = sorted({"name", "act", "num_classes"} & set(options))
    if named:
        raise SpecError(f"{named[0]} is no option of a network in a file: its classes are read off the head; leave it out")
    if options and network is None:
        network = recognise(format, shapes, None, act, {})[1].name
    if network is not None:
        if format.dialect is not None:
            format.dialect.check(network)
        create(network, act, **options)  # what does not exist, or cannot have this activation, says so itself
    elif act is not None:
        activation(act)
    found = _fitting(format, shapes, network, act, options)
    if not found and format.dialect is None:
        spoken = {
            name: fitting
            for name, dialect in DIALECTS.items()
            if (fitting := _fitting(replace(format, dialect=dialect), shapes, network, act, options))
        }
        if len(spoken) > 1:
            raise CheckpointError("unsupported", dialect_hint(shapes) or format_choices(DIALECTS[name] for name in spoken))
        for name in spoken:
            format, found = replace(format, dialect=DIALECTS[name]), spoken[name]
    if not found:
        _refuse(format, shapes, network, act, options)
    if len(found) > 1:
        raise AconError(
            f"{len(found)} networks have exactly these names and shapes, and the tensors cannot tell which: {_choices(found)}"
        )
    return format, found[0]


def _fitting(format: Format, shapes: Shapes, network: str | None, act: str | None, options: Options) -> list[Network]:
    """Every network that has exactly these names and shapes in this format and its dialect."""
    if network is not None and ":" in network:
        own = create(network, act, **options)
        return [own] if _fits(format, shapes, own) else []
    names = _names(format, network, act)
    groups: list[list[str | None]] = [[act]] if act else [*_alike(format, shapes)]
    fitting = []
    # A file has whatever its network has besides the activations: one spec a network tells, before all of theirs are tried.
    for name in (name for name in names if _has(format, shapes, name, options)):
        for group in groups if has_choice(name) else [[None]]:
            one = _made(format, shapes, name, group[:1], options)
            if one and _fits(format, shapes, one[0]):
                fitting += _made(format, shapes, name, group, options)
    return fitting


def _names(format: Format, network: str | None, act: str | None) -> list[str]:
    """The networks of the registry that may be a file in this format's dialect: with an activation, those that take one."""
    dialect = format.dialect
    names = [network] if network else [name for name in NETWORKS if act is None or has_choice(name)]
    return [name for name in names if dialect is None or dialect.applies_to(name)]


def _choices(fitting: Sequence[Network]) -> str:
    """The networks that fit, the activations of each in a row, and the options that decide: the end of an error."""
    acts: dict[str, list[str]] = {}
    for each in fitting:
        acts.setdefault(each.name, []).extend([activation_name(each.activation)] if each.activation else [])
    told = [f"{name} with {' or '.join(acts[name])}" if acts[name] else f"{name} as published" for name in acts]
    if len(told) == 1:
        return f"{told[0]}; pass --act"
    more = ", and --act where there is a choice" if any(len(each) > 1 for each in acts.values()) else ""
    return f"{'; '.join(told)}; pass --network{more}"


def _alike(format: Format, shapes: Shapes) -> list[list[str | None]]:
    """The candidates whose tensors' names occur, those that have the same tensors together: one of them tells of all."""
    endings = {name.split(".", count)[-1] for name in shapes for count in range(name.count(".") + 1)}
    groups: dict[tuple[tuple[str, Shape], ...], list[str | None]] = {}
    for act in CANDIDATES:
        tensors = tuple(format.layout.each_shape(bind(activation(act), WIDTH)))
        if all(name in endings for name, _ in tensors):
            groups.setdefault(tensors, []).append(act)
    return list(groups.values())


def _published(name: str, act: str | None, options: Options) -> Network | None:
    """The network with that activation, None where it cannot have it: a value without space has no neighbours to look at."""
    try:
        return create(name, act, **options) if options else _plain(name, act)
    except SpecError:
        return None


def _made(format: Format, shapes: Shapes, name: str, acts: Sequence[str | None], options: Options) -> list[Network]:
    """The network with each of these activations that it can have, None what it was published with, and as many classes as the
    head in the file has."""
    made = []
    for act in acts:
        published = _published(name, act, options)
        if published is not None:
            classes = _classes(format, shapes, published)
            made.append(published if classes in (None, published.num_classes) else create(name, act, classes, **options))
    return made


def _bare(name: str, options: Options) -> Network:
    bare = _published(name, "identity" if has_choice(name) else None, options)
    assert bare is not None  # there is no place that cannot do nothing
    return bare


def _has(format: Format, shapes: Shapes, name: str, options: Options) -> bool:
    """Whether the tensors that a network has with every activation are there, in their shapes, whatever its classes."""
    bare = _bare(name, options)
    head = f"{_head(format, bare)[0]}."
    return all(
        native in shapes and (native.startswith(head) or shapes[native] == shape)
        for native, shape in format.layout.each_shape(bare.graph)
    )


def _nearest(format: Format, shapes: Shapes, names: Sequence[str], options: Options) -> str:
    """The network, without its activations, that fewest tensors keep from being the file."""
    return min(names, key=lambda name: len(difference(shapes, format.layout.native_shapes(_bare(name, options).graph))))


def _fits(format: Format, shapes: Shapes, network: Network) -> bool:
    """Whether the network's tensors are the file's, none missing and none left over."""
    count = 0
    for native, shape in format.layout.each_shape(network.graph):
        if shapes.get(native) != shape:
            return False
        count += 1
    return count == len(shapes)


def _head(format: Format, network: Network) -> tuple[str | None, Node]:
    """What the layer whose outputs are the classes is called in the format, and that layer."""
    places = {path: (native, node) for path, native, node in format.layout.places(network.graph)}
    return places.get(network.head, (None, network.graph)) if network.head is not None else (None, network.graph)


def _classes(format: Format, shapes: Shapes, network: Network) -> int | None:
    """The number of classes that the head's weight in the file stands for, None where there is no such weight."""
    path, head = _head(format, network)
    if path is None:
        return None
    slot = format.layout.slots(head)["weight"]
    native = shapes.get(f"{path}.{slot.name}", ()) if slot else ()
    if slot is None or len(native) != len(head.params["weight"].shape):
        return None
    return max(int(slot.to_canonical(np.broadcast_to(np.int8(0), native)).shape[0]), 1)


def _refuse(format: Format, shapes: Shapes, network: str | None, act: str | None, options: Options) -> NoReturn:
    """Raise the CheckpointError that says what to do, or which network is nearest and how it differs."""
    advice = dialect_hint(shapes) if format.dialect is None else None
    if advice:
        raise CheckpointError("unsupported", advice)
    if network is not None and ":" in network:
        candidates = [create(network, act, **options)]
    else:
        names = _names(format, network, act)
        likely = [name for name in names if _has(format, shapes, name, options)]
        nearest = likely[0] if likely else _nearest(format, shapes, names, options)
        acts: list[str | None] = [act] if act or not has_choice(nearest) else [*CANDIDATES]
        candidates = _made(format, shapes, nearest, acts, options)
    differences = [difference(shapes, format.layout.native_shapes(each.graph)) for each in candidates]
    best = min(range(len(candidates)), key=lambda index: len(differences[index]))
    raise CheckpointError(
        "unsupported",
        f"no network fits these {len(shapes)} tensors; nearest is {describe(candidates[best])}: "
        f"{differences[best][0]} ({len(differences[best])} differences); name another with --network and --act",
    )


def difference(found: Shapes, expected: Shapes) -> list[str]:
    """What keeps a set of named shapes from being another, a phrase each."""
    lines = [f"{name!r} is missing" for name in expected if name not in found]
    lines += [f"{name!r:.200} is left over" for name in found if name not in expected]
    lines += [
        f"{name!r} has shape {tuple(found[name])}, expected {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != shape
    ]
    return lines


def describe(network: Network) -> str:
    """A network in one phrase: name, activation, classes, options."""
    act = f" with {activation_name(network.activation)}" if network.activation else ""
    classes = f", {network.num_classes} classes" if network.num_classes else ""
    options = "".join(f", {name}={value}" for name, value in network.options.items())
    return f"{network.name}{act}{classes}{options}"
