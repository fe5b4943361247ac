"""The gated activation functions on PyTorch tensors: overflow-safe, with gradients by hand that keep the arguments alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from acon_core.errors import SpecError
from acon_core.spec import check_gate
from acon_torch.gradient import Argument, Rule, into, wide

# The largest |z| that z * sigmoid(z) * sigmoid(-z) is formed with: inf * 0 would be NaN, and beyond it the product is 0.
BOUND = 3e38

Terms = tuple[Tensor | None, ...]


def to_rank(gate: Argument, x: Tensor, channel_axis: int) -> Argument:
    """A gate as something that broadcasts against x with the channels at `channel_axis`; numbers as they are.

    (1,) stands beside all of x, (C,) and (1 or N, 1 or C, ...) along batch and channels, and x's own shape beside each element.
    """
    if not isinstance(gate, Tensor):
        return gate
    if gate.numel() != 1:
        check_gate(tuple(gate.shape), tuple(x.shape), channel_axis)
    if gate.shape == x.shape:
        return gate
    shape = [1] * x.ndim
    if gate.numel() != 1:
        shape[channel_axis] = gate.shape[1] if gate.ndim > 1 else gate.shape[0]
        shape[0] = gate.shape[0] if gate.ndim > 1 else 1
    return gate.reshape(shape)


def _fixed_at(value: Argument, number: float) -> bool:
    return not isinstance(value, Tensor) and value == number


def _acon(x: Tensor, p1: Argument, p2: Argument, beta: Tensor) -> Tensor:
    slope = p1 - p2
    y = ((beta * slope) * x).sigmoid_()
    if not _fixed_at(slope, 1.0):
        y = y.mul_(slope)
    if not _fixed_at(p2, 0.0):
        y = y.add_(p2)
    return y.mul_(x)


def _acon_pullback(needed: Sequence[bool], g: Tensor, x: Tensor, p1: Argument, p2: Argument, beta: Tensor) -> Terms:
    slope = p1 - p2
    z = (beta * slope) * x
    s, t = torch.sigmoid(z), into(-z, "sigmoid")
    st = s * t
    bend = into(into(z, "clamp", -BOUND, BOUND), "mul", st)
    # d y / d p1 / x and d y / d p2 / x: never 1 - s, which loses what t keeps.
    to_p1, to_p2 = into(s, "add", bend), into(t, "sub", bend)
    dx = to_p1 if _fixed_at(p1, 1.0) else p1 * to_p1
    if not _fixed_at(p2, 0.0):
        dx = dx + p2 * to_p2
    gx = g * x if any(needed[1:]) else g
    return (
        g * dx if needed[0] else None,
        gx * to_p1 if needed[1] else None,
        gx * to_p2 if needed[2] else None,
        gx * into(into(into(st, "mul", slope), "mul", x), "mul", slope) if needed[3] else None,
    )


_ACON = Rule(_acon, _acon_pullback)


def acon(x: Tensor, p1: Argument, p2: Argument, beta: Tensor, channel_axis: int = 1) -> Tensor:
    """y = x (p2 + (p1 - p2) sigmoid(beta (p1 - p2) x)), the smooth maximum of p1 x and p2 x: ACON-C, and all that it contains.

    x: any rank, channels at `channel_axis`, the batch first. p1, p2, beta: (1,), (C,), (1 or N, 1 or C, 1, 1), or the shape of
    x; p1 and p2 may be numbers, which are fixed: 1.0 and 0.0 for ACON-A and Swish, p1 = 1.0 for ACON-B. Returns the shape and
    dtype of x; 16-bit inputs are computed in float32. Smooth: no kinks. For the backward pass it keeps its arguments alone.
    Works under torch.compile, torch.export, torch.func's grad, vmap and jvp, and twice differentiated.
    Source: Ma et al. 2021, equation 8.
    """
    return _ACON(x, *(to_rank(gate, x, channel_axis) for gate in (p1, p2, beta)))


def smooth_maximum(*values: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    """y = sum of xi exp(beta xi) / sum of exp(beta xi), of two values or more of one shape and dtype, which y has too.

    beta: a number, or a tensor of one element, which may have a gradient. Towards infinity y is the maximum, at 0 the mean,
    towards minus infinity the minimum. Smooth: no kinks. It overflows for no finite values, their differences included;
    16-bit values are computed in float32. Of two values it keeps their difference alone for the backward pass.
    Raises SpecError for fewer than two values. Source: Ma et al. 2021, equation 2.
    """
    if len(values) < 2 or any(value.shape != values[0].shape for value in values):
        shapes = ", ".join(str(tuple(value.shape)) for value in values)
        raise SpecError(f"smooth_maximum: expected two values or more of one shape, found {shapes or 'none'}")
    dtype = values[0].dtype
    wider = wide(*values)
    double = 2.0 * wide(beta)[0]
    if len(wider) == 2:
        # b + (a - b) sigmoid(beta (a - b)), in halves since a - b may not be representable.
        a, b = wider
        half = torch.sub(0.5 * a, b, alpha=0.5)
        step = acon(half, 1.0, 0.0, double if isinstance(double, Tensor) else half.new_tensor([double]))
        return (b + step).add_(step).to(dtype)
    # The same for more: away from the value that the weights tend to, so that no exponent is above 0. That y does not depend
    # on where one starts from is why the start has no gradient.
    halves = 0.5 * torch.stack(wider)
    fixed = halves.detach()
    if isinstance(double, Tensor):
        start = torch.where(double.detach() >= 0, fixed.amax(0), fixed.amin(0))
    else:
        start = fixed.amax(0) if double >= 0 else fixed.amin(0)
    steps = halves - start
    weights = torch.softmax(double * steps, 0)
    # A weight of 0 is multiplied by a gradient that may be infinite, on the way back.
    mean = (weights * steps.masked_fill(weights == 0, 0.0)).sum(0)
    return (2.0 * start + mean + mean).to(dtype)


def maximum(a: Tensor, b: Tensor) -> Tensor:
    """The larger of two values of one shape, element by element. Gradient where they are equal: half to each."""
    return torch.maximum(a, b)


def _positive_part(g: Tensor, x: Tensor) -> Tensor:
    """g where x > 0, else 0: one pass, where torch.where would take thirty."""
    part: Tensor = torch.ops.aten.threshold_backward(g, x, 0)
    return part


def _slopes(x: Tensor, positive: Argument, negative: Tensor) -> Tensor:
    above = x.clamp(min=0)
    if isinstance(positive, Tensor):
        above = above * positive
    return torch.addcmul(above, x.clamp(max=0), negative)


def _slopes_pullback(needed: Sequence[bool], g: Tensor, x: Tensor, positive: Argument, negative: Tensor) -> Terms:
    above = _positive_part(g, x)
    below = g - above
    scaled = above * positive if isinstance(positive, Tensor) else above
    return (
        torch.addcmul(scaled, below, negative) if needed[0] else None,
        above * x if needed[1] else None,
        below * x if needed[2] else None,
    )


_SLOPES = Rule(_slopes, _slopes_pullback)


def slopes(x: Tensor, negative: Tensor, channel_axis: int = 1) -> Tensor:
    """y = x where x > 0, else negative x: PReLU's function, of any rank and at any axis.

    negative: as the gates of `acon`. Returns the shape and dtype of x; 16-bit values are computed in float32. It keeps its
    arguments alone for the backward pass. Gradient at 0: `negative`, and 0 for it. Source: He et al. 2015, equation 1.
    """
    return _SLOPES(x, 1.0, to_rank(negative, x, channel_axis))


LOW, HIGH = 0.01, 0.99


def _attention_slopes(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return _slopes(x, 1 + torch.sigmoid(beta), alpha.clamp(LOW, HIGH))


def _attention_slopes_pullback(needed: Sequence[bool], g: Tensor, x: Tensor, alpha: Tensor, beta: Tensor) -> Terms:
    s = torch.sigmoid(beta)
    of_each = (needed[0], needed[2], needed[1])
    dx, to_positive, to_negative = _slopes_pullback(of_each, g, x, 1 + s, alpha.clamp(LOW, HIGH))
    inside = ((alpha >= LOW) & (alpha <= HIGH)).to(x.dtype)
    return (
        dx,
        None if to_negative is None else to_negative.sum_to_size(alpha.shape) * inside,
        None if to_positive is None else to_positive.sum_to_size(beta.shape) * (s * torch.sigmoid(-beta)),
    )


_ATTENTION_SLOPES = Rule(_attention_slopes, _attention_slopes_pullback)


def attention_slopes(x: Tensor, alpha: Tensor, beta: Tensor, channel_axis: int = 1) -> Tensor:
    """y = (1 + sigmoid(beta)) x where x > 0, else a x, with a = min(max(alpha, 0.01), 0.99): AReLU's function.

    alpha, beta: as the gates of `acon`. Returns the shape and dtype of x; 16-bit values are computed in float32. It keeps its
    arguments alone for the backward pass. Gradient at x = 0: a; for alpha: none outside of 0.01 to 0.99, bounds included
    within. Source: Chen et al. 2020, equation 4.
    """
    return _ATTENTION_SLOPES(x, to_rank(alpha, x, channel_axis), to_rank(beta, x, channel_axis))


def collapse_branches(weights: Tensor, alpha: Tensor, softmax: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """The factors of x, relu(x) and hardswish(x) that RepAct's four branches add up to: w0 + alpha w2, w1 + (1 - alpha) w2, w3.

    w: `weights` (4,), for identity, ReLU, PReLU and HardSwish, or their softmax; alpha: (1,). Each result is (1,), of 16-bit
    weights in float32, in which `branches` takes them.
    """
    weights, alpha = wide(weights, alpha)
    w0, w1, w2, w3 = (weights.softmax(0) if softmax else weights).split(1)
    negative = alpha * w2
    return w0 + negative, w1 + (w2 - negative), w3


def _branches(x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, *shift: Tensor) -> Tensor:
    # Not PyTorch's hardswish, which is infinite for x above a sixth of the largest float.
    y = torch.addcmul(x * identity, F.hardsigmoid(x).mul_(x), hardswish)
    y = torch.addcmul(y, x.clamp(min=0), relu)
    return y + shift[0] if shift else y


def _branches_pullback(
    needed: Sequence[bool], g: Tensor, x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, *shift: Tensor
) -> Terms:
    dx = None
    if needed[0]:
        bent = torch.ops.aten.hardswish_backward(g, x)
        dx = torch.addcmul(torch.addcmul(bent * hardswish, g, identity), _positive_part(g, x), relu)
    gx = g * x
    return (
        dx,
        gx if needed[1] else None,
        _positive_part(gx, x) if needed[2] else None,
        gx * F.hardsigmoid(x) if needed[3] else None,
        *(g if each else None for each in needed[4:]),
    )


_BRANCHES = Rule(_branches, _branches_pullback)


def branches(
    x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, shift: Tensor | None = None, channel_axis: int = 1
) -> Tensor:
    """y = identity x + relu max(x, 0) + hardswish x min(max(x + 3, 0), 6) / 6, and + shift where given: RepAct's function.

    identity, relu, hardswish, shift: as the gates of `acon`. Returns the shape and dtype of x; 16-bit values are computed in
    float32. It keeps its arguments alone for the backward pass. Gradients at kinks: relu'(0) = 0, hardswish'(-3) = 0,
    hardswish'(3) = 1. Source: Wu et al. 2024.
    """
    gates = (identity, relu, hardswish) if shift is None else (identity, relu, hardswish, shift)
    return _BRANCHES(x, *(to_rank(gate, x, channel_axis) for gate in gates))


def _larger_line(x: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    return torch.maximum(torch.addcmul(b1, x, a1), torch.addcmul(b2, x, a2))


def _larger_line_pullback(
    needed: Sequence[bool], g: Tensor, x: Tensor, a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor
) -> Terms:
    # 1 where the first line is larger, 1 / 2 where they are equal, else 0.
    share = torch.sign(torch.addcmul(b1, x, a1) - torch.addcmul(b2, x, a2)).add_(1).mul_(0.5)
    first = g * share
    second = g - first
    return (
        torch.addcmul(first * a1, second, a2) if needed[0] else None,
        first * x if needed[1] else None,
        second * x if needed[2] else None,
        first if needed[3] else None,
        second if needed[4] else None,
    )


_LARGER_LINE = Rule(_larger_line, _larger_line_pullback)


def dynamic_maximum(x: Tensor, theta: Tensor, lambdas: Tensor, init_v: Tensor, channel_axis: int = 1) -> Tensor:
    """y = max(a1 x + b1, a2 x + b2), (a1, a2, b1, b2) = lambdas (2 sigmoid(theta) - 1) + init_v: DyReLU's function.

    theta: (N, 4), or (N, 4 C), whose elements 4 c to 4 c + 3 are for channel c; lambdas, init_v: (4,). Returns the shape and
    dtype of x; 16-bit values are computed in float32. Of the size of x it keeps x alone for the backward pass. Gradient where
    the two lines are equal: half to each. Source: Chen et al. 2020 (Dynamic ReLU), section 3.2.
    """
    theta, lambdas, init_v = wide(theta, lambdas, init_v)
    lines = lambdas * torch.tanh(0.5 * theta).unflatten(1, (-1, 1, 1, 4)) + init_v  # 2 sigmoid(z) - 1 = tanh(z / 2)
    return _LARGER_LINE(x, *(to_rank(each, x, channel_axis) for each in lines.unbind(-1)))
