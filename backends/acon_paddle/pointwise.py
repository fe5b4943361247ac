"""Functions of each element. Paddle's own where value and gradient are right; the others through one custom gradient.

Paddle's own are wrong in these: `relu` is 0 for NaN; `leaky_relu` has the gradient 1 at 0; `elu`, `celu`, `selu`,
`hardsigmoid` keep their constants as float32; `softplus` is x beyond 20; `gelu` overflows at 3e38, as does `hardswish`, whose
gradient is then NaN, and `silu` has the gradient NaN below -88.7 (float32) or -710 (float64).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.jit import not_to_static

from acon_core.spec.pointwise import SELU_ALPHA, SELU_SCALE
from acon_paddle.arrays import constant, exp, wide

Part = Callable[[Tensor, Any], Tensor]


@not_to_static
def _part(part: Part, x: Tensor, option: float) -> Tensor:
    """A value or a slope in at least float32, not rewritten by to_static."""
    return part(wide(x)[0], constant(option, wide(x)[0]))


class _Pointwise(PyLayer):
    """value(x, option), whose derivative is slope(x, option): for the backward pass it keeps x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Part, slope: Part, option: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope, ctx.option = slope, option
        return _part(value, x, option).astype(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensor()
        return (wide(g)[0] * _part(ctx.slope, x, ctx.option)).astype(x.dtype)


def identity(x: Tensor) -> Tensor:
    """x."""
    return x


def relu(x: Tensor) -> Tensor:
    """max(x, 0), NaN where x is NaN. Gradient at 0: 0. Can be differentiated once."""
    y: Tensor = F.hardtanh(x, 0.0, math.inf)
    return y


def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6). Gradient at 0 and at 6: 0."""
    y: Tensor = F.relu6(x)
    return y


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    y: Tensor = F.sigmoid(x)
    return y


def mish(x: Tensor) -> Tensor:
    """x tanh(log(1 + exp(x)))."""
    y: Tensor = F.mish(x)
    return y


def _leaky(x: Tensor, slope: Tensor) -> Tensor:
    return paddle.where(x > 0, x, slope * x)


def _leaky_slope(x: Tensor, slope: Tensor) -> Tensor:
    return paddle.where(x > 0, constant(1.0, x), slope)


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """x where x > 0, else slope x. Gradient at 0: slope."""
    y: Tensor = _Pointwise.apply(x, _leaky, _leaky_slope, slope)
    return y


def _elu(x: Tensor, alpha: Tensor) -> Tensor:
    return paddle.where(x > 0, x, alpha * paddle.expm1(x))


def _elu_slope(x: Tensor, alpha: Tensor) -> Tensor:
    return paddle.where(x > 0, constant(1.0, x), alpha * paddle.exp(x))


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, else alpha (exp(x) - 1). Gradient at 0: alpha."""
    y: Tensor = _Pointwise.apply(x, _elu, _elu_slope, alpha)
    return y


def _selu(x: Tensor, alpha: Tensor) -> Tensor:
    return constant(SELU_SCALE, x) * _elu(x, alpha)


def _selu_slope(x: Tensor, alpha: Tensor) -> Tensor:
    return constant(SELU_SCALE, x) * _elu_slope(x, alpha)


def selu(x: Tensor) -> Tensor:
    """scale x where x > 0, else scale alpha (exp(x) - 1), with the paper's constants. Gradient at 0: scale alpha."""
    y: Tensor = _Pointwise.apply(x, _selu, _selu_slope, SELU_ALPHA)
    return y


def _celu(x: Tensor, alpha: Tensor) -> Tensor:
    return paddle.where(x > 0, x, alpha * paddle.expm1(x / alpha))


def _celu_slope(x: Tensor, alpha: Tensor) -> Tensor:
    return paddle.where(x > 0, constant(1.0, x), paddle.exp(x / alpha))


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, else alpha (exp(x / alpha) - 1): smooth."""
    y: Tensor = _Pointwise.apply(x, _celu, _celu_slope, alpha)
    return y


def _gelu_share(x: Tensor) -> Tensor:
    return constant(0.5, x) * (1 + paddle.erf(x * constant(math.sqrt(0.5), x)))


def _gelu(x: Tensor, unused: Tensor) -> Tensor:
    return x * _gelu_share(x)


def _gelu_slope(x: Tensor, unused: Tensor) -> Tensor:
    density = constant(1 / math.sqrt(2 * math.pi), x) * exp(constant(-0.5, x) * x * x)
    return _gelu_share(x) + x * density


def _gelu_tanh_argument(x: Tensor) -> Tensor:
    """(1 + tanh u) / 2 is sigmoid(2 u): this is 2 u."""
    return constant(math.sqrt(8 / math.pi), x) * (x + constant(0.044715, x) * x * x * x)


def _gelu_tanh(x: Tensor, unused: Tensor) -> Tensor:
    return x * F.sigmoid(_gelu_tanh_argument(x))


def _gelu_tanh_slope(x: Tensor, unused: Tensor) -> Tensor:
    near = x.clip(-100.0, 100.0)  # beyond, the slope is 0 or 1 in every dtype, and the polynomials would overflow
    z = _gelu_tanh_argument(near)
    s, t = F.sigmoid(z), F.sigmoid(-z)
    bend = constant(math.sqrt(8 / math.pi), x) * (1 + constant(3 * 0.044715, x) * near * near)
    return s + near * bend * (s * t)


_GELU: dict[str, tuple[Part, Part]] = {"none": (_gelu, _gelu_slope), "tanh": (_gelu_tanh, _gelu_tanh_slope)}


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x (1 + erf(x / sqrt 2)) / 2, or with `tanh`: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    value, slope = _GELU[approximate]
    y: Tensor = _Pointwise.apply(x, value, slope, 0.0)
    return y


def _silu(x: Tensor, unused: Tensor) -> Tensor:
    return x * F.sigmoid(x)


def _silu_slope(x: Tensor, unused: Tensor) -> Tensor:
    s, t = F.sigmoid(x), F.sigmoid(-x)
    return s + x * (s * t)


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x), with a gradient that is right for every finite x.

    Keeps x alone for the backward pass. Works under paddle.jit.to_static; Paddle differentiates it once only.
    """
    y: Tensor = _Pointwise.apply(x, _silu, _silu_slope, 0.0)
    return y


def _softplus(x: Tensor, beta: Tensor) -> Tensor:
    return F.relu(x) + paddle.log1p(paddle.exp(-(beta * x).abs())) / beta


def _softplus_slope(x: Tensor, beta: Tensor) -> Tensor:
    return F.sigmoid(beta * x)


def softplus(x: Tensor, beta: float = 1.0) -> Tensor:
    """log(1 + exp(beta x)) / beta, exact for every x."""
    y: Tensor = _Pointwise.apply(x, _softplus, _softplus_slope, beta)
    return y


def hardswish_value(x: Tensor) -> Tensor:
    """x min(max(x + 3, 0), 6) / 6; the division comes first, so that nothing overflows."""
    return x * ((x + 3).clip(0.0, 6.0) / constant(6.0, x))


def hardswish_slope(x: Tensor) -> Tensor:
    """0 up to -3, 1 from 3 on, x / 3 + 1 / 2 between: at the knots that is neither 0 nor 1, so the ends are cut off there."""
    inside = ((x > -3) & (x < 3)).astype(x.dtype)
    near = x.clip(-3.0, 3.0)
    return (near / constant(3.0, x) + constant(0.5, x)) * inside + (x >= 3).astype(x.dtype)


def _hardswish(x: Tensor, unused: Tensor) -> Tensor:
    return hardswish_value(x)


def _hardswish_slope(x: Tensor, unused: Tensor) -> Tensor:
    return hardswish_slope(x)


def hardswish(x: Tensor) -> Tensor:
    """x min(max(x + 3, 0), 6) / 6. Gradient at -3: 0; at 3: 1."""
    y: Tensor = _Pointwise.apply(x, _hardswish, _hardswish_slope, 0.0)
    return y


def _hardsigmoid(x: Tensor, six: Tensor) -> Tensor:
    return (x + 3).clip(0.0, 6.0) / six


def _hardsigmoid_slope(x: Tensor, six: Tensor) -> Tensor:
    return ((x > -3) & (x < 3)).astype(x.dtype) / six


def hardsigmoid(x: Tensor) -> Tensor:
    """min(max(x + 3, 0), 6) / 6. Gradient at -3 and at 3: 0."""
    y: Tensor = _Pointwise.apply(x, _hardsigmoid, _hardsigmoid_slope, 6.0)
    return y
