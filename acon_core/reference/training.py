"""Train in float64 by the published recipe.

The optimiser of every framework is compared with this.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from acon_core.reference.core import forward
from acon_core.spec import Node, named_params
from acon_core.training import Batch, Recipe


def loss_and_cotangent(logits: NDArray, classes: NDArray[np.int64], smoothing: float) -> tuple[float, NDArray[np.float64]]:
    """Compute the cross-entropy with label smoothing, and its gradient.

    Parameters
    ----------
    logits : ndarray
        The logits (N, classes), in any dtype.
    classes : ndarray of int64
        The class of each sample (N,).
    smoothing : float
        With s for this value, the target is (1 - s) for the class plus s / classes for every class.

    Returns
    -------
    loss : float
        The mean over the samples.
    cotangent : ndarray
        The gradient with respect to the logits (N, classes).
    """
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    targets = np.full(logits.shape, smoothing / logits.shape[1])
    targets[np.arange(len(classes)), classes] += 1.0 - smoothing
    loss = -(targets * log_probabilities).sum(1).mean()
    return float(loss), (np.exp(log_probabilities) - targets) / len(classes)


def fit(node: Node, state: dict[str, NDArray], batches: Sequence[Batch], recipe: Recipe) -> NDArray[np.float64]:
    """Train a network in float64, one step per batch.

    Parameters
    ----------
    node : Node
        The network. Its output is (N, classes).
    state : dict of str to ndarray
        The canonical state to start from. Replaced in place by that after training.
    batches : sequence of (images, classes)
        ``recipe.steps`` batches: images (N, C, H, W), classes (N,).
    recipe : Recipe
        Learning rates, momentum, weight decay and label smoothing.

    Returns
    -------
    ndarray
        The loss before each step, of shape (steps,).
    """
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
