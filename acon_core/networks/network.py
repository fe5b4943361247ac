"""What a published network is beyond its graph: its name, its activation, its stages, what its input must look like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from acon_core.errors import SpecError
from acon_core.spec.activations import activation, parse_name
from acon_core.spec.graph import Graph
from acon_core.spec.node import Node
from acon_core.spec.param import Shape
from acon_core.spec.transforms import select


@dataclass(frozen=True)
class Preprocessing:
    """What a trained network expects of an image: channel `order`, the `range` of values, `mean` and `std` that are then taken
    off and divided by, per channel, and the `size` (height and width in pixels) that it was evaluated at: the middle of an
    image whose shorter side was resized to `resize` pixels. Raises SpecError for what no image has."""

    order: Literal["BGR", "RGB"]
    range: tuple[float, float]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int
    resize: int

    def __post_init__(self) -> None:
        numbers = {"range": (self.range, 2), "mean": (self.mean, 3), "std": (self.std, 3)}
        for name, (values, count) in numbers.items():
            if type(values) is not tuple or len(values) != count or not all(type(v) in (int, float) for v in values):
                raise SpecError(f"input: {name} must be {count} numbers, found {values!r:.60}")
        if self.order not in ("BGR", "RGB"):
            raise SpecError(f"input: order must be BGR or RGB, found {self.order!r:.20}")
        if not all(map(math.isfinite, (*self.range, *self.mean, *self.std))):
            raise SpecError("input: range, mean and std must be finite")
        if not (self.range[0] < self.range[1] and min(self.std) > 0):
            raise SpecError(f"input: range {self.range} must go up, and std {self.std} be above 0")
        if not all(type(v) is int and 0 < v <= 4096 for v in (self.size, self.resize)) or self.resize < self.size:
            raise SpecError(f"input: size {self.size!r:.20} and resize {self.resize!r:.20} must be pixels, resize no smaller")

    def at(self, size: int) -> Preprocessing:
        """The same for images of another size, which are the same part of what they are cut from."""
        return replace(self, size=size, resize=round(self.resize * size / self.size))

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest value that an image can have where the network takes it."""
        low, high = (
            pick((edge - m) / s for m, s in zip(self.mean, self.std, strict=True))
            for pick, edge in zip((min, max), self.range, strict=True)
        )
        return low, high

    def __str__(self) -> str:
        scaled = "not normalised" if self.mean == (0, 0, 0) and self.std == (1, 1, 1) else f"mean {self.mean}, std {self.std}"
        cut = f"the middle {self.size}x{self.size} of a shorter side of {self.resize}"
        return f"{self.order}, {self.range[0]:g} to {self.range[1]:g}, {scaled}, {cut}"


def resolve_activation(network: str, act: Node | str, num_classes: int, **defaults: Any) -> Node:
    """Return `act` as a spec. `defaults` fill the options that a name leaves open, where it has them.

    Raises SpecError for a name that does not exist, or fewer than one class.
    """
    check_num_classes(network, num_classes)
    if not isinstance(act, str):
        return act
    kind, given = parse_name(act)
    own = {field.name for field in fields(kind)}
    return activation(act, **{name: value for name, value in defaults.items() if name in own and name not in given})


def check_num_classes(network: str, num_classes: int) -> None:
    """Raise SpecError for no classes."""
    if num_classes < 1:
        raise SpecError(f"{network}: expected at least one class, found {num_classes}")


def check_stage_depths(network: str, option: str, blocks: Sequence[int], stages: int) -> None:
    """Raise SpecError for blocks a stage that are too few or too many, or none in one; `option`: what they are called."""
    if len(blocks) != stages or min(blocks) < 1:
        raise SpecError(f"{network}: expected {stages} {option} of at least one block, found {tuple(blocks)}")


def as_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values read from JSON with each list as a tuple, as the fields and options expect."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


@dataclass(frozen=True, eq=False)
class Network:
    """A graph with what the registry knows of it; a user's own network needs the first two alone.

    `activation`: the one that was chosen; None where there is no choice, since a network has its published ones alone.
    `stages`: names of features to the taps that are those features. `head`: the path of the layer whose outputs are the
    classes. `input`: what a trained one expects; where that was never said, `size` is the height and width in pixels that it
    was published with. `source`: the paper and the code that it follows. `options`: those that `create` was given.
    """

    name: str
    graph: Graph
    activation: Node | None = None
    num_classes: int | None = None
    stages: Mapping[str, str] = field(default_factory=dict)
    head: str | None = None
    input: Preprocessing | None = None
    size: int | None = None
    source: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def input_shape(self) -> Shape:
        """One image of the size that the network was published with. Raises SpecError where none is known."""
        size = self.input.size if self.input else self.size
        if size is None:
            raise SpecError(f"network {self.name!r} does not say what its input is; set Network.input")
        return (1, 3, size, size)

    def features(self, names: Sequence[str]) -> Network:
        """The same network as a backbone: its outputs are the named stages, in that order, and what only served others is gone.

        `names`: of `stages`. The state is a part of the whole network's, under the same paths. Raises SpecError for a name
        that is no stage, or no names.
        """
        known = f"stages: {', '.join(self.stages) or 'none'}"
        unknown = [name for name in names if name not in self.stages]
        if unknown:
            raise SpecError(f"network {self.name!r}: no stage {unknown[0]!r}; {known}")
        if not names:
            raise SpecError(f"network {self.name!r}: expected one stage or more, found none; {known}")
        stages = {name: self.stages[name] for name in names}
        graph = replace(select(self.graph, [self.stages[name] for name in names]), single_output=False)
        return replace(self, graph=graph, num_classes=None, head=None, stages=stages)
