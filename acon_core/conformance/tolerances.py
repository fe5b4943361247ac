"""The table of tolerances, each with the reason why it is not smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["layer", "network", "training"]
Quantity = Literal["y", "dx", "dparams", "running_mean", "running_var"]


@dataclass(frozen=True)
class Tolerance:
    """The largest allowed error of a quantity, relative to its scale.

    Parameters
    ----------
    bound : float
        The largest allowed error, as a fraction of the scale.
    reason : str
        Why it is not smaller.

    Notes
    -----
    The scale is the largest absolute value of the golden array for ``y`` and taps; the largest sum
    of absolute terms for ``dx`` and ``dparams``; the standard deviation for ``running_mean``; and
    the variance for ``running_var``.
    """

    bound: float
    reason: str


_LAYER_32 = "a few roundings of 6e-8, and sums of up to a few hundred terms in any order"
_LAYER_64 = "the same roundings at 1.1e-16; some frameworks compute constants and reciprocals less exactly"
_LAYER_B16 = "an activation computes in float32 and rounds once to 8 bits: up to 2^-8 of a value"
_LAYER_F16 = "the same with 11 bits: up to 2^-11 of a value"
_DEPTH_32 = "the roundings of about 60 layers add up: 0.3e-6 to 2.4e-6 in the four frameworks"
_DEPTH_64 = "the same roundings at 1.1e-16"
_STEP_32 = (
    "every layer divides by the standard deviation of few values (five in a Meta-ACON generator); set after "
    "measuring: compiled PyTorch reaches three quarters of the bound of the outputs, MegEngine a fifth"
)
_STEP_64 = "the same roundings at 1.1e-16; no framework has a wider type for float64 statistics"

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
