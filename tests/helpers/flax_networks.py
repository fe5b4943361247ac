"""Networks of Flax and the trees of their arrays; Flax is imported when one is made."""

from __future__ import annotations

from typing import Any

import numpy as np


def flat(tree: Any, above: str = "") -> dict[str, np.ndarray]:
    if not isinstance(tree, dict):
        return {above: np.asarray(tree)}
    return {k: v for step, inner in tree.items() for k, v in flat(inner, f"{above}.{step}" if above else str(step)).items()}


def net() -> Any:
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 4, rngs=rngs)])
            self.norm = nnx.BatchNorm(3, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)

    return Net(nnx.Rngs(0))


def linen_net() -> Any:
    from flax import linen

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.BatchNorm(use_running_average=True)(linen.Dense(3)(x))

    return Net()
