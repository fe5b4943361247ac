"""The verbs of a backend, and how backends are found: by the entry points `acon.backends`, ours and a stranger's alike."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from acon_core.errors import BackendError, StateError
from acon_core.spec.node import Node, named_params
from acon_core.tensors import lazy_items
from acon_core.training import Batch, Recipe

GROUP = "acon.backends"


@dataclass(frozen=True)
class Outputs:
    """What a model puts out: `y`, NCHW where it has space, and the `taps` asked for, by their paths."""

    y: NDArray
    taps: dict[str, NDArray] = field(default_factory=dict)


@dataclass(frozen=True)
class Vjp:
    """The output, and what a cotangent of it becomes: `dx` at the input, `dparams` at every weight, in canonical layout."""

    y: NDArray
    dx: NDArray
    dparams: dict[str, NDArray]


class Model(Protocol):
    """A native module under the verbs that the conformance runner calls. Arrays are NumPy, canonical: NCHW, OIHW."""

    native: Any

    def load(self, state: Mapping[str, NDArray]) -> None:
        """Take a canonical state. Strict: StateError for a name, shape or dtype that is not the network's."""

    def load_file(self, path: Path) -> None:
        """Take a file of the framework's own format through the framework's own loader, none of our readers or layouts
        between, so that a layout that is wrong both ways cannot hide. Strict. Backends with a format alone have it."""

    def state(self) -> dict[str, NDArray]:
        """The canonical state, in the published order."""

    def __call__(self, x: NDArray, *, train: bool = False, taps: Sequence[str] = ()) -> Outputs:
        """Run it. In training, running statistics move by one step."""

    def vjp(self, x: NDArray, cotangent: NDArray, *, train: bool = False) -> Vjp:
        """Run it and go back. In training, running statistics move by one step, once."""

    def fit(self, batches: Sequence[Batch], recipe: Recipe) -> NDArray[np.float64]:
        """Train the native module with the framework's own optimiser, a batch a step; the loss before each step."""


@dataclass(frozen=True)
class Waiver:
    """A deviation of a framework that we leave alone: `quantity` of `case` is not held to its tolerance, for `reason`.

    Strict: a waiver whose case passes without it is a failure, so that the list cannot outlive its reasons.
    """

    case: str
    quantity: str
    reason: str


class Backend(Protocol):
    """What a framework offers: the dtypes that it computes in, the waivers that it needs, and `build`."""

    name: str
    dtypes: tuple[str, ...]
    waivers: tuple[Waiver, ...]

    def build(self, node: Node, *, dtype: str = "float32", seed: int | None = 0, compiled: bool = False) -> Model:
        """The native module of a node with `initial_state(node, seed)`, which for None is nothing but room for what is loaded
        next; `compiled`: run through the framework's compiler."""


@cache
def packages() -> dict[str, str]:
    """The registered backends and their packages by name, whether or not their frameworks are installed."""
    return {point.name: point.value for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def part(name: str, module: str) -> ModuleType:
    """One module of a backend's package: `layout` and `files` need NumPy alone, `backend` needs the framework.

    Raises BackendError when no backend has that name, or its framework cannot be imported here.
    """
    known = packages()
    if name not in known:
        raise BackendError(f"backend {name!r} is not known; known: {', '.join(known)}")
    try:
        return importlib.import_module(f"{known[name]}.{module}")
    except ImportError as error:
        raise BackendError(
            f"backend {name!r} cannot be used here: {error}; install it with: pip install 'acon-ports[{name}]'"
        ) from error


def get(name: str) -> Backend:
    """The backend of that name, its framework imported. Raises BackendError as `part` does."""
    backend: Backend = part(name, "backend").backend
    return backend


def check_state(node: Node, state: Mapping[str, NDArray], dtype: str | None = None) -> None:
    """Raise StateError unless `state` has the node's names and shapes, and counters int64, all else `dtype` (if given)."""
    table, given = named_params(node), lazy_items(state)
    missing = [path for path in table if path not in given]
    extra = [path for path in given if path not in table]
    if missing or extra:
        which = f"{missing[0]!r} is missing" if missing else f"{extra[0]!r} is not the network's"
        raise StateError(f"state: {which} ({len(missing)} missing, {len(extra)} left over, {len(table)} expected)")
    for path, param in table.items():
        found = given[path]
        if found.shape != param.shape:
            raise StateError(f"{path}: expected shape {param.shape}, found {found.shape}")
        expected = np.dtype(np.int64) if param.integer else dtype and np.dtype(dtype)
        if expected and found.dtype != expected:
            raise StateError(f"{path}: expected dtype {expected}, found {found.dtype}; cast it with .astype")
