"""Recognise the network in a file by the names and shapes of its tensors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from acon_core.checkpoint.dialects import DIALECTS, dialect_hint, dialect_named, format_choices
from acon_core.checkpoint.formats import Format, format_named
from acon_core.checkpoint.metadata import are_small
from acon_core.checkpoint.query import NetworkQuery
from acon_core.errors import AconError, CheckpointError, SpecError, UnknownNetworkError
from acon_core.layout import Layout, Slot
from acon_core.networks import NETWORKS, Network, create, keeps_activations
from acon_core.networks.sizes import sizes_of
from acon_core.spec.activation_base import bind
from acon_core.spec.activations import ACTIVATIONS, activation, activation_name
from acon_core.spec.node import Node
from acon_core.spec.param import Shape

# Activations that are tried if none is given: the published ones, and variants that people train.
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

OWN_NETWORK = (
    "for a network of your own, write its spec and pass --network package.module:function "
    "(docs/usage.md, A network of your own)"
)

# A width at which two candidates have equal tensors only if they have them at every width.
WIDTH = 96

# Parameters of `create` that are not options when reading a file, and what to do instead.
RESERVED = {"name": "pass --network", "act": "pass --act", "num_classes": "omit it, the tensors of the head determine it"}

Shapes = Mapping[str, Shape]

_create_cached = cache(create)


def recognise(format: Format, shapes: Shapes, query: NetworkQuery) -> tuple[Format, Network]:
    """Return the only network with exactly these tensors, and the format in its dialect.

    The number of classes follows from the head. Options without a network apply to the network that
    is recognised without them. If no network matches without a dialect, each dialect is tried.

    Raises UnknownNetworkError if no network matches, with the nearest one and how it differs if
    most names agree; CheckpointError if several dialects match; AconError if several networks
    match, with what to pass; SpecError if an option does not exist.
    """
    for name, advice in RESERVED.items():
        if name in query.options:
            raise SpecError(f"{name} is not an option of a network in a file; {advice}")
    if query.options and query.network is None:
        _, network = recognise(format, shapes, replace(query, options={}))
        query = replace(query, network=network.name, options={**network.options, **query.options})
    _check(query)
    search = _Search(replace(format, dialect=dialect_named(query.dialect)), shapes, query)
    # First the published sizes, then those that the shapes show.
    for attempt in (search, replace(search, sized=True)):
        search = attempt
        if not search.matches and query.dialect is None:
            in_dialect = (replace(search, format=replace(format, dialect=dialect)) for dialect in DIALECTS.values())
            successful = [each for each in in_dialect if each.matches]
            if len(successful) > 1:
                dialects = [each.format.dialect for each in successful if each.format.dialect]
                raise CheckpointError("unsupported", dialect_hint(shapes) or format_choices(dialects))
            search = successful[0] if successful else search
        if search.matches:
            break
    if not search.matches:
        raise search.mismatch()
    if len(search.matches) > 1:
        count = len(search.matches)
        raise AconError(f"the tensors are ambiguous: {count} networks have these names and shapes: {_choices(search.matches)}")
    return search.format, search.matches[0]


def fits(format: Format, shapes: Shapes, query: NetworkQuery) -> bool:
    """Return whether these are exactly the tensors of a network, in any dialect."""
    try:
        recognise(format, shapes, query)
    except UnknownNetworkError:
        return False
    except AconError:  # several networks or dialects
        return True
    return True


def _check(query: NetworkQuery) -> None:
    """Raise AconError if the query's network, activation or option does not exist or apply."""
    if query.network is not None:
        if dialect := dialect_named(query.dialect):
            dialect.check(query.network)
        create(query.network, query.act, **query.options)
    elif query.act is not None:
        activation(query.act)


@dataclass(frozen=True)
class _Search:
    """The tensors of a file against the networks that a query allows, in one format and dialect.

    `sized`: whether options that the query leaves out are taken from the shapes.
    """

    format: Format
    shapes: Shapes
    query: NetworkQuery
    sized: bool = False

    @cached_property
    def names(self) -> list[str]:
        """The networks that the query and the dialect allow."""
        network, dialect = self.query.network, self.format.dialect
        names = [network] if network else list(NETWORKS)
        return [name for name in names if dialect is None or dialect.applies_to(name)]

    @cached_property
    def likely(self) -> list[str]:
        """Those of `names` whose tensors outside the activations are all in the file.

        One spec per network decides this, before its activations are tried.
        """
        return [name for name in self.names if self._has_skeleton(name)]

    @cached_property
    def matches(self) -> list[Network]:
        """The networks with exactly the tensors of the file.

        Networks with their publisher's activations are tried with others only where nothing else
        fits: some have the names and shapes of a network that is published with these others.
        """
        if not self.likely:
            return []
        groups: list[list[str | None]] = [[self.query.act]] if self.query.act else self._activation_groups()
        kept = [name for name in self.likely if ":" in name or keeps_activations(name)]
        chosen = [name for name in self.likely if name not in kept]
        published = [] if self.query.act else self._fitting(kept, [[None]])
        return [*self._fitting(chosen, groups), *published] or self._fitting(kept, groups)

    def _fitting(self, names: Sequence[str], groups: Sequence[Sequence[str | None]]) -> list[Network]:
        """Return the networks of these names and activations that have the tensors of the file."""
        matches = []
        for name in names:
            for acts in groups:
                if any(self._equals(network) for network in self._networks(name, acts[:1])):
                    matches += self._networks(name, acts)
        return matches

    def mismatch(self) -> AconError:
        """Return the error for no match: what to pass, or how the nearest network differs."""
        hint = dialect_hint(self.shapes) if self.format.dialect is None else None
        if hint:
            return UnknownNetworkError("unsupported", hint)
        unknown = f"no network has exactly these {len(self.shapes)} tensors"
        name = self.likely[0] if self.likely else max(self.names, key=self._agreement)
        if self.query.network is None and self._agreement(name) <= 0.5:
            return UnknownNetworkError("unsupported", f"{unknown}, or most of their names; {OWN_NETWORK}")
        acts = [self.query.act] if self.query.act or ":" in name else [None, *CANDIDATES]
        networks = self._networks(name, acts) or [self._skeleton(name)]
        candidates = [(network, self._differences(network)) for network in networks]
        nearest, differences = min(candidates, key=lambda candidate: len(candidate[1]))
        own = f"; {OWN_NETWORK}" if self.query.network is None else ""
        return UnknownNetworkError(
            "unsupported",
            f"{unknown}; the nearest is {describe(nearest)}: "
            f"{differences[0]} ({len(differences)} differences); pass another --network or --act{own}",
        )

    def _agreement(self, name: str) -> float:
        """Return the part of the names in the file, and in the skeleton, that are in both."""
        names = _skeleton_names(self.format.name, self.format.dialect and self.format.dialect.name, name)
        return len(names & self.shapes.keys()) / max(len(names), len(self.shapes))

    def _activation_groups(self) -> list[list[str | None]]:
        """Return the candidates whose tensor names are in the file, grouped by equal tensors."""
        suffixes = {name.split(".", count)[-1] for name in self.shapes for count in range(name.count(".") + 1)}
        groups: dict[tuple[tuple[str, Shape], ...], list[str | None]] = {}
        for act in CANDIDATES:
            tensors = tuple(self.format.layout.each_shape(bind(activation(act), WIDTH)))
            if all(name in suffixes for name, _ in tensors):
                groups.setdefault(tensors, []).append(act)
        return list(groups.values())

    def _published(self, name: str, act: str | None) -> Network | None:
        """Return the network with the published classes, or None if it refuses the activation."""
        options = self._options(name)
        try:
            # A user's own function may change between calls.
            return create(name, act, **options) if options or ":" in name else _create_cached(name, act)
        except SpecError:
            return None

    def _networks(self, name: str, acts: Sequence[str | None]) -> list[Network]:
        """Return the network with each activation that it accepts and the classes in the file."""
        networks = []
        for act in acts:
            published = self._published(name, act)
            if published is not None:
                classes = None if ":" in name else self._num_classes(published)
                same = classes in (None, published.num_classes)
                networks.append(published if same else create(name, act, classes, **self._options(name)))
        return networks

    def _options(self, name: str) -> Mapping[str, Any]:
        """Return the options of a network: those of the query, and those that the shapes show."""
        if not self.sized or ":" in name:
            return self.query.options
        if name not in self._found:
            skeleton = _create_cached(name, "identity")
            file = _FileShapes(self.format.layout, self.shapes, skeleton)
            sizes = sizes_of(file, skeleton) if file.begins_alike else {}
            try:
                if sizes and not are_small(sizes):
                    raise SpecError("larger than any published network")
                self._found[name] = create(name, "identity", **sizes).options if sizes else {}
            except SpecError:
                self._found[name] = {}
        return {**self._found[name], **self.query.options}

    @cached_property
    def _found(self) -> dict[str, Mapping[str, Any]]:
        """The options that the shapes show, by network."""
        return {}

    def _skeleton(self, name: str) -> Network:
        """Return the network without its activations."""
        skeleton = self._published(name, "identity" if ":" not in name else None)
        assert skeleton is not None  # every network accepts identity
        return skeleton

    def _has_skeleton(self, name: str) -> bool:
        """Return whether the file has the tensors of the skeleton, for any number of classes."""
        skeleton = self._skeleton(name)
        shapes = self.format.layout.each_shape(skeleton.graph)
        if next(shapes)[0] not in self.shapes:
            return False
        head = f"{self._head(skeleton)[0]}."
        return all(
            native in self.shapes and (native.startswith(head) or self.shapes[native] == shape)
            for native, shape in self.format.layout.each_shape(skeleton.graph)
        )

    def _equals(self, network: Network) -> bool:
        """Return whether the file has exactly the network's tensors."""
        count = 0
        for native, shape in self.format.layout.each_shape(network.graph):
            if self.shapes.get(native) != shape:
                return False
            count += 1
        return count == len(self.shapes)

    def _differences(self, network: Network) -> list[str]:
        return difference(self.shapes, self.format.layout.native_shapes(network.graph))

    def _head(self, network: Network) -> tuple[str | None, Node]:
        """Return the native path of the layer whose outputs are the classes, and the layer."""
        places = {path: (native, node) for path, native, node in self.format.layout.places(network.graph)}
        return places.get(network.head, (None, network.graph)) if network.head is not None else (None, network.graph)

    def _num_classes(self, network: Network) -> int | None:
        """Return the classes of the head's weight in the file; None if there is no such weight."""
        path, head = self._head(network)
        if path is None:
            return None
        slot = self.format.layout.slots(head)["weight"]
        native = self.shapes.get(f"{path}.{slot.name}", ()) if slot else ()
        if slot is None or len(native) != len(head.params["weight"].shape):
            return None
        return max(int(slot.to_canonical(np.broadcast_to(np.int8(0), native)).shape[0]), 1)


class _FileShapes:
    """`acon_core.networks.sizes.Tensors`: the shapes of a file, by the paths of a network."""

    def __init__(self, layout: Layout, shapes: Shapes, network: Network) -> None:
        self.layout, self.shapes, self.network = layout, shapes, network

    @property
    def begins_alike(self) -> bool:
        """Whether the file has the name of the network's first tensor."""
        return next(self.layout.each_shape(self.network.graph))[0] in self.shapes

    @cached_property
    def table(self) -> dict[str, tuple[str, Slot]]:
        """Native name and slot by path."""
        table = self.layout.table(self.network.graph)
        return {path: (native, slot) for path, _, native, slot in table if native is not None and slot is not None}

    def shape(self, path: str) -> Shape:
        native, slot = self.table.get(path, ("", Slot("")))
        shape = self.shapes.get(native, ())
        try:
            return slot.to_canonical(np.broadcast_to(np.int8(0), shape)).shape
        except (ValueError, IndexError):  # of another rank than in the network
            return ()

    def elements(self, path: str) -> int:
        native = self.table.get(path, ("",))[0]
        return int(np.prod(self.shapes[native], dtype=np.int64)) if native in self.shapes else 0

    def count(self, path: str, child: str) -> int:
        native, first = self.table.get(f"{path}.0.{child}", ("",))[0], f"{path}.0."
        if first not in native:
            return 0
        return next(index for index in itertools.count() if native.replace(first, f"{path}.{index}.") not in self.shapes)


@cache
def _skeleton_names(format: str, dialect: str | None, network: str) -> frozenset[str]:
    """Return the names of a registered network's tensors, outside its activations."""
    layout = replace(format_named(format), dialect=dialect_named(dialect)).layout
    skeleton = create(network, "identity")
    return frozenset(native for _, _, native, _ in layout.table(skeleton.graph) if native is not None)


def _choices(networks: Sequence[Network]) -> str:
    """Return the networks, their activations, and what to pass, as the end of an error."""
    acts: dict[str, list[str]] = {}
    for each in networks:
        acts.setdefault(each.name, []).extend([activation_name(each.activation)] if each.activation else [])
    phrases = [f"{name} with {' or '.join(acts[name])}" if acts[name] else f"{name} as published" for name in acts]
    if len(phrases) == 1:
        return f"{phrases[0]}; pass --act"
    act = ", and --act if several activations are listed" if any(len(each) > 1 for each in acts.values()) else ""
    return f"{'; '.join(phrases)}; pass --network{act}"


def difference(found: Shapes, expected: Shapes) -> list[str]:
    """Return how named shapes differ from the expected ones, one phrase each."""
    phrases = [f"{name!r} is missing" for name in expected if name not in found]
    phrases += [f"{name!r:.200} is unexpected" for name in found if name not in expected]
    phrases += [
        f"{name!r} has shape {tuple(found[name])}, expected {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != shape
    ]
    return phrases


def describe(network: Network) -> str:
    """Return the name, activation, classes and options of a network in one phrase."""
    if not network.name:
        return "a network that is not known here"
    act = f" with {activation_name(network.activation)}" if network.activation else ""
    classes = f", {network.num_classes} classes" if network.num_classes else ""
    options = "".join(f", {name}={value}" for name, value in network.options.items())
    return f"{network.name}{act}{classes}{options}"
