"""The published training recipe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Images (N, C, H, W) and their classes (N,)."""


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent with momentum, weight decay and label smoothing.

    In each step, with gradient g and learning rate r: v = momentum v + g + weight_decay p; p = p -
    r v.

    Parameters
    ----------
    steps : int
        Number of steps, one batch each.
    rate : float
        Learning rate of the first step. It falls linearly and would be 0 after ``steps`` steps.
    momentum : float
        Factor of the velocity v.
    weight_decay : float
        Applies to the parameters that the spec marks: weights of convolutions and linear layers.
    label_smoothing : float
        With s for this value, the target is (1 - s) for the class plus s / classes for every class.

    Notes
    -----
    The loss is the mean cross-entropy. The published loop lowers the rate before its first step;
    this one lowers it after.

    References
    ----------
    nmaac/acon at 99fd679: the recipe of ShuffleNetV2 and TFNet.

    Examples
    --------
    >>> from acon_core.training import Recipe
    >>> Recipe(steps=4, rate=0.5).rates()
    [0.5, 0.375, 0.25, 0.125]
    """

    steps: int
    rate: float
    momentum: float = 0.9
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1

    def rates(self) -> list[float]:
        """Return the learning rate of each step."""
        return [self.rate * (1.0 - step / self.steps) for step in range(self.steps)]
