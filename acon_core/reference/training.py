"""Training in float64 by the published recipe: what the optimiser of every framework is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from acon_core.reference.core import forward
from acon_core.spec import Node, named_params
from acon_core.training import Batch, Recipe


def loss_and_cotangent(logits: NDArray, classes: NDArray[np.int64], smoothing: float) -> tuple[float, NDArray[np.float64]]:
    """The mean cross-entropy with smoothed labels, and its gradient with respect to the logits (N, classes)."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    targets = np.full(logits.shape, smoothing / logits.shape[1])
    targets[np.arange(len(classes)), classes] += 1.0 - smoothing
    loss = -(targets * log_probabilities).sum(1).mean()
    return float(loss), (np.exp(log_probabilities) - targets) / len(classes)


def fit(node: Node, state: dict[str, NDArray], batches: Sequence[Batch], recipe: Recipe) -> NDArray[np.float64]:
    """Train in float64, a batch a step, and return the loss before each step; `state` moves in place."""
    table = {path: param for path, param in named_params(node).items() if param.kind == "weight"}
    state.update({path: np.asarray(array, np.float64) for path, array in state.items() if array.dtype.kind == "f"})
    velocity = {path: np.zeros(param.shape) for path, param in table.items()}
    losses = []
    for rate, (images, classes) in zip(recipe.rates(), batches, strict=True):
        result = forward(node, state, [images], train=True)
        loss, cotangent = loss_and_cotangent(result.values[0], classes, recipe.label_smoothing)
        losses.append(loss)
        gradients = result.vjp((cotangent,)).params
        state.update(result.statistics)
        for path, param in table.items():
            decay = recipe.weight_decay * state[path] if param.decay else 0.0
            velocity[path] = recipe.momentum * velocity[path] + gradients[path] + decay
            state[path] = state[path] - rate * velocity[path]
    return np.array(losses)
