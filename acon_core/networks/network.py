"""A published network as data, and checks of its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from acon_core.errors import SpecError
from acon_core.networks.preprocessing import Preprocessing
from acon_core.spec.activations import activation, parse_name
from acon_core.spec.graph import Graph
from acon_core.spec.node import Node
from acon_core.spec.param import Shape
from acon_core.spec.transforms import select

ACON_SOURCE = "Ma et al. 2021 (ACON); nmaac/acon at 99fd679"
REPACT_SOURCE = "Wu et al. 2024 (RepAct); 2771096196/RepAct at c0e7194"


def resolve_activation(network: str, act: Node | str, num_classes: int, **defaults: Any) -> Node:
    """Return `act` as a spec.

    `defaults` fill the options that a name leaves open, where the activation has them. Raises
    SpecError for a name that does not exist, or fewer than one class.
    """
    check_num_classes(network, num_classes)
    if not isinstance(act, str):
        return act
    kind, given = parse_name(act)
    own = {field.name for field in fields(kind)}
    return activation(act, **{name: value for name, value in defaults.items() if name in own and name not in given})


def check_num_classes(network: str, num_classes: int) -> None:
    """Raise SpecError for fewer than one class."""
    if num_classes < 1:
        raise SpecError(f"{network}: expected at least one class, found {num_classes}")


def check_stage_depths(network: str, option: str, blocks: Sequence[int], stages: int) -> None:
    """Raise SpecError unless `option` gives each stage at least one block."""
    if len(blocks) != stages or min(blocks) < 1:
        raise SpecError(f"{network}: expected {stages} {option} of at least one block, found {tuple(blocks)}")


def as_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values read from JSON: each list to a tuple, as fields and options expect.

    Parameters
    ----------
    values : mapping from str to Any
        Values by name.

    Returns
    -------
    dict from str to Any
        The same names.
    """
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


@dataclass(frozen=True, eq=False)
class Network:
    """A graph and what the registry knows about it.

    A network of your own needs only the first two fields.

    Parameters
    ----------
    name : str
        The name in the registry, or ``package.module:function``.
    graph : Graph
        The network as data.
    activation : Node, optional
        The activation that was chosen. None if the network has fixed activations.
    num_classes : int, optional
        Number of outputs; None for a backbone.
    stages : mapping of str to str
        Tap of each feature that `features` can return, by name.
    head : str, optional
        Path of the layer that computes the class scores.
    input : Preprocessing, optional
        What a trained network expects.
    size : int, optional
        Height and width in pixels that the network was published with, where `input` is not known.
    source : str
        The paper and the published code that the network follows.
    options : mapping
        The options that were given to `create`.
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
        """Shape of one image of the published size. Raises SpecError if the size is not known."""
        size = self.input.size if self.input else self.size
        if size is None:
            raise SpecError(f"network {self.name!r}: the input size is not known; set Network.input or Network.size")
        return (1, 3, size, size)

    def features(self, names: Sequence[str]) -> Network:
        """Return the network as a backbone whose outputs are the named stages.

        Parameters
        ----------
        names : sequence of str
            Some of `stages`, in the order of the outputs.

        Returns
        -------
        Network
            The same network without the layers that no named stage needs. Its state is a part of
            the whole network's, under the same paths.

        Raises
        ------
        SpecError
            If a name is not a stage, or there is none.
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
