"""The gated activation functions on PyTorch tensors.

No intermediate value overflows, and the hand-written gradients keep the arguments only. A *gate*
is a learnt or generated value beside x: a tensor (1,), (C,), (1 or N, 1 or C, 1, 1), or of the
shape of x. Channels of x are at `channel_axis`. All return the shape and dtype of x; 16-bit values
are computed in float32. `acon_core.frontend.gated` has the docstrings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from acon_core.errors import SpecError
from acon_core.frontend.gated import document
from acon_core.spec.sizes import fits
from acon_torch import FRAMEWORK
from acon_torch.gradient import BOUND, Gate, Terms, check_floating, inplace, inplace_if_safe, upcast_half
from acon_torch.kernels import KernelRule
from acon_torch.tracing import is_traced, sizes


def _fixed_at(value: Gate, number: float) -> bool:
    return not isinstance(value, Tensor) and value == number


def _acon(x: Tensor, p1: Gate, p2: Gate, beta: Tensor) -> Tensor:
    slope = p1 - p2
    z = (beta * slope) * x
    if is_traced():  # PyTorch differentiates it, and keeps what the operations made
        return (torch.sigmoid(z) * slope + p2) * x
    y = z.sigmoid_()
    if not _fixed_at(slope, 1.0):
        y = y.mul_(slope)
    if not _fixed_at(p2, 0.0):
        y = y.add_(p2)
    return y.mul_(x)


def _acon_pullback(needed: Sequence[bool], g: Tensor, x: Tensor, p1: Gate, p2: Gate, beta: Tensor) -> Terms:
    slope = p1 - p2
    z = (beta * slope) * x
    s, t = torch.sigmoid(z), inplace_if_safe(-z, "sigmoid")
    st = s * t
    curvature = inplace_if_safe(inplace_if_safe(z, "clamp", -BOUND, BOUND), "mul", st)
    # dy/dp1 and dy/dp2 over x. Never 1 - s: it loses the digits that t keeps.
    to_p1, to_p2 = inplace_if_safe(s, "add", curvature), inplace_if_safe(t, "sub", curvature)
    dx = to_p1 if _fixed_at(p1, 1.0) else p1 * to_p1
    if not _fixed_at(p2, 0.0):
        dx = dx + p2 * to_p2
    gx = g * x if any(needed[1:]) else g

    def to_beta() -> Tensor:
        return inplace_if_safe(inplace_if_safe(inplace_if_safe(st, "mul", slope), "mul", x), "mul", slope)

    return (
        g * dx if needed[0] else None,
        gx * to_p1 if needed[1] else None,
        gx * to_p2 if needed[2] else None,
        gx * to_beta() if needed[3] else None,
    )


_ACON = KernelRule(_acon, _acon_pullback, "acon")


def acon(x: Tensor, p1: Gate, p2: Gate, beta: Tensor, channel_axis: int = 1) -> Tensor:
    """Compute ACON-C, the smooth maximum of p1 x and p2 x."""
    check_floating("acon", x)
    return _ACON(x, p1, p2, beta, channel_axis=channel_axis)


def smooth_maximum(*values: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    """Compute the smooth maximum of two or more values, element by element."""
    shapes = [sizes(value) for value in values]
    if len(values) < 2 or not all(fits(shape, shapes[0]) for shape in shapes):
        found = ", ".join(str(tuple(shape)) for shape in shapes)
        raise SpecError(f"smooth_maximum: expected two values or more of one shape, found {found or 'none'}")
    check_floating("smooth_maximum", values[0])
    dtype = values[0].dtype
    wide = upcast_half(*values)
    double = 2.0 * upcast_half(beta)[0]
    if len(wide) == 2:
        # b + (a - b) sigmoid(beta (a - b)), in halves because a - b may overflow.
        a, b = wide
        half = torch.sub(0.5 * a, b, alpha=0.5)
        step = acon(half, 1.0, 0.0, double if isinstance(double, Tensor) else half.new_tensor([double]))
        return (b + step).add_(step).to(dtype)
    # Start from the value with the largest weight, so that no exponent is above 0. The result does
    # not depend on the start, so the start needs no gradient.
    halves = 0.5 * torch.stack(wide)
    fixed = halves.detach()
    if isinstance(double, Tensor):
        start = torch.where(double.detach() >= 0, fixed.amax(0), fixed.amin(0))
    else:
        start = fixed.amax(0) if double >= 0 else fixed.amin(0)
    steps = halves - start
    weights = torch.softmax(double * steps, 0)
    # In the backward pass, a weight of 0 is multiplied by a gradient that may be infinite.
    mean = (weights * steps.masked_fill(weights == 0, 0.0)).sum(0)
    return (2.0 * start + mean + mean).to(dtype)


def _maximum_pullback(needed: Sequence[bool], g: Tensor, a: Tensor, b: Tensor) -> Terms:
    first = g * torch.sign(a - b).add_(1).mul_(0.5)  # 1 where a is larger, 1 / 2 at a tie, else 0
    return first if needed[0] else None, g - first if needed[1] else None


_MAXIMUM = KernelRule(torch.maximum, _maximum_pullback, "maximum", native=True)


def maximum(a: Tensor, b: Tensor) -> Tensor:
    """Compute the maximum of two values, element by element."""
    check_floating("maximum", a)
    return _MAXIMUM(a, b) if sizes(a) == sizes(b) else torch.maximum(a, b)


def _positive_part(g: Tensor, x: Tensor) -> Tensor:
    """Return g where x > 0, else 0, in one pass; torch.where takes thirty times as long."""
    part: Tensor = torch.ops.aten.threshold_backward(g, x, 0)
    return part


def _prelu(x: Tensor, positive: Gate, negative: Tensor) -> Tensor:
    above = torch.relu(x)  # not clamp, whose gradient at 0 is 1
    if isinstance(positive, Tensor):
        above = above * positive
    return torch.addcmul(above, x.clamp(max=0), negative)


def _prelu_pullback(needed: Sequence[bool], g: Tensor, x: Tensor, positive: Gate, negative: Tensor) -> Terms:
    above = _positive_part(g, x)
    below = g - above
    scaled = above * positive if isinstance(positive, Tensor) else above
    return (
        torch.addcmul(scaled, below, negative) if needed[0] else None,
        above * x if needed[1] else None,
        below * x if needed[2] else None,
    )


_PRELU = KernelRule(_prelu, _prelu_pullback, "slopes")


def prelu(x: Tensor, negative: Tensor, channel_axis: int = 1) -> Tensor:
    """Compute PReLU: x where x > 0, else `negative` times x."""
    check_floating("prelu", x)
    if x.dtype is torch.float32 and not x.is_meta and torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))  # as PyTorch's own PReLU
    return _PRELU(x, 1.0, negative, channel_axis=channel_axis)


_LOW, _HIGH = 0.01, 0.99


def _arelu(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return _prelu(x, 1 + torch.sigmoid(beta), alpha.clamp(_LOW, _HIGH))


def _arelu_pullback(needed: Sequence[bool], g: Tensor, x: Tensor, alpha: Tensor, beta: Tensor) -> Terms:
    s = torch.sigmoid(beta)
    of_each = (needed[0], needed[2], needed[1])
    dx, to_positive, to_negative = _prelu_pullback(of_each, g, x, 1 + s, alpha.clamp(_LOW, _HIGH))
    inside = ((alpha >= _LOW) & (alpha <= _HIGH)).to(x.dtype)
    return (
        dx,
        None if to_negative is None else to_negative.sum_to_size(alpha.shape) * inside,
        None if to_positive is None else to_positive.sum_to_size(beta.shape) * (s * torch.sigmoid(-beta)),
    )


_ARELU = KernelRule(_arelu, _arelu_pullback, "attention_slopes")


def arelu(x: Tensor, alpha: Tensor, beta: Tensor, channel_axis: int = 1) -> Tensor:
    """Compute AReLU: (1 + sigmoid(beta)) x where x > 0, else min(max(alpha, 0.01), 0.99) x."""
    check_floating("arelu", x)
    return _ARELU(x, alpha, beta, channel_axis=channel_axis)


def repact_coefficients(weights: Tensor, alpha: Tensor, softmax: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the factors of x, relu(x) and hardswish(x) in the sum of the branches of RepAct."""
    weights, alpha = upcast_half(weights, alpha)
    w0, w1, w2, w3 = (weights.softmax(0) if softmax else weights).split(1)
    negative = alpha * w2
    return w0 + negative, w1 + (w2 - negative), w3


def _repact(x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, *shift: Tensor) -> Tensor:
    # Not F.hardswish: it is infinite for x above a sixth of the largest float.
    # In a trace, not F.hardsigmoid either: its own gradient is 1 / 6 rounded to float32.
    gate = (F.hardtanh(x, -3.0, 3.0) + 3.0) / 6.0 if is_traced() else F.hardsigmoid(x)
    y = torch.addcmul(x * identity, inplace(gate, "mul", x), hardswish)
    y = torch.addcmul(y, torch.relu(x), relu)
    return y + shift[0] if shift else y


def _repact_pullback(
    needed: Sequence[bool], g: Tensor, x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, *shift: Tensor
) -> Terms:
    dx = None
    if needed[0]:
        to_hardswish = torch.ops.aten.hardswish_backward(g, x)
        dx = torch.addcmul(torch.addcmul(to_hardswish * hardswish, g, identity), _positive_part(g, x), relu)
    gx = g * x
    return (
        dx,
        gx if needed[1] else None,
        _positive_part(gx, x) if needed[2] else None,
        gx * F.hardsigmoid(x) if needed[3] else None,
        *(g if each else None for each in needed[4:]),
    )


_REPACT = KernelRule(_repact, _repact_pullback, "branches")


def repact(
    x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, shift: Tensor | None = None, channel_axis: int = 1
) -> Tensor:
    """Compute identity x + relu max(x, 0) + hardswish x min(max(x + 3, 0), 6) / 6 + shift."""
    gates = (identity, relu, hardswish) if shift is None else (identity, relu, hardswish, shift)
    check_floating("repact", x)
    return _REPACT(x, *gates, channel_axis=channel_axis)


def _line_maximum(x: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    return torch.maximum(torch.addcmul(b1, x, a1), torch.addcmul(b2, x, a2))


def _line_maximum_pullback(
    needed: Sequence[bool], g: Tensor, x: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor
) -> Terms:
    # 1 where the first line is larger, 1 / 2 at a tie, else 0.
    tie_weight = torch.sign(torch.addcmul(b1, x, a1) - torch.addcmul(b2, x, a2)).add_(1).mul_(0.5)
    first = g * tie_weight
    second = g - first
    return (
        torch.addcmul(first * a1, second, a2) if needed[0] else None,
        first * x if needed[1] else None,
        second * x if needed[2] else None,
        first if needed[3] else None,
        second if needed[4] else None,
    )


_LINE_MAXIMUM = KernelRule(_line_maximum, _line_maximum_pullback, "two_lines")


def dynamic_maximum(x: Tensor, theta: Tensor, lambdas: Tensor, init_v: Tensor, channel_axis: int = 1) -> Tensor:
    """Compute the maximum of two lines, max(a1 x + b1, a2 x + b2): the function of DyReLU."""
    check_floating("dynamic_maximum", x)
    theta, lambdas, init_v = upcast_half(theta, lambdas, init_v)
    lines = lambdas * torch.tanh(0.5 * theta).unflatten(1, (-1, 1, 1, 4)) + init_v  # 2 sigmoid(z) - 1 = tanh(z / 2)
    return _LINE_MAXIMUM(x, *lines.unbind(-1), channel_axis=channel_axis)


document(FRAMEWORK, acon, smooth_maximum, maximum, prelu, arelu, repact_coefficients, repact, dynamic_maximum)
