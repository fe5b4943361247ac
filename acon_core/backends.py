"""The interface of a backend, and the discovery of backends.

A backend is a package that is registered under the entry point group ``acon.backends``, by this
project or by any other. Its module ``backend`` has an object ``backend`` that implements `Backend`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from acon_core.discovery import registered, usable
from acon_core.errors import BackendError, StateError
from acon_core.spec.node import Node, named_params
from acon_core.tensors import check_names, lazy_items
from acon_core.training import Batch, Recipe

__all__ = ["Backend", "Model", "Outputs", "Vjp", "Waiver", "check_state", "get", "import_module", "packages"]


@dataclass(frozen=True)
class Outputs:
    """The result of running a model forward.

    Parameters
    ----------
    y : ndarray
        The output: NCHW if it has spatial axes, else (N, C), or whatever shape `Node.out_shapes`
        gives.
    taps : dict of str to ndarray
        The intermediate values that were asked for, by path, in the same layout.
    """

    y: NDArray
    taps: dict[str, NDArray] = field(default_factory=dict)


@dataclass(frozen=True)
class Vjp:
    """The result of a vector-Jacobian product.

    Parameters
    ----------
    y : ndarray
        The output, as in `Outputs`.
    dx : ndarray
        The gradient with respect to the input, of the input's shape.
    dparams : dict of str to ndarray
        The gradient with respect to every parameter of kind ``weight``, by canonical path, in
        canonical layout. No other names.
    """

    y: NDArray
    dx: NDArray
    dparams: dict[str, NDArray]


class Model(Protocol):
    """A native module behind the interface that the conformance runner uses.

    Notes
    -----
    Every array that goes in or comes out is a NumPy array in canonical layout, whatever the
    framework uses inside: activations NCHW, or (N, C) or (N, C, L) without two spatial axes;
    weights of convolutions (out, in / groups, height, width) and of linear layers (out, in).
    bfloat16 is `ml_dtypes.bfloat16`. Floating-point arrays have the dtype that `Backend.build` was
    given, counters and indices are int64.

    A state is a mapping of canonical paths to arrays: exactly the names and shapes of
    `acon_core.spec.named_params`. A parameter that the framework does not store, such as
    `num_batches_tracked` outside PyTorch, must be given to `load`; `state` returns its initial
    value.

    Attributes
    ----------
    native : object
        The framework's own module, for the user to train, save or compile.
    """

    native: Any

    def load(self, state: Mapping[str, NDArray]) -> None:
        """Replace the state of the module.

        Parameters
        ----------
        state : mapping of str to ndarray
            The complete canonical state. It is copied.

        Raises
        ------
        StateError
            If a name is missing or unexpected, or a shape or dtype is wrong. Nothing has changed
            then. `check_state` makes these checks.
        """

    def load_file(self, path: Path) -> None:
        """Load a file of the framework's format with the framework's own loader.

        Our readers and layouts take no part. Tests compare the outcome with what `load` gives, so
        that an error which our reader and writer share becomes visible. A backend without a
        checkpoint format does not have this method.

        Parameters
        ----------
        path : Path
            The file. It must have exactly the native names and shapes of the module.

        Raises
        ------
        Exception
            Whatever the framework raises, or StateError, if a name or shape is wrong.
        """

    def state(self) -> dict[str, NDArray]:
        """Return a copy of the canonical state, in published order."""

    def __call__(self, x: NDArray, *, train: bool = False, taps: Sequence[str] = ()) -> Outputs:
        """Run the module forward.

        Parameters
        ----------
        x : ndarray
            The input, in the dtype of the module.
        train : bool
            Whether to run in training mode. Batch normalisation then uses the statistics of the
            batch, and the running statistics change by one step.
        taps : sequence of str
            Paths of intermediate values to return as well, such as ``"features.3"``.

        Returns
        -------
        Outputs
            The output and the taps.

        Raises
        ------
        SpecError
            If the module does not accept the shape of ``x``. Some shapes raise the framework's own
            error.
        OneValuePerChannelError
            If a batch normalisation gets one value per channel in training. Nothing has changed
            then.
        """

    def vjp(self, x: NDArray, cotangent: NDArray, *, train: bool = False) -> Vjp:
        """Run the module forward and backward.

        Parameters
        ----------
        x : ndarray
            The input, in the dtype of the module.
        cotangent : ndarray
            The gradient with respect to the output, of the output's shape and dtype.
        train : bool
            As for a forward run. The running statistics change by one step, not by two.

        Returns
        -------
        Vjp
            The output and the gradients.

        Raises
        ------
        SpecError, OneValuePerChannelError
            As for a forward run.
        """

    def fit(self, batches: Sequence[Batch], recipe: Recipe) -> NDArray[np.float64]:
        """Train the native module with the framework's own optimiser, one step per batch.

        Parameters
        ----------
        batches : sequence of (images, classes)
            ``recipe.steps`` batches: images (N, C, H, W) in float32, classes (N,) in int64.
        recipe : Recipe
            Learning rates, momentum, weight decay and label smoothing.

        Returns
        -------
        ndarray
            The loss before each step, of shape (steps,).
        """


@dataclass(frozen=True)
class Waiver:
    """A known deviation of a framework that the conformance suite tolerates.

    Parameters
    ----------
    case : str
        The name of the case.
    quantity : {"y", "dx", "dparams", "running_mean", "running_var"}
        The quantity that may exceed its tolerance.
    reason : str
        Why it does, and in which version of the framework.

    Notes
    -----
    Waivers are strict: one that is not needed is a failure, and so is one of an unknown case.
    """

    case: str
    quantity: str
    reason: str


class Backend(Protocol):
    """A framework: what it computes in, where it deviates, and how it builds a module.

    Attributes
    ----------
    name : str
        The name of the entry point, such as ``"torch"``.
    dtypes : tuple of str
        The dtypes that it computes in, out of ``float32``, ``float64``, ``bfloat16``, ``float16``.
        The conformance suite counts cases in any other dtype as unsupported.
    waivers : tuple of Waiver
        The tolerated deviations.
    """

    name: str
    dtypes: tuple[str, ...]
    waivers: tuple[Waiver, ...]

    def build(self, node: Node, *, dtype: str = "float32", seed: int | None = 0, compiled: bool = False) -> Model:
        """Build the native module of a node.

        Parameters
        ----------
        node : Node
            A layer, an activation or a whole network.
        dtype : str
            The dtype of parameters and computation, one of ``dtypes``.
        seed : int or None
            The module starts with the values of ``acon_core.spec.initial_state(node, seed,
            dtype)``. None only allocates the parameters, for a state that is loaded next.
        compiled : bool
            Whether the module runs through the framework's compiler.

        Returns
        -------
        Model
            The module behind the common interface.

        Raises
        ------
        SpecError, NotImplementedError
            If the backend does not compute this type of node, in this dtype or compiled. The
            conformance suite counts the case as unsupported.
        """


def packages() -> dict[str, str]:
    """Return the packages of the registered backends by name, with or without their frameworks.

    Returns
    -------
    dict from str to str
        Packages by name of the backend: this project's first, then those of others. An entry point
        that is refused, such as a second one of the same name, is not among them.
    """
    return {name: each.package for name, each in usable().items()}


def import_module(name: str, module: str) -> ModuleType:
    """Import one module of a backend's package.

    Parameters
    ----------
    name : str
        The name of the backend.
    module : str
        The module, relative to the package. ``checkpoint.layout`` and ``checkpoint.codec`` need no
        framework; ``backend`` does.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    BackendError
        If there is no such backend, or it cannot be imported in this environment.
    """
    return registered(name).import_module(module)


def get(name: str) -> Backend:
    """Import a backend and its framework.

    Parameters
    ----------
    name : str
        The name of the backend, such as ``"torch"``.

    Returns
    -------
    Backend
        The backend, its framework imported.

    Raises
    ------
    BackendError
        If there is no such backend, its framework cannot be imported in this environment, or its
        object lacks something.

    Examples
    --------
    >>> from acon_core import backends
    >>> backends.get("numpy").dtypes
    ('float32', 'float64')
    """
    module = import_module(name, "backend")
    backend: Backend | None = getattr(module, "backend", None)
    missing = [each for each in ("name", "dtypes", "waivers", "build") if not hasattr(backend, each)]
    if backend is None or missing:
        lacks = f"its object `backend` lacks {', '.join(missing)}" if backend is not None else "it has no object `backend`"
        raise BackendError(
            f"backend {name!r}: {module.__name__} is not complete: {lacks}; `Backend` in acon_core.backends says what"
        )
    return backend


def check_state(node: Node, state: Mapping[str, NDArray], dtype: str | None = None) -> None:
    """Check that a canonical state fits a node.

    Parameters
    ----------
    node : Node
        The network or layer.
    state : mapping of str to ndarray
        The state to check. Lazy tensors are not loaded.
    dtype : str, optional
        The dtype that floating-point parameters must have. Any dtype by default. Counters and
        indices must always be int64.

    Raises
    ------
    StateError
        If a name is missing or unexpected, or a shape or dtype is wrong.
    """
    table, given = named_params(node), lazy_items(state)
    check_names(table, given)
    for path, param in table.items():
        found = given[path]
        if found.shape != param.shape:
            raise StateError(f"{path}: expected shape {param.shape}, found {found.shape}")
        expected = np.dtype(np.int64) if param.integer else dtype and np.dtype(dtype)
        if expected and found.dtype != expected:
            raise StateError(f"{path}: expected dtype {expected}, found {found.dtype}; cast it with .astype")
