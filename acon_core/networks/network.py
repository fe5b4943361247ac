"""The `Network` type that the registry returns, and checks of network options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from acon_core.errors import SpecError, choices
from acon_core.networks.preprocessing import Preprocessing
from acon_core.spec.activations import activation, parse_name
from acon_core.spec.graph import Graph
from acon_core.spec.node import Node
from acon_core.spec.param import Shape
from acon_core.spec.transforms import select

ACON_SOURCE = "Ma et al. 2021 (ACON); nmaac/acon at 99fd679"
REPACT_SOURCE = "Wu et al. 2024 (RepAct); 2771096196/RepAct at c0e7194"


def resolve_activation(network: str, act: Node | str, num_classes: int, **defaults: Any) -> Node:
    """Return the node of an activation that is given as a node or by name.

    A name may set options. `defaults` apply to the options that it does not set; those that the
    activation lacks are ignored. Raises SpecError if the name is unknown, or `num_classes` < 1.
    """
    check_num_classes(network, num_classes)
    if not isinstance(act, str):
        return act
    activation_type, given = parse_name(act)
    unset = {field.name for field in fields(activation_type)} - set(given)
    return activation(act, **{name: value for name, value in defaults.items() if name in unset})


def as_published_by(publisher: str, network: Network, act: Node | str | None, source: str, **changes: Any) -> Network:
    """Return the network under a publisher's name. Without `act` its activations are its own."""
    name = f"{publisher}/{network.name.rpartition('/')[2]}"
    return replace(network, name=name, activation=None if act is None else network.activation, source=source, **changes)


def check_num_classes(network: str, num_classes: int) -> None:
    """Raise SpecError for fewer than one class."""
    if num_classes < 1:
        raise SpecError(f"{network}: expected at least one class, found {num_classes}")


def check_stage_depths(network: str, option: str, blocks: Sequence[int], stages: int) -> None:
    """Raise SpecError unless `blocks`, the value of `option`, has one positive number per stage."""
    if len(blocks) != stages or min(blocks) < 1:
        raise SpecError(f"{network}: expected {stages} {option}, each at least 1, found {tuple(blocks)}")


def as_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert lists in values read from JSON to tuples, which node fields and options require.

    Parameters
    ----------
    values : mapping from str to Any
        Values by name.

    Returns
    -------
    dict from str to Any
        The converted values by the same names.
    """
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


@dataclass(frozen=True, eq=False)
class Network:
    """A graph with its name, input, stages and origin.

    Only `name` and `graph` are required.

    Parameters
    ----------
    name : str
        The name in the registry, or ``package.module:function``.
    graph : Graph
        The layers and how they are connected.
    activation : Node, optional
        The activation that was passed to `create`. None if the network does not let you choose.
    num_classes : int, optional
        Number of classes; None for a backbone.
    stages : mapping of str to str
        Stage name to tap, the path of the value in `graph`. `features` accepts these names.
    head : str, optional
        Path of the layer that computes the class scores.
    input : Preprocessing, optional
        Preprocessing of the images that the network was trained on.
    size : int, optional
        Published height and width of the input in pixels. Used only if `input` is None.
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
        """Shape (1, 3, H, W) of one image. Raises SpecError if `input` and `size` are both None."""
        size = self.input.size if self.input else self.size
        if size is None:
            raise SpecError(f"network {self.name!r}: the input size is not known; set Network.input or Network.size")
        return (1, 3, size, size)

    def features(self, names: Sequence[str]) -> Network:
        """Return the network as a backbone whose outputs are the named stages.

        Parameters
        ----------
        names : sequence of str
            Keys of `stages`, in the order of the outputs.

        Returns
        -------
        Network
            The network without the layers that no named stage needs. The remaining parameters keep
            their paths, so a state of the whole network contains the state of the backbone.

        Raises
        ------
        SpecError
            If a name is not a stage, or `names` is empty.
        """
        unknown = [name for name in names if name not in self.stages]
        if unknown:
            raise SpecError(f"network {self.name!r}: no stage {unknown[0]!r}; {choices(unknown[0], self.stages)}")
        if not names:
            raise SpecError(f"network {self.name!r}: expected at least one stage, found none; stages: {', '.join(self.stages)}")
        stages = {name: self.stages[name] for name in names}
        graph = replace(select(self.graph, [self.stages[name] for name in names]), single_output=False)
        return replace(self, graph=graph, num_classes=None, head=None, stages=stages)
