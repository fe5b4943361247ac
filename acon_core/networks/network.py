"""What a published network is beyond its graph: its name, its activation, its stages, what its input must look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from acon_core.errors import SpecError
from acon_core.spec.activations import parse_activation
from acon_core.spec.graph import Graph
from acon_core.spec.node import Node
from acon_core.spec.param import Shape
from acon_core.spec.transforms import select


@dataclass(frozen=True)
class InputContract:
    """What a trained network expects of an image: channel `order`, the `range` of values, `mean` and `std` that were taken
    off and divided by, per channel, and the `size` (height and width in pixels) that it was evaluated at."""

    order: Literal["BGR", "RGB"]
    range: tuple[float, float]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int

    def __str__(self) -> str:
        scaled = "not normalised" if self.mean == (0, 0, 0) and self.std == (1, 1, 1) else f"mean {self.mean}, std {self.std}"
        return f"{self.order}, {self.range[0]:g} to {self.range[1]:g}, {scaled}, {self.size}x{self.size}"


def chosen(network: str, act: Node | str, num_classes: int, **defaults: Any) -> Node:
    """The activation that was given, as a spec or by name, with the network's own `defaults` for what a name leaves open.

    Raises SpecError for one that does not exist, or for no classes.
    """
    counted(network, num_classes)
    return parse_activation(act, **defaults) if isinstance(act, str) else act


def counted(network: str, num_classes: int) -> None:
    """Raise SpecError for no classes."""
    if num_classes < 1:
        raise SpecError(f"{network}: expected at least one class, found {num_classes}")


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
    input: InputContract | None = None
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
        graph = replace(select(self.graph, [self.stages[name] for name in names]), bare=False)
        return replace(self, graph=graph, num_classes=None, head=None, stages=stages)
