"""The published training recipe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
