"""The interface to native modules that `acon_core.surgery` needs of a backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from acon_core.layout import Layout
from acon_core.spec import Node, Shape


@dataclass(frozen=True)
class Layers:
    """The layers that one module stands for, as those that are stacked for a scan.

    Parameters
    ----------
    parts : callable
        Returns a module for each layer, with its values.
    joined : callable
        Joins new modules, one for each layer, into one that stands for them.
    """

    parts: Callable[[], list[Any]]
    joined: Callable[[list[Any]], Any]


@dataclass(frozen=True)
class Observed:
    """What one run of a model showed.

    Parameters
    ----------
    inputs : dict from str to list of Shape
        For each path of a site, the shapes of its input in the framework's own layout, one for each
        call.
    functional : list of str
        Calls of activation functions outside of known modules, such as ``relu in layer1.0``.
    layers : mapping from str to Layers
        For each path of a site that stands for several layers, these layers.
    """

    inputs: dict[str, list[Shape]]
    functional: list[str]
    layers: Mapping[str, Layers] = field(default_factory=dict)


@dataclass(frozen=True)
class Probe:
    """What a run of a module forward and backward showed.

    Parameters
    ----------
    y : array
        The output.
    after : array
        The input, after the run.
    dx : array
        Gradient of the input.
    gates : dict from str to array
        Gradient of each named parameter; None for what is no parameter or gets no gradient.
    """

    y: NDArray
    after: NDArray
    dx: NDArray
    gates: dict[str, NDArray | None]


@contextmanager
def evaluation_mode(model: Any, parts: Iterable[Any]) -> Iterator[None]:
    """Run the body in evaluation mode, then restore the mode of every part.

    Parameters
    ----------
    model : Any
        A native model with a method `eval`.
    parts : iterable
        The model and all modules in it, with an attribute `training`.

    Returns
    -------
    context manager
    """
    modes = [(part, part.training) for part in parts]
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


class Modules(Protocol):
    """Access to the modules of a framework, which every backend implements in `surgery.py`.

    A *site* is a module or, in JAX, a plain function that a module holds. Paths are names of
    attributes joined by dots; the path of the model is "".
    """

    layout: Layout
    channel_axis: int
    """Axis of the channels in this framework: 1 or -1."""

    def sites(self, model: Any) -> Iterator[tuple[str, Any]]:
        """Yield the model and all sites below with their paths, parents first, as defined.

        A module under two paths occurs twice.
        """

    def node(self, module: Any) -> Node | None:
        """Return the spec of a module of this package or of a native activation; else None."""

    def state(self, module: Any, node: Node) -> dict[str, NDArray]:
        """Return the canonical state of a module whose spec is `node`."""

    def make(self, node: Node, state: Mapping[str, NDArray], old: Any, model: Any) -> Any:
        """Build a module of `node` with this canonical state, to replace `old`.

        Dtype, device, mode and frozen parameters are those of `old`; where it does not determine
        them, those of `model`.
        """

    def replace(self, model: Any, path: str, module: Any) -> None:
        """Replace the module at `path`, which is not ""."""

    def observe(self, model: Any, example: Any) -> Observed:
        """Run the model once in evaluation mode, without gradients; modes and statistics stay."""

    def parameters(self, model: Any) -> Iterator[tuple[str, Any, bool]]:
        """Yield every trainable parameter once: native path, parameter, whether it usually decays.

        By the usual rule, weights of convolutions and linear layers decay, which have two axes or
        more; biases and the parameters of norms do not.
        """

    def read(self, module: Any, name: str) -> NDArray:
        """Return a copy of a parameter or attribute of the module, in its native shape."""

    def write(self, module: Any, name: str, array: NDArray) -> None:
        """Set a parameter or attribute of the module; its dtype and device stay."""

    def probe(self, module: Any, x: NDArray, g: NDArray, names: tuple[str, ...], train: bool) -> Probe:
        """Run a module forward and backward with the gradient `g` of its output; modes stay."""

    def run(self, module: Any, x: NDArray) -> NDArray:
        """Run a module on an array in the framework's layout, in evaluation, without gradients."""
