"""The verbs on native modules that a backend offers, in its `surgery.py`, for the operations of this package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from acon_core.layout import Layout
from acon_core.spec import Node, Shape


@dataclass(frozen=True)
class Observed:
    """What one run of a model showed. `inputs`: for each site's path, the shapes of its input, call by call, in the
    framework's own layout. `functional`: calls of activation functions that are no modules, as `relu in layer1.0`."""

    inputs: dict[str, list[Shape]]
    functional: list[str]


class Modules(Protocol):
    """What the core needs to know of a framework's modules; paths are attribute names joined by dots, the model's own is ""."""

    layout: Layout
    channel_axis: int
    """Where a model of this framework has its channels: 1, or -1."""

    def sites(self, model: Any) -> Iterator[tuple[str, Any]]:
        """The model and every module below, parents first, in order of definition. A module that is registered under two paths
        comes twice. Where models hold activations as plain functions (JAX), those are sites too."""

    def node(self, module: Any) -> Node | None:
        """The spec of a module that this package made, or of the framework's own activation; None for any other module."""

    def state(self, module: Any, node: Node) -> dict[str, NDArray]:
        """The canonical state of a module whose node is `node`."""

    def make(self, node: Node, state: Mapping[str, NDArray], old: Any, model: Any) -> Any:
        """A native module of `node` with this canonical state, to stand where `old` did: in its dtype, on its device, in its
        mode, frozen where it was; where it says nothing of these, as the model is."""

    def replace(self, model: Any, path: str, module: Any) -> None:
        """Put a module in the place of the one at `path`, which is not ""."""

    def observe(self, model: Any, example: Any) -> Observed:
        """Run the model once on a native example, in evaluation, without gradients; its mode and statistics stay."""

    def parameters(self, model: Any) -> Iterator[tuple[str, Any, bool]]:
        """Every trainable parameter once: its native path, itself, and whether weight decay applies by the usual rule: to the
        weights of convolutions, linear layers and the like, which have two axes or more, not to biases and norms."""

    def read(self, module: Any, name: str) -> NDArray:
        """A copy of the module's own parameter or attribute `name`, in its native shape."""

    def write(self, module: Any, name: str, array: NDArray) -> None:
        """Set it, keeping dtype and device."""

    def run(self, module: Any, x: NDArray) -> NDArray:
        """The module on an array in the framework's own layout, in evaluation, without gradients."""
