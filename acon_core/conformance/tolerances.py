"""The one table of tolerances. Each is a fraction of its quantity's scale, with the reason that it is no smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["layer", "network", "training"]
Quantity = Literal["y", "dx", "dparams", "running_mean", "running_var"]


@dataclass(frozen=True)
class Tolerance:
    """The largest error allowed, and why. Scales: the largest |value| of a golden array for `y` and taps; the largest
    sum of |terms| for `dx` and `dparams`; the standard deviation for `running_mean`; the variance for `running_var`."""

    bound: float
    reason: str


_LAYER_32 = "a few roundings of 6e-8 and sums of up to a few hundred terms, in whatever order"
_LAYER_64 = "the same roundings at 1.1e-16; some frameworks form constants and reciprocals less exactly"
_LAYER_B16 = "computed in float32 from end to end of an activation, and rounded once to 8 bits: up to 2^-8 of a value"
_LAYER_F16 = "the same with 11 bits: up to 2^-11"
_DEPTH_32 = "about 60 layers whose roundings add up: 0.3e-6 to 2.4e-6 in the four frameworks"
_DEPTH_64 = "the same roundings at 1.1e-16"
_STEP_32 = (
    "batch statistics divide by the spread of few values (five, in a Meta-ACON generator), at every layer again; set "
    "after measuring; of the outputs' bound compiled PyTorch comes to three quarters, MegEngine to a fifth"
)
_STEP_64 = "the same roundings at 1.1e-16, and no framework has a wider type to form float64 statistics in"

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
    ("layer", "y", "bfloat16"): Tolerance(4e-3, _LAYER_B16),
    ("layer", "dx", "bfloat16"): Tolerance(4e-3, _LAYER_B16),
    ("layer", "dparams", "bfloat16"): Tolerance(4e-3, _LAYER_B16),
    ("layer", "y", "float16"): Tolerance(5e-4, _LAYER_F16),
    ("layer", "dx", "float16"): Tolerance(5e-4, _LAYER_F16),
    ("layer", "dparams", "float16"): Tolerance(5e-4, _LAYER_F16),
    ("network", "y", "float32"): Tolerance(5e-6, _DEPTH_32),
    ("network", "y", "float64"): Tolerance(1e-14, _DEPTH_64),
    ("training", "y", "float32"): Tolerance(5e-5, _STEP_32),
    ("training", "dx", "float32"): Tolerance(2e-4, _STEP_32),
    ("training", "dparams", "float32"): Tolerance(5e-4, _STEP_32),
    ("training", "running_mean", "float32"): Tolerance(2e-6, _STEP_32),
    ("training", "running_var", "float32"): Tolerance(2e-5, _STEP_32),
    ("training", "y", "float64"): Tolerance(2e-13, _STEP_64),
    ("training", "dx", "float64"): Tolerance(1e-12, _STEP_64),
    ("training", "dparams", "float64"): Tolerance(2e-12, _STEP_64),
    ("training", "running_mean", "float64"): Tolerance(2e-14, _STEP_64),
    ("training", "running_var", "float64"): Tolerance(1e-13, _STEP_64),
}
