"""The gated functions on MegEngine tensors: overflow-safe forward, closed-form gradients that keep the arguments alone."""

from __future__ import annotations

from functools import reduce
from math import prod
from operator import add

import megengine.functional as F
from megengine import Tensor

from acon_core import spec
from acon_core.errors import SpecError
from acon_megengine.gradient import above, bounded, custom, sum_to, to_rank
from acon_megengine.pointwise import hardswish_slope, hardswish_value


def _acon(x: Tensor, p1: Tensor | float, p2: Tensor | float, beta: Tensor) -> Tensor:
    slope = p1 - p2
    return x * (p2 + slope * F.sigmoid((beta * slope) * x))


def _acon_gradient(g: Tensor, x: Tensor, p1: Tensor | float, p2: Tensor | float, beta: Tensor) -> tuple[Tensor | None, ...]:
    slope = p1 - p2
    z = (beta * slope) * x
    s, t = F.sigmoid(z), F.sigmoid(-z)
    st = s * t
    bend = bounded(z) * st
    to_p1, to_p2, to_beta = s + bend, t - bend, slope * (x * (slope * st))
    gx = g * x
    dp1, dp2 = (gx * term if isinstance(p, Tensor) else None for p, term in ((p1, to_p1), (p2, to_p2)))
    return g * (p1 * to_p1 + p2 * to_p2), dp1, dp2, gx * to_beta


def acon(x: Tensor, p1: Tensor | float, p2: Tensor | float, beta: Tensor, channel_axis: int = 1) -> Tensor:
    """ACON-C: y = x (p2 + (p1 - p2) sigmoid(beta (p1 - p2) x)), the smooth maximum of p1 x and p2 x.

    x: any rank, channels at `channel_axis`, the batch first. p1, p2, beta: (1,), (C,), (1 or N, 1 or C, 1, 1), or the shape of
    x; p1 and p2 may be numbers, which are fixed: `acon(x, 1.0, 0.0, beta)` is ACON-A and Swish, `acon(x, 1.0, p2, beta)`
    ACON-B. Returns the shape and dtype of x; 16-bit inputs are computed in float32. Smooth: no kinks. For the backward pass
    it keeps its arguments alone.
    Works under trace, symbolic or not; when gates are per sample, batches of 1 and of more need traces of their own for
    gradients (else TraceError). MegEngine's kernels swallow NaN: so does this.
    Raises SpecError for a gate of another shape. Source: Ma et al. 2021, equation 8.
    """
    gates = [to_rank(gate, x, channel_axis) if isinstance(gate, Tensor) else float(gate) for gate in (p1, p2, beta)]
    return custom(_acon, _acon_gradient, x, *gates)


def _weights(beta: Tensor | float, values: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
    """Half of the leading value, half of each value's distance from it, their weights, and the weighed mean of those.

    Halves, because the distance of two finite values may overflow. The value that leads has the largest beta x: its weight
    is exp(0) over the sum, so that no exponential overflows.
    """
    largest, smallest = reduce(F.maximum, values), reduce(F.minimum, values)
    if isinstance(beta, Tensor):
        on = above(beta)
        lead = (on * largest + (1.0 - on) * smallest) * 0.5
    else:
        lead = (largest if beta > 0 else smallest) * 0.5
    away = [value * 0.5 - lead for value in values]
    exps = [F.exp((2.0 * beta) * each) for each in away]
    total = reduce(add, exps)
    weights = [each / total for each in exps]
    return lead, away, weights, reduce(add, (w * each for w, each in zip(weights, away, strict=True)))


def _smooth_maximum(x: Tensor, beta: Tensor | float, *others: Tensor) -> Tensor:
    lead, _, _, mean = _weights(beta, (x, *others))
    return (lead + mean) * 2.0


def _smooth_maximum_gradient(g: Tensor, x: Tensor, beta: Tensor | float, *others: Tensor) -> tuple[Tensor | None, ...]:
    _, away, weights, mean = _weights(beta, (x, *others))
    # Distances from y by way of the leading value: y itself is rounded.
    away = [each - mean for each in away]
    dx, *terms = (g * (w + w * bounded((2.0 * beta) * each)) for w, each in zip(weights, away, strict=True))
    if not isinstance(beta, Tensor):
        return dx, None, *terms
    variance = reduce(add, ((w * each) * each for w, each in zip(weights, away, strict=True)))
    return dx, g * (4.0 * variance), *terms


def smooth_maximum(*values: Tensor, beta: Tensor | float = 1.0) -> Tensor:
    """sum of xi exp(beta xi) / sum of exp(beta xi), element by element: a maximum that is smooth.

    `values`: two tensors or more of one shape, any. `beta`: a number, or a tensor of one element, which then has a gradient;
    towards infinity the maximum, 0 the mean, towards minus infinity the minimum. Returns that shape, in the dtype of the
    first; 16-bit values are computed in float32. No kinks. Overflows for no finite values, neither does their gradient. For the
    backward pass it keeps its arguments alone. Of two values a, b it is b + (a - b) sigmoid(beta (a - b)).
    Raises SpecError for fewer than two values, or of different shapes, and for a beta of several elements.
    Source: Ma et al. 2021, equation 2.
    """
    spec.SmoothMaximum().out_shapes(*(value._tuple_shape for value in values))
    if isinstance(beta, Tensor) and prod(beta._tuple_shape) != 1:
        raise SpecError(f"smooth_maximum: expected beta of one element, found shape {beta._tuple_shape}")
    x, *others = values
    gate = F.reshape(beta, (1,) * x.ndim) if isinstance(beta, Tensor) else float(beta)
    return custom(_smooth_maximum, _smooth_maximum_gradient, x, gate, *others)


def _share(a: Tensor, b: Tensor) -> Tensor:
    """1 where a > b, 0 where a < b, half where they are equal: a's part of the gradient of the maximum."""
    return (1.0 + F.sign(a - b)) * 0.5


def _maximum_gradient(g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    share = _share(a, b)
    return g * share, g * (1.0 - share)


def maximum(a: Tensor, b: Tensor) -> Tensor:
    """max(a, b), element by element. Gradient at a tie: half to each, where MegEngine's own gives all to a."""
    return custom(F.maximum, _maximum_gradient, a, b)


def _slopes(x: Tensor, negative: Tensor) -> Tensor:
    return F.maximum(x, 0.0) + negative * F.minimum(x, 0.0)


def _slopes_gradient(g: Tensor, x: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    on = above(x)
    return g * (on + (1.0 - on) * negative), g * F.minimum(x, 0.0)


def slopes(x: Tensor, negative: Tensor, channel_axis: int = 1) -> Tensor:
    """x where x > 0, else negative x: PReLU's function. Gradient at 0: `negative`, and 0 for it.

    x: any rank. `negative`: the shapes that gates of `acon` have. Returns the shape and dtype of x.
    """
    return custom(_slopes, _slopes_gradient, x, to_rank(negative, x, channel_axis))


LOWEST, HIGHEST = 0.01, 0.99


def _attention_slopes(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    left = F.minimum(F.maximum(alpha, LOWEST), HIGHEST)
    return (1.0 + F.sigmoid(beta)) * F.maximum(x, 0.0) + left * F.minimum(x, 0.0)


def _attention_slopes_gradient(g: Tensor, x: Tensor, alpha: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
    left, s, on = F.minimum(F.maximum(alpha, LOWEST), HIGHEST), F.sigmoid(beta), above(x)
    # The bounds belong to the range, as comparisons have it in float32.
    inside = (1.0 - above(LOWEST - alpha)) * (1.0 - above(alpha - HIGHEST))
    dalpha = g * F.minimum(x, 0.0) * inside
    dbeta = g * F.maximum(x, 0.0) * (s * F.sigmoid(-beta))
    return g * (on * (1.0 + s) + (1.0 - on) * left), dalpha, dbeta


def attention_slopes(x: Tensor, alpha: Tensor, beta: Tensor, channel_axis: int = 1) -> Tensor:
    """(1 + sigmoid(beta)) x where x > 0, else a x, with a = min(max(alpha, 0.01), 0.99): AReLU's function.

    x: any rank. `alpha`, `beta`: the shapes that gates of `acon` have. Returns the shape and dtype of x. Gradient at x = 0: a;
    for alpha: none outside of 0.01 to 0.99. Source: Chen et al. 2020, equation 4.
    """
    gates = [to_rank(gate, x, channel_axis) for gate in (alpha, beta)]
    return custom(_attention_slopes, _attention_slopes_gradient, x, *gates)


def _softmax(weights: Tensor) -> Tensor:
    exps = F.exp(weights - F.max(weights, 0, keepdims=True))
    return exps / F.sum(exps, 0, keepdims=True)


def _softmax_gradient(g: Tensor, weights: Tensor) -> tuple[Tensor]:
    made = _softmax(weights)
    return (made * (g - F.sum(g * made, 0, keepdims=True)),)


def collapse_branches(weights: Tensor, alpha: Tensor, softmax: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """What RepAct's four branches add up to: the factors of x, relu(x) and hardswish(x), each (1,).

    With w = `weights` (4,), or their softmax, and `alpha` (1,): w0 + alpha w2, w1 + (1 - alpha) w2, w3.
    """
    used = custom(_softmax, _softmax_gradient, weights) if softmax else weights
    identity, relu, prelu, hardswish = F.split(used, 4)
    return identity + alpha * prelu, relu + (1.0 - alpha) * prelu, hardswish


def _branches(x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, shift: Tensor | float) -> Tensor:
    return identity * x + relu * F.maximum(x, 0.0) + hardswish * hardswish_value(x) + shift


def _branches_gradient(
    g: Tensor, x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, shift: Tensor | float
) -> tuple[Tensor, ...]:
    dx = g * (identity + relu * above(x) + hardswish * hardswish_slope(x))
    return dx, g * x, g * F.maximum(x, 0.0), g * hardswish_value(x), g


def branches(
    x: Tensor, identity: Tensor, relu: Tensor, hardswish: Tensor, shift: Tensor | None = None, channel_axis: int = 1
) -> Tensor:
    """identity x + relu max(x, 0) + hardswish x min(max(x + 3, 0), 6) / 6, and + shift: RepAct's function in closed form.

    x: any rank. The factors and `shift`: the shapes that gates of `acon` have. Returns the shape and dtype of x.
    Gradient at 0: relu' is 0; at -3 and 3: hardswish' is 0 and 1.
    """
    gates = [to_rank(gate, x, channel_axis) for gate in (identity, relu, hardswish)]
    last = 0.0 if shift is None else to_rank(shift, x, channel_axis)
    return custom(_branches, _branches_gradient, x, *gates, last)


def _coefficients(x: Tensor, theta: Tensor, lambdas: Tensor, init_v: Tensor, channel_axis: int) -> list[Tensor]:
    """a1, a2, b1, b2, each of x's rank, (N, 1 or C): lambdas (2 sigmoid(theta) - 1) + init_v."""
    # Not flatten: it kills the process on an empty batch.
    moved = lambdas * F.tanh(0.5 * F.reshape(theta, (-1, theta._tuple_shape[1] // 4, 4))) + init_v
    return [to_rank(F.expand_dims(moved[:, :, i], [2, 3]), x, channel_axis) for i in range(4)]


def dynamic_maximum(x: Tensor, theta: Tensor, lambdas: Tensor, init_v: Tensor, channel_axis: int = 1) -> Tensor:
    """max(a1 x + b1, a2 x + b2), (a1, a2, b1, b2) = lambdas (2 sigmoid(theta) - 1) + init_v: DyReLU's function.

    x: any rank. `theta`: (N, 4), or per channel (N, 4 C), whose channel c has elements 4 c to 4 c + 3. `lambdas`, `init_v`:
    (4,), constants without a gradient. Returns the shape and dtype of x. Gradient where the two are equal: half to each.
    """

    def value(x: Tensor, *given: Tensor) -> Tensor:
        a1, a2, b1, b2 = _coefficients(x, *given, channel_axis)
        return F.maximum(a1 * x + b1, a2 * x + b2)

    def gradient(g: Tensor, x: Tensor, theta: Tensor, lambdas: Tensor, init_v: Tensor) -> tuple[Tensor | None, ...]:
        a1, a2, b1, b2 = _coefficients(x, theta, lambdas, init_v, channel_axis)
        share = _share(a1 * x + b1, a2 * x + b2)
        g1, g2 = g * share, g * (1.0 - share)
        terms = [sum_to(term, a1) for term in (g1 * x, g2 * x, g1, g2)]
        # (N, W, 4), the layout of theta, where W is 1 or C; its derivative is 2 sigmoid(theta) sigmoid(-theta).
        width = theta._tuple_shape[1] // 4
        told = F.stack([F.reshape(term, (-1, width)) for term in terms], 2) * lambdas
        dtheta = F.reshape(told, (-1, 4 * width)) * (2.0 * F.sigmoid(theta) * F.sigmoid(-theta))
        return g1 * a1 + g2 * a2, dtheta, None, None

    return custom(value, gradient, x, theta, lambdas, init_v)
