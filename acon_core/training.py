"""The published recipe of training, and what it does to a network in float64, which every optimiser is held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acon_core.reference import forward
from acon_core.spec import Node, named_params

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Images (N, C, H, W) and their classes (N,)."""


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent as the ACON code trains: v = momentum v + g + decay p; p = p - rate v.

    `rate` falls in a line from its value at the first step to 0 after `steps`; `weight_decay` applies to the parameters that
    the spec marks (weights of convolutions and linear layers). The loss is the mean cross-entropy against (1 - s) times the
    class plus s / classes everywhere, s being `label_smoothing`. The published loop lowers the rate before its first step;
    this one after. Source: nmaac/acon, the recipe of ShuffleNetV2 and TFNet.
    """

    steps: int
    rate: float
    momentum: float = 0.9
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1

    def rates(self) -> list[float]:
        """The rate of each step."""
        return [self.rate * (1.0 - step / self.steps) for step in range(self.steps)]


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
