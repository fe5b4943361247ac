"""Rules of the elementwise functions: the value, and the derivative that the VJP multiplies by."""

from __future__ import annotations

import math

import numpy as np

from acon_core.reference.core import Array, Context, Values, elementwise, evaluate, sigmoid
from acon_core.spec import pointwise as f

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def relu_slope(x: Array) -> Array:
    """Compute the derivative of ReLU: 1 where x > 0, else 0."""
    return (x > 0).astype(np.float64)


def hardswish(x: Array) -> Array:
    """Compute x min(max(x + 3, 0), 6) / 6."""
    return x * np.clip(x + 3.0, 0.0, 6.0) / 6.0


def hardswish_slope(x: Array) -> Array:
    """Compute the derivative of hardswish: 0 for x <= -3, 1 for x >= 3, x / 3 + 1 / 2 between."""
    return np.where(x <= -3.0, 0.0, np.where(x >= 3.0, 1.0, x / 3.0 + 0.5))


@evaluate.register(f.Identity)
def _identity(node: f.Identity, context: Context, x: Array) -> Values:
    return elementwise(x, np.ones(()))


@evaluate.register(f.ReLU)
def _relu(node: f.ReLU, context: Context, x: Array) -> Values:
    return elementwise(np.maximum(x, 0.0), relu_slope(x))


@evaluate.register(f.ReLU6)
def _relu6(node: f.ReLU6, context: Context, x: Array) -> Values:
    return elementwise(np.clip(x, 0.0, 6.0), ((x > 0) & (x < 6)).astype(np.float64))


@evaluate.register(f.LeakyReLU)
def _leaky_relu(node: f.LeakyReLU, context: Context, x: Array) -> Values:
    slope = np.where(x > 0, 1.0, node.slope)
    return elementwise(x * slope, slope)


@evaluate.register(f.ELU)
def _elu(node: f.ELU, context: Context, x: Array) -> Values:
    low = np.minimum(x, 0.0)
    return elementwise(np.where(x > 0, x, node.alpha * np.expm1(low)), np.where(x > 0, 1.0, node.alpha * np.exp(low)))


@evaluate.register(f.SELU)
def _selu(node: f.SELU, context: Context, x: Array) -> Values:
    low = np.minimum(x, 0.0)
    y = f.SELU_SCALE * np.where(x > 0, x, f.SELU_ALPHA * np.expm1(low))
    return elementwise(y, f.SELU_SCALE * np.where(x > 0, 1.0, f.SELU_ALPHA * np.exp(low)))


@evaluate.register(f.CELU)
def _celu(node: f.CELU, context: Context, x: Array) -> Values:
    low = np.minimum(x, 0.0) / node.alpha
    return elementwise(np.where(x > 0, x, node.alpha * np.expm1(low)), np.where(x > 0, 1.0, np.exp(low)))


@evaluate.register(f.GELU)
def _gelu(node: f.GELU, context: Context, x: Array) -> Values:
    if node.approximate == "none":
        probability = _erfc(-x / math.sqrt(2.0)) / 2.0
        density = np.exp(-np.square(np.clip(x, -1e100, 1e100)) / 2.0) / math.sqrt(2.0 * math.pi)
        return elementwise(x * probability, probability + x * density)
    # (1 + tanh u) / 2 is sigmoid(2 u).
    factor, cubic = math.sqrt(8.0 / math.pi), 0.044715
    z = factor * (x + cubic * x**3)
    s, t = sigmoid(z), sigmoid(-z)
    return elementwise(x * s, s + x * (factor * (1.0 + 3.0 * cubic * x**2)) * (s * t))


@evaluate.register(f.SiLU)
def _silu(node: f.SiLU, context: Context, x: Array) -> Values:
    s, t = sigmoid(x), sigmoid(-x)
    return elementwise(x * s, s + x * (s * t))


@evaluate.register(f.Mish)
def _mish(node: f.Mish, context: Context, x: Array) -> Values:
    soft = np.logaddexp(0.0, x)
    return elementwise(x * np.tanh(soft), np.tanh(soft) + x * (sigmoid(x) / np.square(np.cosh(np.minimum(soft, 300.0)))))


@evaluate.register(f.Softplus)
def _softplus(node: f.Softplus, context: Context, x: Array) -> Values:
    return elementwise(np.logaddexp(0.0, node.beta * x) / node.beta, sigmoid(node.beta * x))


@evaluate.register(f.HardSwish)
def _hardswish(node: f.HardSwish, context: Context, x: Array) -> Values:
    return elementwise(hardswish(x), hardswish_slope(x))


@evaluate.register(f.HardSigmoid)
def _hardsigmoid(node: f.HardSigmoid, context: Context, x: Array) -> Values:
    return elementwise(np.clip(x + 3.0, 0.0, 6.0) / 6.0, ((x > -3.0) & (x < 3.0)) / 6.0)


@evaluate.register(f.Sigmoid)
def _sigmoid(node: f.Sigmoid, context: Context, x: Array) -> Values:
    return elementwise(sigmoid(x), sigmoid(x) * sigmoid(-x))
