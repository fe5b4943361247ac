"""The activation family: each a primitive, or a graph of primitives. A network takes one as a value and binds its channels."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from acon_core.errors import SpecError
from acon_core.spec.graph import Graph, Layer, graph
from acon_core.spec.node import Node
from acon_core.spec.param import Constant, Init, Normal, Param
from acon_core.spec.primitives import Acon, BatchNorm, Conv2d, GlobalAvgPool, ReLU, Sigmoid, SiLU

Norm = Literal["batch", "none"]
InitName = Literal["published", "paper"]


@dataclass(frozen=True)
class ChannelwiseActivation(Layer):
    """An activation with parameters per channel; `channels` is None until `bind` gives the width of a place."""

    channels: int | None = None

    @property
    def width(self) -> int:
        if self.channels is None:
            raise SpecError(f"{type(self).__name__}: channels is not set; pass channels=C, or bind(activation, C)")
        return self.channels


def _slope(channels: int, init: str, paper: float) -> Param:
    """p1 or p2: standard normal in the published code, a constant in the paper."""
    rules: dict[str, Init] = {"published": Normal(1.0), "paper": Constant(paper)}
    if init not in rules:
        raise SpecError(f"init: expected one of {sorted(rules)}, found {init!r}")
    return Param((1, channels, 1, 1), rules[init])


@dataclass(frozen=True)
class AconC(ChannelwiseActivation):
    """ACON-C: y = (p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x, with p1, p2, beta learnt per channel.

    `p1`, `p2`, `beta`: (1, C, 1, 1), no weight decay. `init`: `published` (p1, p2 ~ N(0, 1), beta = 1, the released code)
    or `paper` (p1 = 1, p2 = 0, beta = 1, so that it starts as SiLU). (N, C, ...) -> the same; smooth, no kinks.
    Raises SpecError when `channels` is not bound. Source: Ma et al. 2021, section 3.2; nmaac/acon acon.py.
    """

    init: InitName = "published"

    def make_graph(self) -> Graph:
        params = {
            "p1": _slope(self.width, self.init, 1.0),
            "p2": _slope(self.width, self.init, 0.0),
            "beta": Param((1, self.width, 1, 1), Constant(1.0)),
        }
        return graph("x", ["y = acon(x, p1, p2, beta)"], "y", {"acon": Acon()}, params)


@dataclass(frozen=True)
class MetaAconC(ChannelwiseActivation):
    """Meta-ACON, channel level: ACON-C whose beta is sigmoid(norm2(fc2(norm1(fc1(mean over space of x))))), per sample.

    `p1`, `p2`: (1, C, 1, 1); `fc1`, `fc2`: 1x1 convolutions C -> max(r, C / r) -> C with bias, r = `reduction`; `norm`:
    `batch` (as released; a training batch of one is an OneValuePerChannelError) or `none` (works with any batch).
    `init`: as for AconC. (N, C, ...) -> the same; smooth. Source: Ma et al. 2021, section 3.3; nmaac/acon acon.py.
    """

    reduction: int = 16
    norm: Norm = "batch"
    init: InitName = "published"

    def make_graph(self) -> Graph:
        hidden = max(self.reduction, self.width // self.reduction)
        fc1, fc2 = Conv2d(self.width, hidden, 1), Conv2d(hidden, self.width, 1)
        params = {"p1": _slope(self.width, self.init, 1.0), "p2": _slope(self.width, self.init, 0.0)}
        generators: dict[str, dict[str, Node]] = {
            "batch": {"fc1": fc1, "bn1": BatchNorm(hidden), "fc2": fc2, "bn2": BatchNorm(self.width)},
            "none": {"fc1": fc1, "fc2": fc2},
        }
        if self.norm not in generators:
            raise SpecError(f"MetaAconC: expected norm in {sorted(generators)}, found {self.norm!r}")
        children: dict[str, Node] = {**generators[self.norm], "mean": GlobalAvgPool(), "sigmoid": Sigmoid(), "acon": Acon()}
        program, value = [], "x"
        for name in ("mean", *generators[self.norm]):
            program.append(f"after_{name} = {name}({value})")
            value = f"after_{name}"
        program += [f"beta = sigmoid({value})", "y = acon(x, p1, p2, beta)"]
        return graph("x", program, "y", children, params)


ACTIVATIONS: dict[str, type[Node]] = {"relu": ReLU, "silu": SiLU, "acon_c": AconC, "meta_acon": MetaAconC}


def bind(activation: Node, channels: int) -> Node:
    """The activation at a place of that width. One without parameters per channel is the same everywhere."""
    return replace(activation, channels=channels) if isinstance(activation, ChannelwiseActivation) else activation


_CALL = re.compile(r"(\w+)(?:\((.*)\))?")


def parse_activation(text: str, **defaults: Any) -> Node:
    """The activation that a name stands for: `relu`, `acon_c`, `meta_acon(reduction=8, norm=none)`.

    `defaults` are used for the fields that the text leaves open and the activation has (a network's published reduction).
    Raises SpecError for a name, field or value that does not exist.
    """
    match = _CALL.fullmatch(text.replace(" ", ""))
    if match is None or match[1] not in ACTIVATIONS:
        raise SpecError(f"activation {text!r} is not known; known: {', '.join(ACTIVATIONS)}")
    kind = ACTIVATIONS[match[1]]
    options = {f.name: f for f in fields(kind) if f.name != "channels"}
    values = {name: value for name, value in defaults.items() if name in options}
    for part in filter(None, (match[2] or "").split(",")):
        name, _, value = part.partition("=")
        if name not in options or not value:
            raise SpecError(f"activation {text!r}: {part!r} is not an option; options: {', '.join(options) or 'none'}")
        if isinstance(options[name].default, int):
            if not value.isdecimal() or int(value) < 1:
                raise SpecError(f"activation {text!r}: {name} must be a positive whole number, found {value!r}")
            values[name] = int(value)
        else:
            values[name] = value
    activation = kind(**values)
    bind(activation, 8).out_shapes((2, 8, 3, 3))
    return activation


def activation_name(activation: Node) -> str:
    """The text that `parse_activation` reads back as the same activation, whatever the network's defaults.

    Numbers are always written, since a network may have its own (the reduction at 0.5x); words only when not the default.
    """
    names = {kind: name for name, kind in ACTIVATIONS.items()}
    if type(activation) not in names:
        raise SpecError(f"{type(activation).__name__} is not in the table of activations: {', '.join(ACTIVATIONS)}")
    options = [
        f"{f.name}={getattr(activation, f.name)}"
        for f in fields(activation)
        if f.name != "channels" and (isinstance(f.default, int) or getattr(activation, f.name) != f.default)
    ]
    return names[type(activation)] + (f"({', '.join(options)})" if options else "")
