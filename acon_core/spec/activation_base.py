"""Base classes of activations with parameters, and their width and channel axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

from acon_core.errors import DtypeError, SpecError
from acon_core.spec.graph import Graph, Layer, Step
from acon_core.spec.node import Node
from acon_core.spec.rearrange import MoveAxis
from acon_core.spec.sizes import OPEN

__all__ = ["Activation", "ChannelwiseActivation", "bind", "check_input", "dtype_error"]


@dataclass(frozen=True)
class Activation(Layer):
    """A named activation with parameters of its own, as a graph of primitives."""

    @cached_property
    def has_steps(self) -> bool:
        """Whether several functions are applied to x in turn, with values between them."""
        graph = self.make_graph()
        from_x, steps = set(graph.inputs), 0
        for step in graph.steps:
            if from_x & set(step.inputs):
                from_x |= set(step.outputs)
                steps += 1
        return steps > 1


@dataclass(frozen=True)
class ChannelwiseActivation(Activation):
    """An activation that depends on the number of channels.

    Parameters
    ----------
    channels : int, optional
        Number of channels, C. None until `bind` sets it.
    channel_axis : int, default 1
        Axis of the channels: 1 for (N, C, ...), -1 for (N, ..., C). It is never guessed.

    Notes
    -----
    `make_graph` is written for axis 1; for another one, the axis is moved there and back.
    """

    needs_channels: ClassVar[bool] = True

    rank: ClassVar[int | None] = None
    """The rank that inputs must have. None: any rank from 2."""

    channels: int | None = None
    channel_axis: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not isinstance(self.channel_axis, int) or self.channel_axis == 0:
            raise SpecError(
                f"{name}: expected channel_axis 1 for (N, C, ...) or -1 for (N, ..., C), found {self.channel_axis!r}"
            )
        if self.channels is not None and (not isinstance(self.channels, int) or self.channels < 1):
            raise SpecError(f"{name}: expected a whole number of channels above 0, found {self.channels!r}")

    @property
    def width(self) -> int:
        if self.channels is None:
            raise SpecError(f"{type(self).__name__}: channels is not set; pass channels=C, or bind(activation, C)")
        return self.channels

    @cached_property
    def graph(self) -> Graph:
        made = self.make_graph()
        return made if self.channel_axis == 1 else _on_axis(made, self.channel_axis)


def check_input(activation: Node, shape: Sequence[int]) -> None:
    """Check that a channelwise activation accepts an input of this shape.

    Without this check, broadcasting could turn a wrong shape into a wrong result.

    Parameters
    ----------
    activation : Node
        Any node; only a `ChannelwiseActivation` with a width is checked.
    shape : sequence of int
        The input's shape, with -1 for sizes that a compiler leaves open.

    Raises
    ------
    SpecError
        If the rank or the number of channels is wrong.
    """
    if not isinstance(activation, ChannelwiseActivation) or activation.channels is None:
        return
    rank, axis, channels = len(shape), activation.channel_axis, activation.channels
    fits = rank == (activation.rank or max(rank, 2)) and -rank < axis < rank
    if not fits or shape[axis] not in (channels, OPEN):
        of_rank = f" of rank {activation.rank}" if activation.rank else ""
        raise SpecError(
            f"{type(activation).__name__}: expected an input{of_rank} with {channels} channels at axis {axis}, found shape "
            f"{tuple(shape)}; pass channel_axis for another axis"
        )


def dtype_error(node: Node, dtype: object) -> DtypeError:
    """Return the error of a module whose input is not of floating point.

    Parameters
    ----------
    node : Node
        The node of the module: an activation, or the graph of a network.
    dtype : Any
        The dtype of the input.

    Returns
    -------
    DtypeError
        The error to raise.
    """
    return DtypeError.at("network" if isinstance(node, Graph) else type(node).__name__, dtype)


def _on_axis(graph: Graph, axis: int) -> Graph:
    """Return the graph of one value for channels at `axis` in place of 1."""
    (x,), (y,) = graph.inputs, graph.outputs
    steps = (Step((x,), "to_channels", ("given",)), *graph.steps, Step(("moved_back",), "from_channels", (y,)))
    members = {**graph.members, "to_channels": MoveAxis(axis, 1), "from_channels": MoveAxis(1, axis)}
    return replace(graph, inputs=("given",), steps=steps, outputs=("moved_back",), members=members)


def bind(activation: Node, channels: int) -> Node:
    """Return the activation with its number of channels set; others are returned unchanged.

    Parameters
    ----------
    activation : Node
        An activation.
    channels : int
        Number of channels.

    Returns
    -------
    Node
        The activation, bound if it has channels.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.bind(spec.AconC(), 64).channels, spec.bind(spec.ReLU(), 64)
    (64, ReLU())
    """
    return replace(activation, channels=channels) if isinstance(activation, ChannelwiseActivation) else activation
