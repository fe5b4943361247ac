"""The reference as a backend, so that the conformance runner checks it like any other."""

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
    """A node and its state in float64, behind the interface `acon_core.backends.Model`.

    Parameters
    ----------
    node : Node
        A layer, an activation or a whole network.
    state : dict of str to ndarray
        Its canonical state. Training replaces arrays in this dict.
    """

    def __init__(self, node: Node, state: dict[str, NDArray]) -> None:
        self.node = self.native = node
        self._state = state

    def load(self, state: Mapping[str, NDArray]) -> None:
        """Replace the state. Accept any floating-point dtype: float64 represents them all."""
        check_state(self.node, state)
        table = named_params(self.node)
        self._state = {path: np.array(state[path], np.int64 if param.integer else np.float64) for path, param in table.items()}

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
    """NumPy behind the interface `acon_core.backends.Backend`.

    Computes in float64 whatever dtype is asked for.
    """

    name = "numpy"
    dtypes = ("float32", "float64")
    waivers: tuple[Waiver, ...] = ()

    def build(self, node: Node, *, dtype: str = "float64", seed: int | None = 0, compiled: bool = False) -> ReferenceModel:
        return ReferenceModel(node, initial_state(node, seed, "float64"))


backend = ReferenceBackend()
