"""Elementwise functions on Paddle tensors, and the specs of Paddle's own activations.

Paddle's own where value and gradient are the spec's, else a value and a slope of ours. Paddle's own
are wrong in these: `relu` is 0 for NaN; `leaky_relu` has the gradient 1 at 0; `elu`, `celu`,
`selu`, `hardsigmoid` keep their constants as float32; `softplus` is x beyond 20; `gelu` overflows
at 3e38, as does `hardswish`, whose gradient is then NaN, and `silu` has the gradient NaN below
-88.7 (float32) or -710 (float64).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.jit import not_to_static

from acon_core import spec
from acon_core.spec.pointwise import SELU_ALPHA, SELU_SCALE
from acon_paddle.arrays import constant
from acon_paddle.gradient import Rule, Terms, apply


@not_to_static
def exp(z: Tensor) -> Tensor:
    """Compute exp(z), and 0 where it is not a normal number.

    Paddle's own stops there, at 1e-38 in float32, which is not nothing when multiplied by 3e38.
    """
    return paddle.exp(z) * (z > (-708 if z.dtype == paddle.float64 else -87)).astype(z.dtype)


@not_to_static
def _rule(value: Callable[..., Tensor], slope: Callable[..., Tensor], *options: float) -> Rule:
    """Return the rule of value(x, *options), whose derivative is slope(x, *options)."""

    def of(function: Callable[..., Tensor], x: Tensor) -> Tensor:
        return function(x, *(constant(option, x) for option in options))

    def pullback(needed: Sequence[bool], g: Tensor, x: Tensor) -> Terms:
        yield g * of(slope, x)

    return Rule(lambda x: of(value, x), pullback)


relu6, mish, sigmoid = F.relu6, F.mish, F.sigmoid


def identity(x: Tensor) -> Tensor:
    """Return x."""
    return x


def relu(x: Tensor) -> Tensor:
    """Compute max(x, 0), NaN where x is NaN. Gradient at 0: 0. Can be differentiated once."""
    return F.hardtanh(x, 0.0, math.inf)


def _leaky_relu(x: Tensor, slope: Tensor) -> Tensor:
    return paddle.where(x > 0, x, slope * x)


def _leaky_relu_slope(x: Tensor, slope: Tensor) -> Tensor:
    return paddle.where(x > 0, constant(1.0, x), slope)


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """Compute x where x > 0, else slope x. Gradient at 0: slope."""
    return apply(_rule(_leaky_relu, _leaky_relu_slope, slope), x)


def _elu(x: Tensor, alpha: Tensor) -> Tensor:
    return paddle.where(x > 0, x, alpha * paddle.expm1(x))


def _elu_slope(x: Tensor, alpha: Tensor) -> Tensor:
    return paddle.where(x > 0, constant(1.0, x), alpha * paddle.exp(x))


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Compute x where x > 0, else alpha (exp(x) - 1). Gradient at 0: alpha."""
    return apply(_rule(_elu, _elu_slope, alpha), x)


def _selu(x: Tensor, scale: Tensor, alpha: Tensor) -> Tensor:
    return scale * _elu(x, alpha)


def _selu_slope(x: Tensor, scale: Tensor, alpha: Tensor) -> Tensor:
    return scale * _elu_slope(x, alpha)


def selu(x: Tensor) -> Tensor:
    """Compute scale times elu(x, alpha), constants as published. Gradient at 0: scale alpha."""
    return apply(_rule(_selu, _selu_slope, SELU_SCALE, SELU_ALPHA), x)


def _celu(x: Tensor, alpha: Tensor) -> Tensor:
    return paddle.where(x > 0, x, alpha * paddle.expm1(x / alpha))


def _celu_slope(x: Tensor, alpha: Tensor) -> Tensor:
    return paddle.where(x > 0, constant(1.0, x), paddle.exp(x / alpha))


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Compute x where x > 0, else alpha (exp(x / alpha) - 1). Smooth."""
    return apply(_rule(_celu, _celu_slope, alpha), x)


def _normal_cdf(x: Tensor) -> Tensor:
    return constant(0.5, x) * (1 + paddle.erf(x * constant(math.sqrt(0.5), x)))


def _gelu(x: Tensor) -> Tensor:
    return x * _normal_cdf(x)


def _gelu_slope(x: Tensor) -> Tensor:
    density = constant(1 / math.sqrt(2 * math.pi), x) * exp(constant(-0.5, x) * x * x)
    return _normal_cdf(x) + x * density


def _gelu_tanh_exponent(x: Tensor) -> Tensor:
    """Return 2 u, where (1 + tanh u) / 2 = sigmoid(2 u)."""
    return constant(math.sqrt(8 / math.pi), x) * (x + constant(0.044715, x) * x * x * x)


def _gelu_tanh(x: Tensor) -> Tensor:
    return x * F.sigmoid(_gelu_tanh_exponent(x))


def _gelu_tanh_slope(x: Tensor) -> Tensor:
    near = x.clip(-100.0, 100.0)  # beyond, the slope is 0 or 1 in every dtype, and the polynomials overflow
    z = _gelu_tanh_exponent(near)
    s, t = F.sigmoid(z), F.sigmoid(-z)
    rate = constant(math.sqrt(8 / math.pi), x) * (1 + constant(3 * 0.044715, x) * near * near)
    return s + near * rate * (s * t)


_GELU = {"none": (_gelu, _gelu_slope), "tanh": (_gelu_tanh, _gelu_tanh_slope)}


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Compute x (1 + erf(x / sqrt 2)) / 2, or its tanh approximation. Smooth."""
    return apply(_rule(*_GELU[approximate]), x)


def _silu(x: Tensor) -> Tensor:
    return x * F.sigmoid(x)


def _silu_slope(x: Tensor) -> Tensor:
    s, t = F.sigmoid(x), F.sigmoid(-x)
    return s + x * (s * t)


def silu(x: Tensor) -> Tensor:
    """Compute x sigmoid(x). Smooth."""
    return apply(_rule(_silu, _silu_slope), x)


def _softplus(x: Tensor, beta: Tensor) -> Tensor:
    return F.relu(x) + paddle.log1p(paddle.exp(-(beta * x).abs())) / beta


def _softplus_slope(x: Tensor, beta: Tensor) -> Tensor:
    return F.sigmoid(beta * x)


def softplus(x: Tensor, beta: float = 1.0) -> Tensor:
    """Compute log(1 + exp(beta x)) / beta, for every x. Smooth."""
    return apply(_rule(_softplus, _softplus_slope, beta), x)


def hardswish_value(x: Tensor) -> Tensor:
    """Compute x min(max(x + 3, 0), 6) / 6; divide first, so that nothing overflows."""
    return x * ((x + 3).clip(0.0, 6.0) / constant(6.0, x))


def hardswish_slope(x: Tensor) -> Tensor:
    """Compute the derivative of hardswish: 0 up to -3, 1 from 3 on, x / 3 + 1 / 2 between."""
    inside = ((x > -3) & (x < 3)).astype(x.dtype)
    near = x.clip(-3.0, 3.0)
    return (near / constant(3.0, x) + constant(0.5, x)) * inside + (x >= 3).astype(x.dtype)


def hardswish(x: Tensor) -> Tensor:
    """Compute x min(max(x + 3, 0), 6) / 6. Gradient at -3: 0; at 3: 1."""
    return apply(_rule(hardswish_value, hardswish_slope), x)


def _hardsigmoid(x: Tensor, six: Tensor) -> Tensor:
    return (x + 3).clip(0.0, 6.0) / six


def _hardsigmoid_slope(x: Tensor, six: Tensor) -> Tensor:
    return ((x > -3) & (x < 3)).astype(x.dtype) / six


def hardsigmoid(x: Tensor) -> Tensor:
    """Compute min(max(x + 3, 0), 6) / 6. Gradient at -3 and 3: 0."""
    return apply(_rule(_hardsigmoid, _hardsigmoid_slope, 6.0), x)


def _native_selu(layer: nn.SELU) -> spec.Node | None:
    return spec.SELU() if (layer._scale, layer._alpha) == (nn.SELU()._scale, nn.SELU()._alpha) else None


def _native_softplus(layer: nn.Softplus) -> spec.Node | None:
    """With a threshold below 20, the jump to x at the threshold is more than rounding."""
    return spec.Softplus(float(layer._beta)) if layer._threshold >= 20 else None


def _native_prelu(layer: nn.PReLU) -> spec.Node:
    if layer._num_parameters == 1:
        return spec.PReLU()
    axis = 1 if layer._data_format.startswith("NC") else -1
    return spec.PReLU(layer._num_parameters, shared=False, channel_axis=axis)


NATIVE_ACTIVATIONS: dict[type[nn.Layer], Callable[[Any], spec.Node | None]] = {
    nn.Identity: lambda layer: spec.Identity(),
    nn.ReLU: lambda layer: spec.ReLU(),
    nn.ReLU6: lambda layer: spec.ReLU6(),
    nn.LeakyReLU: lambda layer: spec.LeakyReLU(float(layer._negative_slope)),
    nn.PReLU: _native_prelu,
    nn.ELU: lambda layer: spec.ELU(float(layer._alpha)),
    nn.SELU: _native_selu,
    nn.CELU: lambda layer: spec.CELU(float(layer._alpha)),
    nn.GELU: lambda layer: spec.GELU("tanh" if layer._approximate in (True, "tanh") else "none"),
    nn.Silu: lambda layer: spec.SiLU(),
    nn.Swish: lambda layer: spec.SiLU(),
    nn.Mish: lambda layer: spec.Mish(),
    nn.Softplus: _native_softplus,
    nn.Hardswish: lambda layer: spec.HardSwish(),
    nn.Hardsigmoid: lambda layer: spec.HardSigmoid(),
    nn.Sigmoid: lambda layer: spec.Sigmoid(),
}
"""The specs of Paddle's activation layers; None for options that the spec does not have."""

ACTIVATION_FUNCTIONS = (
    "relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "swish", "mish", "softplus", "hardswish",
    "hardsigmoid", "sigmoid",
)  # fmt: skip
"""The operators that F.relu, paddle.sigmoid, x.sigmoid() and the like call."""
