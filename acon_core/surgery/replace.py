"""Other activations in a model of the user's own: widths found by running it, functions kept where they can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from acon_core import spec
from acon_core.errors import AconError, SpecError
from acon_core.spec import ChannelwiseActivation, Graph, Layer, Node, Shape
from acon_core.surgery.modules import Modules
from acon_core.surgery.preserve import Preserved, preserve


@dataclass(frozen=True)
class Site:
    """One activation of the model: `old` and `new` by name, `channels` where the new one knows them, `calls` in the example's
    run. `bound`: the largest |difference| to the old function, None where it starts at its own initial values. `kept`: why
    the old one stayed, else empty."""

    path: str
    old: str
    new: str
    channels: int | None
    calls: int
    bound: float | None = None
    kept: str = ""

    def __str__(self) -> str:
        if self.kept:
            return f"{self.path}: {self.old} kept: {self.kept}"
        how = {None: "its own initial values", 0.0: "the same function"}.get(self.bound, f"the same to {self.bound or 0:.1e}")
        shared = f"; called {self.calls} times, with one set of parameters" if self.calls > 1 else ""
        return f"{self.path}: {self.old} -> {self.new}, {how}{shared}"


@dataclass(frozen=True)
class Replacements:
    """What was done, site by site, and the calls of activation functions that are no modules, which nothing can replace."""

    sites: tuple[Site, ...]
    functional: tuple[str, ...]

    @property
    def replaced(self) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if not site.kept)

    @property
    def kept(self) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if site.kept)

    def __str__(self) -> str:
        calls = [f"{call}: a functional call; make it a module to have it replaced" for call in self.functional]
        return "\n".join([*map(str, self.sites), *calls, f"{len(self.replaced)} replaced, {len(self.kept) + len(calls)} not"])


def replace_activations(
    modules: Modules,
    model: Any,
    replacements: Mapping[str, str | Node],
    example: Any,
    *,
    channel_axis: int,
    beta: float,
) -> Replacements:
    """Replace activations of a model in place: `{"silu": "acon_c", "relu": "repact(variant=1)"}`, old names to new.

    `example`: what the model is run on once, to find the widths. `channel_axis`: where the activations' inputs have their
    channels. `beta`: for ReLU and the like into ACON, which differ by 0.2785 / beta at most. Every site gets a fresh module.
    What cannot be replaced stays, and the result says why: a module that is called with different widths, one that the
    example does not reach, one inside a network made from a spec. Raises SpecError for names that do not exist, AconError
    for a model that is itself an activation or an axis that the framework's modules do not take.
    """
    wanted = _wanted(modules, replacements, channel_axis)
    if beta <= 0:
        raise AconError(f"replace_activations: expected beta above 0, found {beta}")
    sites = list(modules.sites(model))
    if type(modules.node(model)) in wanted:
        raise AconError("replace_activations: the model is itself an activation; make the new one with activation(...)")
    observed = modules.observe(model, example)
    paths: dict[int, list[str]] = {}
    for path, module in sites:
        paths.setdefault(id(module), []).append(path)
    made: list[Site] = []
    inside: list[str] = []
    for index, (path, module) in enumerate(sites):
        node = modules.node(module)
        if node is None:
            continue
        within = next((prefix for prefix in inside if path.startswith(prefix)), None)
        if isinstance(node, Graph | Layer):
            inside.append(f"{path}." if path else "")
        if type(node) not in wanted:
            continue
        shapes = observed.inputs.get(path, [])
        site = Site(path, _name(node), _name(wanted[type(node)]), None, len(shapes))
        if within is not None:
            where = within.rstrip(".") or "the model"
            made.append(replace(site, kept=f"{where} was made from a spec; create it with this activation"))
            continue
        made.append(_replace(modules, model, module, node, wanted[type(node)], shapes, paths[id(module)], site, beta, index))
    return Replacements(tuple(made), tuple(observed.functional))


def _wanted(modules: Modules, replacements: Mapping[str, str | Node], channel_axis: int) -> dict[type[Node], Node]:
    """The new activation by the old one's type, its channels where the spec has them."""
    if modules.channel_axis != 1 and channel_axis != modules.channel_axis:
        raise AconError(f"replace_activations: expected channel_axis {modules.channel_axis} here, found {channel_axis}")
    axis = 1 if channel_axis == modules.channel_axis else channel_axis
    wanted = {}
    for old, new in replacements.items():
        made = spec.parse_activation(new) if isinstance(new, str) else new
        if isinstance(made, ChannelwiseActivation):
            made = replace(made, channel_axis=axis)
        wanted[type(spec.parse_activation(old))] = made
    return wanted


def _name(node: Node) -> str:
    return spec.activation_name(node)


def _replace(
    modules: Modules, model: Any, module: Any, old: Node, new: Node, shapes: list[Shape], paths: list[str], site: Site,
    beta: float, seed: int,
) -> Site:  # fmt: skip
    native_axis = modules.channel_axis if getattr(new, "channel_axis", 1) == 1 else new.channel_axis  # type: ignore[attr-defined]
    channels = None
    if isinstance(new, ChannelwiseActivation):
        widths = sorted({shape[native_axis] for shape in shapes if len(shape) > 1})
        if not widths:
            return replace(site, kept="the example does not reach it, so that its width is not known")
        if len(widths) > 1:
            where = f"; it is shared by {', '.join(paths)}" if len(paths) > 1 else ""
            return replace(
                site, kept=f"called with {' and '.join(map(str, widths))} channels{where}; use a module of its own for each"
            )
        channels = widths[0]
        new = spec.bind(new, channels)
    try:
        for shape in shapes:
            new.out_shapes((shape[0], shape[-1], *shape[1:-1]) if modules.channel_axis == -1 and len(shape) > 1 else shape)
    except SpecError as error:
        return replace(site, kept=str(error))
    state = spec.initial_state(new, seed, "float64")
    kept: Preserved | None = preserve(old, modules.state(module, old), new, beta)
    if kept is not None:
        state |= kept.values
    modules.replace(model, site.path, modules.make(new, state, model))
    return replace(site, channels=channels, bound=None if kept is None else kept.bound)
