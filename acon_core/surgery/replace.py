"""Replace the activations of a user's model. Widths are found by running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from acon_core import spec
from acon_core.errors import AconError, SpecError
from acon_core.spec import ChannelwiseActivation, Graph, Layer, Node, Shape
from acon_core.surgery.modules import Modules
from acon_core.surgery.preserve import preserve


@dataclass(frozen=True)
class Site:
    """One activation of the model.

    Parameters
    ----------
    path : str
        Path in the model.
    old, new : str
        Names of the activations, with options.
    channels : int or None
        Number of channels, if the new activation has channels.
    calls : int
        Calls in the run. Those of a module with several paths are divided among them.
    bound : float or None
        Largest |difference| to the old function; None if the new one has its own initial values.
    kept : str
        Why the old activation was kept; "" if it was replaced.
    """

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
    """What `replace_activations` did.

    Parameters
    ----------
    sites : tuple of Site
        Every activation that was to be replaced, in order of definition.
    functional : tuple of str
        Calls of activation functions outside of modules, which cannot be replaced.
    """

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
    """Replace activations of a model in place.

    Parameters
    ----------
    modules : Modules
        Access to the framework's modules.
    model : Any
        A native model.
    replacements : mapping from str to str or Node
        Old activations to new ones. An old name matches any options, or those that it states.
    example : Any
        Input or tuple of arguments that the model is run on once, to find the widths.
    channel_axis : int
        Axis of the channels in the inputs of the activations.
    beta : float
        The beta of ACON where it replaces ReLU or PReLU; they differ by 0.2785 / `beta` at most.

    Returns
    -------
    Replacements
        What was done. An activation is kept if it is called with several widths, if the example
        does not reach it, or if it is inside a network that was made from a spec.

    Raises
    ------
    SpecError
        If a name does not exist.
    AconError
        If the model is itself an activation, if `beta` is not positive, or if the framework's
        modules cannot have channels at `channel_axis`.
    """
    wanted = _wanted(modules, replacements, channel_axis)
    if beta <= 0:
        raise AconError(f"replace_activations: expected beta above 0, found {beta}")
    sites = list(modules.sites(model))
    if _match(wanted, modules.node(model)) is not None:
        raise AconError("replace_activations: the model is itself an activation; make the new one with activation(...)")
    observed = modules.observe(model, example)
    paths: dict[int, list[str]] = {}
    for path, module in sites:
        paths.setdefault(id(module), []).append(path)
    found: list[Site] = []
    made: dict[str, Any] = {}
    inside: list[str] = []
    for seed, (path, module) in enumerate(sites):
        node = modules.node(module)
        if node is None:
            continue
        within = next((prefix for prefix in inside if path.startswith(prefix)), None)
        if isinstance(node, Graph | Layer):
            inside.append(f"{path}." if path else "")
        new = _match(wanted, node)
        if new is None:
            continue
        shapes = observed.inputs.get(path, [])
        names = spec.activation_name(node), spec.activation_name(new)
        site = Site(path, *names, None, len(shapes) // len(paths[id(module)]))
        if within is not None:
            where = within.rstrip(".") or "the model"
            found.append(replace(site, kept=f"{where} was made from a spec; create it with this activation"))
            continue
        bound = _fit(modules, new, shapes, paths[id(module)])
        if isinstance(bound, str):
            found.append(replace(site, kept=bound))
            continue
        layers = observed.layers.get(path)
        parts = layers.parts() if layers else [module]
        kept = [preserve(node, modules.state(part, node), bound, beta) for part in parts]
        new_parts = [
            modules.make(bound, spec.initial_state(bound, own, "float64") | (start.values if start else {}), part, model)
            for own, part, start in zip(count(seed, len(sites)), parts, kept, strict=False)
        ]
        made[path] = layers.joined(new_parts) if layers else new_parts[0]
        furthest = None if None in kept else max(start.bound for start in kept if start)
        found.append(replace(site, channels=getattr(bound, "channels", None), bound=furthest))
    # The model changes only now, when nothing can fail any more.
    for path, module in made.items():
        modules.replace(model, path, module)
    return Replacements(tuple(found), tuple(observed.functional))


Wanted = list[tuple[type[Node], Mapping[str, Any], Node]]


def _wanted(modules: Modules, replacements: Mapping[str, str | Node], channel_axis: int) -> Wanted:
    """Parse the replacements: old type, options that its name states, new spec."""
    if modules.channel_axis != 1 and channel_axis != modules.channel_axis:
        raise AconError(f"replace_activations: expected channel_axis {modules.channel_axis} here, found {channel_axis}")
    axis = 1 if channel_axis == modules.channel_axis else channel_axis
    wanted: Wanted = []
    for old, new in replacements.items():
        made = spec.activation(new) if isinstance(new, str) else new
        if isinstance(made, ChannelwiseActivation):
            made = replace(made, channel_axis=axis)
        kind, options = spec.parse_name(old)
        if any((kind, options) == (other, others) for other, others, _ in wanted):
            raise AconError(f"replace_activations: {old!r} is named twice; give each old activation once")
        wanted.append((kind, options, made))
    return wanted


def _match(wanted: Wanted, node: Node | None) -> Node | None:
    """Return what replaces an activation: of the matching names, the one with most options."""
    fitting = [
        (len(options), new)
        for kind, options, new in wanted
        if type(node) is kind and all(getattr(node, name) == value for name, value in options.items())
    ]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def _fit(modules: Modules, new: Node, shapes: list[Shape], paths: list[str]) -> Node | str:
    """Return the new activation with the width of the site, or why it does not fit there."""
    if isinstance(new, ChannelwiseActivation):
        axis = modules.channel_axis if new.channel_axis == 1 else new.channel_axis
        widths = sorted({shape[axis] for shape in shapes if -len(shape) <= axis < len(shape)})
        if not shapes:
            return "the example does not reach it, so its width is unknown"
        if not widths:
            return f"its inputs, such as {shapes[0]}, have no axis {axis}"
        if len(widths) > 1:
            where = f"; it is shared by {', '.join(paths)}" if len(paths) > 1 else ""
            return f"called with {' and '.join(map(str, widths))} channels{where}; use one module for each"
        new = spec.bind(new, widths[0])
    try:
        for shape in shapes:
            # The spec has channels at axis 1.
            new.out_shapes((shape[0], shape[-1], *shape[1:-1]) if modules.channel_axis == -1 and len(shape) > 1 else shape)
    except SpecError as error:
        return str(error)
    return new
