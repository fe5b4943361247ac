"""Random states for tests, and the error measure that tests compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from acon_core import spec
from acon_core.random import Stream

# Ranges of the random values. The default, (-0.5, 0.5), is invalid for these parameters (a negative
# variance) or would hide mistakes (a clipped value). None stands for any node type.
RANGES: dict[tuple[type[spec.Node] | None, str], tuple[float, float]] = {
    (spec.BatchNorm, "weight"): (0.5, 1.5),
    (spec.BatchNorm, "running_var"): (0.5, 2.0),
    (spec.Swish, "weight"): (0.5, 1.5),
    (spec.PReLU, "weight"): (0.1, 0.4),
    (spec.RepAct, "weights"): (0.1, 0.9),
    (spec.RepAct, "alpha"): (0.1, 0.4),
    (spec.AReLU, "alpha"): (0.2, 0.8),
    (spec.FusedRepAct, "identity"): (0.1, 0.5),
    (spec.FusedRepAct, "relu"): (0.2, 0.7),
    (spec.FusedRepAct, "hardswish"): (0.3, 0.9),
    (None, "p1"): (0.5, 1.75),
    (None, "p2"): (-0.5, 0.25),
    (None, "beta"): (-1.0, 3.0),
}


def asymmetric_state(
    node: spec.Node, key: str, ranges: Mapping[str, Sequence[float]] = MappingProxyType({})
) -> dict[str, NDArray]:
    """Draw a random state that exposes misplaced parameters.

    The values differ from 0, from the initial values and from each other. So a test that uses the
    state detects a transposed, shuffled or omitted parameter.

    Parameters
    ----------
    node : Node
        The network or layer.
    key : str
        Seeds the random numbers.
    ranges : mapping of str to (low, high)
        Ranges by parameter name. They take precedence over `RANGES`.

    Returns
    -------
    dict of str to ndarray
        The canonical state: weights and statistics in float64, counters (all 3) in int64. Derived
        buffers have the values that the spec determines.
    """

    def values(node: spec.Node, name: str, param: spec.Param, random: Stream) -> NDArray:
        if param.kind == "derived":
            return param.init.draw(param.shape, random).astype(np.int64 if param.integer else np.float32)
        if param.integer:
            return np.full(param.shape, 3, np.int64)
        if len(param.shape) > 1 and name == "weight":
            bound = math.sqrt(3.0 / math.prod(param.shape[1:]))
            return random.uniform(param.shape, -bound, bound)
        low, high = ranges.get(name) or RANGES.get((type(node), name)) or RANGES.get((None, name), (-0.5, 0.5))
        return random.uniform(param.shape, low, high)

    return {
        spec.join(path, name): values(part, name, param, Stream("state", key, spec.join(path, name)))
        for path, part in spec.walk(node)
        for name, param in part.params.items()
    }


def scaled_error(found: NDArray, expected: NDArray, scale: float) -> float:
    """Compute the largest absolute error divided by a scale.

    Parameters
    ----------
    found, expected : ndarray
        The arrays to compare. Equal infinities, and NaN in both, count as equal.
    scale : float
        Reference magnitude that the error is divided by.

    Returns
    -------
    float
        max |found - expected| / scale. Infinity where the shapes differ, or where only one of two
        values is finite.
    """
    if found.shape != expected.shape:
        return math.inf
    found = np.asarray(found, np.float64)
    differs = (found != expected) & ~(np.isnan(found) & np.isnan(expected))
    if not differs.any():
        return 0.0
    if not np.isfinite(found[differs]).all() or not np.isfinite(expected[differs]).all():
        return math.inf
    return float(np.abs(found[differs] - expected[differs]).max() / max(scale, 1e-300))
