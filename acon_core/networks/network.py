"""The `Network` type that the registry returns, and checks of network options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from acon_core.errors import SpecError, choices
from acon_core.networks.preprocessing import Preprocessing
from acon_core.spec.activations import activation, parse_name
from acon_core.spec.graph import Graph
from acon_core.spec.node import Node, walk
from acon_core.spec.param import Shape
from acon_core.spec.primitives import Conv2d, Linear
from acon_core.spec.transforms import rewrite, select

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


def check_sizes(network: str, **sizes: int) -> None:
    """Raise SpecError unless each size, by option, is at least 1."""
    for option, size in sizes.items():
        if size < 1:
            raise SpecError(f"{network}: expected {option} of at least 1, found {size}")


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
    def stem(self) -> tuple[str, Conv2d] | None:
        """The path and the node of the first convolution, which takes the image; None without."""
        return next(((path, node) for path, node in walk(self.graph) if isinstance(node, Conv2d)), None)

    @property
    def in_channels(self) -> int:
        """Number of channels of the image: those of the first convolution, 3 without one."""
        return self.stem[1].in_channels if self.stem else 3

    def resized(self, num_classes: int | None = None, in_channels: int | None = None) -> Network:
        """Return the network with another number of classes, of channels of the image, or both.

        Parameters
        ----------
        num_classes : int, optional
            Outputs of `head`.
        in_channels : int, optional
            Inputs of the first convolution. With another number, the preprocessing is unknown.

        Returns
        -------
        Network
            The network itself where both are as they were.

        Raises
        ------
        SpecError
            If a number is less than 1, or if the network has no head or no convolution.
        """
        changes: dict[str, Node] = {}
        made = self
        if num_classes not in (None, self.num_classes):
            check_num_classes(self.name, num_classes)
            head = next((node for path, node in walk(self.graph) if path == self.head), None)
            if not isinstance(head, Linear):
                raise SpecError(f"network {self.name!r}: no head to give {num_classes} classes; set Network.head to its path")
            changes[str(self.head)] = replace(head, out_features=num_classes)
            made = replace(made, num_classes=num_classes)
        if in_channels not in (None, self.in_channels):
            if self.stem is None or in_channels < 1:
                raise SpecError(f"network {self.name!r}: expected a first convolution and at least one channel for it")
            path, stem = self.stem
            changes[path] = replace(stem, in_channels=in_channels)
            made = replace(made, input=None, size=self.input.size if self.input else self.size)
        graph = rewrite(self.graph, lambda path, _: changes.get(path)) if changes else self.graph
        return replace(made, graph=graph) if isinstance(graph, Graph) and changes else self

    @property
    def input_shape(self) -> Shape:
        """Shape (1, C, H, W) of one image. Raises SpecError if `input` and `size` are both None."""
        size = self.input.size if self.input else self.size
        if size is None:
            raise SpecError(f"network {self.name!r}: the input size is not known; set Network.input or Network.size")
        return (1, self.in_channels, size, size)

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
