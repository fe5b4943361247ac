"""Test states without symmetries, and the measure of an error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from acon_core import spec
from acon_core.random import Stream

# Ranges of parameters for which (-0.5, 0.5) would be invalid or would hide mistakes.
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
    """Draw a state in which every misplaced value changes the result.

    No value is an initial value, no value is 0, and no two values of an array are equal. So a test
    that uses the state detects a transposed, shuffled or omitted parameter.

    Parameters
    ----------
    node : Node
        The network or layer.
    key : str
        Seeds the random numbers.
    ranges : mapping of str to (low, high)
        Ranges of parameters by name, in place of those in `RANGES`.

    Returns
    -------
    dict of str to ndarray
        The canonical state: weights and statistics in float64, counters in int64. Derived buffers
        keep the values that follow from the spec.
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
    """Measure the largest error as a fraction of a scale.

    Parameters
    ----------
    found, expected : ndarray
        The arrays to compare. Equal infinities, and NaN in both, count as equal.
    scale : float
        What the error is relative to, in the unit of the arrays.

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
