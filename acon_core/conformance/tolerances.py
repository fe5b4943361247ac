"""The one table of tolerances. Each is a fraction of its quantity's scale, with the reason that it is no smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["layer", "network"]
Quantity = Literal["y", "dx", "dparams", "running_mean", "running_var", "num_batches_tracked"]


@dataclass(frozen=True)
class Tolerance:
    """The largest error allowed, and why. Scales: the largest |value| of a golden array for `y` and taps; the largest
    sum of |terms| for `dx` and `dparams`; the standard deviation for `running_mean`; the variance for `running_var`."""

    bound: float
    reason: str


_LAYER_32 = "a few roundings of 6e-8 and sums of up to a few hundred terms, in whatever order"
_LAYER_64 = "the same roundings at 1.1e-16; some frameworks form constants and reciprocals less exactly"
_DEPTH_32 = "about 60 layers whose roundings add up; 1.0e-6 to 1.8e-6 for trained weights, more for random ones"
_STEP_32 = "batch statistics divide by the spread of few values (five, in a Meta-ACON generator), at every layer again"
_DEPTH_64 = "the float32 bounds times 2^-29, and more: PyTorch sums float32 statistics in float64, but float64 ones in float64"
_EXACT = "a count of batches"

TOLERANCES: dict[tuple[Scope, Quantity, str], Tolerance] = {
    ("layer", "y", "float32"): Tolerance(2e-6, _LAYER_32),
    ("layer", "dx", "float32"): Tolerance(4e-6, _LAYER_32),
    ("layer", "dparams", "float32"): Tolerance(4e-6, _LAYER_32),
    ("layer", "running_mean", "float32"): Tolerance(1e-6, _LAYER_32),
    ("layer", "running_var", "float32"): Tolerance(2e-6, _LAYER_32),
    ("layer", "y", "float64"): Tolerance(4e-15, _LAYER_64),
    ("layer", "dx", "float64"): Tolerance(8e-15, _LAYER_64),
    ("layer", "dparams", "float64"): Tolerance(8e-15, _LAYER_64),
    ("layer", "running_mean", "float64"): Tolerance(2e-15, _LAYER_64),
    ("layer", "running_var", "float64"): Tolerance(4e-15, _LAYER_64),
    ("network", "y", "float32"): Tolerance(2e-5, _DEPTH_32),
    ("network", "dx", "float32"): Tolerance(2e-4, _STEP_32),
    ("network", "dparams", "float32"): Tolerance(2e-4, _STEP_32),
    ("network", "running_mean", "float32"): Tolerance(2e-5, _STEP_32),
    ("network", "running_var", "float32"): Tolerance(2e-5, _STEP_32),
    ("network", "y", "float64"): Tolerance(1e-12, _DEPTH_64),
    ("network", "dx", "float64"): Tolerance(4e-12, _DEPTH_64),
    ("network", "dparams", "float64"): Tolerance(2e-11, _DEPTH_64),
    ("network", "running_mean", "float64"): Tolerance(1e-13, _DEPTH_64),
    ("network", "running_var", "float64"): Tolerance(1e-12, _DEPTH_64),
    **{
        (scope, "num_batches_tracked", dtype): Tolerance(0.0, _EXACT)
        for scope in ("layer", "network")
        for dtype in ("float32", "float64")
    },
}
