"""The interface to native modules that `acon_core.surgery` needs of a backend."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from acon_core.layout import Layout
from acon_core.spec import Node, Shape
from acon_core.surgery.rewrite import Place


@dataclass(frozen=True)
class Call:
    """One call of an activation in a run.

    Parameters
    ----------
    shape : Shape
        Shape of the input, in the framework's own layout.
    scale : float or None
        Root of the mean square of the input; None if the run had no values.
    axis : int, str or None
        Axis of the channels, as the layer that the input comes from has it; a str says which layers
        contradict each other; None if the run does not show it.
    place : Place or None
        The call expression, if it is in a method of a module of the model.
    in_place : bool
        Whether the call changed its input.
    """

    shape: Shape
    scale: float | None = None
    axis: int | str | None = None
    place: Place | None = None
    in_place: bool = False


@dataclass(frozen=True)
class FunctionCall:
    """A call of an activation function outside of a site.

    Parameters
    ----------
    name : str
        Name of the function.
    where : str
        Path of the module that calls it; "" for the model.
    node : Node or None
        The function as a spec; None if its arguments are not those of a spec.
    call : Call or None
        The call; None if the framework does not show more.
    """

    name: str
    where: str
    node: Node | None = None
    call: Call | None = None

    def __str__(self) -> str:
        return f"{self.name} in {self.where or 'the model'}"


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
    calls : dict from str to list of Call
        For each path of a site that was called, its calls with an array.
    functions : list of FunctionCall
        Calls of activation functions outside of sites with a known spec.
    outputs : list of ndarray or None
        The arrays of floats in the output of the model; None if the run had no values.
    layers : mapping from str to Layers
        For each path of a site that stands for several layers, these layers.
    """

    calls: dict[str, list[Call]]
    functions: list[FunctionCall]
    outputs: list[NDArray] | None = None
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
    shows_axes: bool = False
    """Whether `observe` finds the channel axis of each call; else it is `channel_axis`."""

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

    def observe(self, model: Any, example: Any, as_used: bool = False) -> Observed:
        """Run the model once in evaluation mode, without gradients; modes and statistics stay.

        `example` is an input, a tuple of arguments, or a mapping of keyword arguments. With
        `as_used`, fused paths of the framework, which bypass modules, are not held off.
        """

    # What follows has defaults, for frameworks in which there is nothing to do.

    def references(self, model: Any) -> Iterator[tuple[str, Any]]:
        """Yield the sites that a model holds where `sites` does not look, such as plain lists.

        `replace` takes their paths. Parameters of modules there are not the model's.
        """
        return iter(())

    def unfit(self, model: Any) -> str:
        """Return why activations of the model cannot be replaced and what to do; "" if they can."""
        return ""

    def copy(self, site: Any) -> Any:
        """Return another object that computes the same with the same parameters."""
        return copy.copy(site)

    def leaf(self, module: Any) -> bool:
        """Return whether a module of somebody's is a function: no parameters and nothing inside."""
        return False

    def remove(self, owner: Any, name: str) -> None:
        """Remove an attribute that `replace` added."""
        delattr(owner, name)

    def pure(self, site: Any) -> Any:
        """Return a module that computes what a site does and leaves its input as it is."""
        return self.copy(site)

    def writing(self, module: Any) -> Any:
        """Return a module that computes what a module does and writes the result into its input."""
        raise NotImplementedError

    def remark(self, module: Any, model: Any) -> str:
        """Return what the reader of the report should know of a new module, or ""."""
        return ""

    def adopt(self, module: Any, old: Any) -> None:
        """Let what others attached to a site, such as hooks, be attached to the new module."""

    def settle(self, module: Any, old: Any, model: Any) -> Any:
        """Give a module of a user's factory the dtype, device and mode of the one it replaces."""
        return module

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
