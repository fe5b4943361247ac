"""The NumPy reference as a backend, so that the conformance runner can check it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from acon_core.backends import Outputs, Vjp, Waiver, check_state
from acon_core.reference import forward
from acon_core.reference.training import fit
from acon_core.spec import Node, initial_state, named_params
from acon_core.training import Batch, Recipe


class ReferenceModel:
    """A node and its float64 state. Implements `acon_core.backends.Model`.

    Parameters
    ----------
    node : Node
        A layer, an activation or a whole network.
    state : dict of str to ndarray
        The canonical state of the node, by parameter path. Training replaces arrays in this dict.
    """

    def __init__(self, node: Node, state: dict[str, NDArray]) -> None:
        self.node = self.native = node
        self._state = state

    def load(self, state: Mapping[str, NDArray]) -> None:
        """Replace the state. Any floating-point dtype is accepted and converted to float64."""
        check_state(self.node, state)
        params = named_params(self.node)
        self._state = {path: np.array(state[path], np.int64 if param.integer else np.float64) for path, param in params.items()}

    def state(self) -> dict[str, NDArray]:
        return {path: array.copy() for path, array in self._state.items()}

    def __call__(self, x: NDArray, *, train: bool = False, taps: Sequence[str] = ()) -> Outputs:
        result = forward(self.node, self._state, [x], train)
        self._state.update(result.statistics)
        return Outputs(result.values[0], {tap: result.taps[tap] for tap in taps})

    def vjp(self, x: NDArray, cotangent: NDArray, *, train: bool = False) -> Vjp:
        result = forward(self.node, self._state, [x], train)
        self._state.update(result.statistics)
        gradients = result.vjp((np.asarray(cotangent, np.float64),))
        return Vjp(result.values[0], gradients.inputs[0], gradients.params)

    def fit(self, batches: Sequence[Batch], recipe: Recipe) -> NDArray[np.float64]:
        return fit(self.node, self._state, batches, recipe)


class ReferenceBackend:
    """The NumPy backend. Implements `acon_core.backends.Backend`.

    It always computes in float64 and ignores `dtype` and `compiled`.
    """

    name = "numpy"
    dtypes = ("float32", "float64")
    waivers: tuple[Waiver, ...] = ()

    def build(self, node: Node, *, dtype: str = "float64", seed: int | None = 0, compiled: bool = False) -> ReferenceModel:
        return ReferenceModel(node, initial_state(node, seed, "float64"))


backend = ReferenceBackend()
