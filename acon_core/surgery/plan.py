"""Decide from one run of a model what goes where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from acon_core import spec
from acon_core.errors import AconError, SpecError
from acon_core.spec import Graph, Layer, Node
from acon_core.surgery.axes import Axes, UnknownAxisError, find_axis, find_widths
from acon_core.surgery.modules import Call, FunctionCall, Modules, Observed
from acon_core.surgery.preserve import preserve
from acon_core.surgery.recognise import recognise
from acon_core.surgery.report import Site
from acon_core.surgery.rewrite import Edit, Place
from acon_core.surgery.wanted import Rule, Wanted

SHARPNESS = 100.0
"""The default beta of ACON for ReLU, for inputs of root mean square 1."""


@dataclass(eq=False)
class Job:
    """One new module.

    Parameters
    ----------
    path : str
        Where it goes.
    aliases : tuple of str
        Other paths that get the same module.
    before : tuple of (str, Any)
        What is at these paths; empty if the path is new.
    owner : Any
        The module whose method is rewritten, if `edit` is not None.
    edit : Edit or None
        The change of a call expression.
    stand_in : Any
        A module that computes the old function.
    new : Any
        The new module.
    bound : float or None
        Largest |difference| to the old function; None if the new one has its own initial values.
    calls : int
        Calls in the run.
    in_place : bool
        Whether the old one wrote into its input.
    writes : bool
        Whether the new one has to.
    """

    path: str
    aliases: tuple[str, ...]
    before: tuple[tuple[str, Any], ...]
    owner: Any
    edit: Edit | None
    stand_in: Any
    new: Any
    bound: float | None
    calls: int
    in_place: bool
    writes: bool = False


class Plan:
    """What is to be done with the activations of a model.

    Parameters
    ----------
    modules : Modules
        Access to the framework's modules.
    model : Any
        A native model.
    wanted : Wanted
        What the user asked for.
    observed : Observed
        A run of the model in which each path has an object of its own.
    axes : int, mapping from str to int or None
        The channel axes that the user gave.
    beta : float or None
        The beta that the user gave.
    """

    def __init__(
        self, modules: Modules, model: Any, wanted: Wanted, observed: Observed, axes: Axes, beta: float | None
    ) -> None:
        self._modules, self._model, self._wanted, self._observed = modules, model, wanted, observed
        self._axes, self._beta = axes, beta
        self._paths = dict(modules.sites(model))
        self._loose = dict(modules.references(model))
        self._taken: set[tuple[int, str]] = set()
        self._unknown: list[str] = []
        self._found: list[tuple[Site, Job | None]] = []
        self._met: set[int] = set()
        self._present: Counter[str] = Counter()
        self._explained: set[str] = set()
        self.functional: list[str] = []
        self.unchecked = ""
        self._plan_modules()
        self._plan_functions()
        if self._unknown:
            raise AconError(
                f"replace_activations: the channel axis is not known of {'; '.join(self._unknown)}; "
                "give channel_axis, 1 for (N, C, ...) or -1 for (N, ..., C), for all or as a dictionary by path"
            )

    @property
    def jobs(self) -> list[Job]:
        return [job for _, job in self._found if job is not None]

    @property
    def unmet(self) -> list[str]:
        return [rule.name for rule in self._wanted.rules if id(rule) not in self._met]

    @property
    def has(self) -> str:
        return ", ".join(f"{name} ({count})" for name, count in self._present.items())

    @property
    def tolerance(self) -> float:
        """How far two outputs differ at most that differ by rounding, relative to the norm."""
        kinds = {array.dtype for array in self._observed.outputs or ()}
        return float(np.sqrt(max((float(ml_dtypes.finfo(kind).eps) for kind in kinds), default=0.0)))  # type: ignore[no-untyped-call]

    def sites(self) -> Iterator[Site]:
        """Yield the sites for the report."""
        for site, job in self._found:
            yield replace(site, note=join_notes(site.note, "writes in place")) if job and job.writes else site

    def drop(self, job: Job, reason: str) -> None:
        """Keep the old activation after all."""
        self._found = [
            (replace(site, channels=None, axis=None, bound=None, kept=reason), None) if each is job else (site, each)
            for site, each in self._found
        ]

    def _plan_modules(self) -> None:
        inside: list[str] = []
        groups: dict[int, list[str]] = {}
        for path, module in (*self._paths.items(), *self._loose.items()):
            groups.setdefault(id(module), []).append(path)
        for seed, (path, module) in enumerate((*self._paths.items(), *self._loose.items())):
            node = self._modules.node(module)
            within = next((prefix for prefix in inside if path.startswith(prefix)), None)
            if isinstance(node, Graph | Layer):
                inside.append(f"{path}." if path else "")
            calls = self._observed.calls.get(path, [])
            if node is None and self._modules.leaf(module):
                called = next((call for each in groups[id(module)] for call in self._observed.calls.get(each, [])), None)
                node = recognise(self._modules, module, self._model, called.shape) if called else None
            if type(node) in spec.ACTIVATIONS.values() and node is not None and within is None:
                self._present[spec.activation_name(node).partition("(")[0]] += 1
            rule = self._wanted.rule(path, module, node)
            if rule is None or path == "":
                continue
            self._met.add(id(rule))
            self._explained.add(path)
            if not self._wanted.chosen(path):
                continue
            site = Site(path, _name(module, node), rule.new_name, None, len(calls))
            if within is not None:
                where = within.rstrip(".") or "the model"
                self._keep(site, f"{where} was made from a spec; create it with this activation")
                continue
            paths = groups[id(module)]
            called_paths = [each for each in paths if each in self._observed.calls]
            if not calls and called_paths:
                # Another path of it is used: both keep one module.
                if len(called_paths) > 1:
                    self._keep(site, "the example does not reach it by this path")
                continue
            aliases = tuple(each for each in paths if each not in called_paths) if len(called_paths) == 1 else ()
            if path in self._loose and not any(each in self._paths for each in aliases):
                self._keep(site, f"{path} is no registered part of the model, so no optimizer would see its parameters")
                continue
            self._plan_site(site, rule, module, node, calls, aliases, seed)

    def _plan_site(
        self, site: Site, rule: Rule, module: Any, node: Node | None, calls: Sequence[Call], aliases: tuple[str, ...], seed: int
    ) -> None:
        parts = _by_place(calls) if rule.needs_width or self._has_parameters(rule) else [list(calls)]
        if node is not None and spec.named_params(node):
            parts = [list(calls)]  # one set of parameters, which its calls share
        owners = [self._paths[part[0].place.owner] for part in parts[1:] if part[0].place is not None]
        if len(parts) > 1 and any(self._modules.node(owner) is not None for owner in owners):
            parts = [list(calls)]
        for at, part in enumerate(parts):
            place = part[0].place if part else None
            each = replace(site, calls=len(part))
            if at == 0:
                before = tuple((path, module) for path in (site.path, *aliases))
                self._add(each, rule, module, node, part, before, None, None, seed)
            else:
                assert place is not None
                owner = self._paths[place.owner]
                name = self._name(owner, site.path.rpartition(".")[2])
                edit = Edit(place.method, place.call, name, False)
                each = replace(each, path=spec.join(place.owner, name), note=f"for {place}")
                self._add(each, rule, module, node, part, (), owner, edit, seed + 7919 * at)

    def _plan_functions(self) -> None:
        groups: dict[tuple[str, str, Place | None, Node | None], list[FunctionCall]] = {}
        for function in self._observed.functions:
            if function.where in self._explained:
                continue
            place = function.call.place if function.call else None
            groups.setdefault((function.name, function.where, place, function.node), []).append(function)
        for seed, ((name, _, place, node), functions) in enumerate(groups.items()):
            kind = node if node is not None else _named(name)
            if kind is None:
                continue
            self._present[spec.activation_name(kind).partition("(")[0]] += len(functions)
            rule = self._wanted.rule(functions[0].where, None, kind)
            if rule is None:
                continue
            self._met.add(id(rule))
            if not self._wanted.chosen(functions[0].where):
                continue
            calls = [function.call for function in functions if function.call is not None]
            ambiguous = place is not None and len([key for key in groups if key[2] == place]) > 1
            # A method of a site that is held outside of the modules runs the function of the site.
            owner = self._paths.get(place.owner) if place else None
            if place is None or owner is None or node is None or ambiguous or self._modules.node(owner) is not None:
                self.functional.append(str(functions[0]))
                continue
            attribute = self._name(owner, name)
            edit = Edit(place.method, place.call, attribute, True)
            site = Site(
                spec.join(place.owner, attribute), spec.activation_name(node), rule.new_name, None, len(calls),
                note=f"for {place}",
            )  # fmt: skip
            self._add(site, rule, None, node, calls, (), owner, edit, 104729 + seed)

    def _add(
        self,
        site: Site,
        rule: Rule,
        module: Any,
        node: Node | None,
        calls: Sequence[Call],
        before: tuple[tuple[str, Any], ...],
        owner: Any,
        edit: Edit | None,
        seed: int,
    ) -> None:
        modules = self._modules
        try:
            fitted = self._fit(site.path, rule, calls)
        except UnknownAxisError as error:
            self._unknown.append(str(error))
            return
        if isinstance(fitted, str):
            self._keep(site, fitted)
            return
        made, channels, axis = fitted
        old = module if module is not None else owner
        bound = None
        if isinstance(made, Node):
            layers = self._observed.layers.get(site.path) if module is not None else None
            parts = layers.parts() if layers else [old]
            beta = self._beta or _sharpness(calls)
            started = [
                self._started(made, node, None if module is None else part, beta, seed + 15485863 * at)
                for at, part in enumerate(parts)
            ]
            bounds = [bound for _, bound in started]
            bound = None if None in bounds else max(each for each in bounds if each is not None)
            own = [modules.make(made, state, part, self._model) for (state, _), part in zip(started, parts, strict=True)]
            made = layers.joined(own) if layers else own[0]
        else:
            made = modules.settle(made, old, self._model)
        if module is not None:
            modules.adopt(made, module)
        if module is None:
            assert node is not None
            stand_in = modules.make(node, spec.initial_state(node, seed, "float64"), old, self._model)
        else:
            stand_in = modules.pure(module)
        job = Job(
            site.path, tuple(path for path, _ in before[1:]), before, owner, edit, stand_in, made, bound, len(calls),
            any(call.in_place for call in calls),
        )  # fmt: skip
        note = site.note if len(before) < 2 else join_notes(site.note, f"also at {', '.join(path for path, _ in before[1:])}")
        if not calls:
            note = join_notes(note, "not reached by the example")
        note = join_notes(note, modules.remark(made, self._model))
        new = _name(made, fitted[0] if isinstance(fitted[0], Node) else None)
        self._found.append((replace(site, new=new, channels=channels, axis=axis, bound=bound, note=note), job))

    def _started(
        self, made: Node, node: Node | None, module: Any, beta: float, seed: int
    ) -> tuple[dict[str, NDArray], float | None]:
        """Return the first state of a new activation, and its largest |difference| to the old."""
        state = dict(spec.initial_state(made, seed, "float64"))
        if node is None:
            return state, None
        old = self._modules.state(module, node) if module is not None else spec.initial_state(node, seed, "float64")
        kept = preserve(node, old, made, beta)
        return (state | kept.values, kept.bound) if kept else (state, None)

    def _fit(self, path: str, rule: Rule, calls: Sequence[Call]) -> tuple[Any, int | None, int | None] | str:
        """Return the new activation for a place, its channels and their axis, or why not."""
        channels = axis = None
        at = 1
        if rule.needs_width:
            if not calls:
                return "the example does not reach it, so its width is unknown"
            found = find_axis(self._modules, path, calls, self._axes)
            if isinstance(found, str):
                return found
            widths = find_widths(calls, found)
            if len(widths) > 1:
                return f"called with {' and '.join(map(str, widths))} channels; {_what_to_write(calls)}"
            channels, axis = widths[0], found
            at = 1 if found == self._modules.channel_axis else found
        made = rule.make(channels, at)
        if isinstance(made, Node):
            try:
                for call in calls:
                    made.out_shapes(self._spec_shape(call.shape))
            except SpecError as error:
                return str(error)
        return made, channels, axis

    def _spec_shape(self, shape: spec.Shape) -> spec.Shape:
        """Return a shape as a spec has it, with the channels at axis 1."""
        return (shape[0], shape[-1], *shape[1:-1]) if self._modules.channel_axis == -1 and len(shape) > 1 else shape

    def _keep(self, site: Site, reason: str) -> None:
        self._found.append((replace(site, kept=reason), None))

    def _name(self, owner: Any, name: str) -> str:
        number = 1
        while True:
            each = name if number == 1 else f"{name}_{number}"
            if not hasattr(owner, each) and (id(owner), each) not in self._taken:
                self._taken.add((id(owner), each))
                return each
            number += 1

    @staticmethod
    def _has_parameters(rule: Rule) -> bool:
        return not isinstance(rule.value, Node) or bool(spec.named_params(rule.value))


def join_notes(*notes: str) -> str:
    """Join what is not empty."""
    return "; ".join(filter(None, notes))


def _name(module: Any, node: Node | None) -> str:
    known = node is not None and type(node) in spec.ACTIVATIONS.values()
    return spec.activation_name(node) if known else type(module).__name__  # type: ignore[arg-type]


def _named(name: str) -> Node | None:
    try:
        return spec.activation(name)
    except SpecError:
        return None


def _by_place(calls: Sequence[Call]) -> list[list[Call]]:
    """Divide the calls by the expressions that make them, if all are known."""
    if any(call.place is None for call in calls):
        return [list(calls)]
    parts: dict[Any, list[Call]] = {}
    for call in calls:
        parts.setdefault(call.place, []).append(call)
    return list(parts.values()) or [[]]


def _sharpness(calls: Sequence[Call]) -> float:
    squares = [call.scale**2 for call in calls if call.scale is not None]
    scale = float(np.sqrt(np.mean(squares))) if squares else 0.0
    return SHARPNESS / scale if scale and np.isfinite(scale) else SHARPNESS


def _what_to_write(calls: Sequence[Call]) -> str:
    places = [call.place for call in calls if call.place is not None]
    if len(places) == len(calls) and len(set(places)) == 1:
        return f"give each pass of {places[0]} a module of its own, such as one of an nn.ModuleList"
    return "use one module for each call"
