"""Functions of x and of values that were learnt or generated beside it: the cores of the parametric activations."""

from __future__ import annotations

from dataclasses import dataclass

from acon_core.errors import SpecError
from acon_core.spec.param import Shape
from acon_core.spec.primitives import Primitive, check

__all__ = [
    "AReLUFunction", "Acon", "DynamicMaximum", "Maximum", "PReLUFunction", "RepActCoefficients", "RepActFunction",
    "SmoothMaximum", "check_gate",
]  # fmt: skip


def _broadcasts(gate: Shape, batch: int, channels: int, rank: int) -> bool:
    """Whether a value of this shape stands along the batch and the channels: (1,) for all of x, (C,), (1 or N, 1 or C, 1, 1),
    or the same in the rank of x."""
    if gate in ((1,), (channels,)):
        return True
    ranked = len(gate) in (4, rank) and len(gate) > 1
    return ranked and gate[0] in (1, batch) and gate[1] in (1, channels) and all(extent == 1 for extent in gate[2:])


def check_gate(gate: Shape, x: Shape, channel_axis: int) -> None:
    """Raise SpecError where a gate of this shape does not stand beside x, whose channels are at `channel_axis`: before
    broadcasting makes a wrong number of it. Sizes that a compiler leaves open are -1, and fit."""
    if gate in ((), (1,)):
        return
    if not 0 < (channel_axis if channel_axis >= 0 else len(x) + channel_axis) < len(x):
        raise SpecError(f"channel_axis {channel_axis}: expected an axis of x {x} behind the batch")
    batch, channels = x[0], x[channel_axis]
    if -1 not in (*gate, *x) and gate != x and not _broadcasts(gate, batch, channels, len(x)):
        raise SpecError(
            f"expected a gate of shape (1,), ({channels},), (1 or {batch}, 1 or {channels}, 1, 1) or that of x, found {gate} "
            f"beside x {x} with its channels at axis {channel_axis}; pass channel_axis=1 for (N, C, ...)"
        )


class Gated(Primitive):
    """A function of x and of gates, each of which is brought to the rank of x: channels are its axis 1."""

    def check_gates(self, names: tuple[str, ...], shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
        check(len(shapes) == 1 + len(names), self, f"x, {', '.join(names)}", shapes)
        x, *gates = shapes
        check(len(x) >= 2, self, "(N, C, ...)", x)
        for name, gate in zip(names, gates, strict=True):
            expected = f"{name} of shape (1,), ({x[1]},), (1 or {x[0]}, 1 or {x[1]}, 1, 1) or that of x beside x {x}"
            check(gate == x or _broadcasts(gate, x[0], x[1], len(x)), self, expected, gate)
        return (x,)


@dataclass(frozen=True)
class Acon(Gated):
    """acon(x, p1, p2, beta) = x (p2 + (p1 - p2) sigmoid(beta (p1 - p2) x)): the smooth maximum of p1 x and p2 x.

    `p1`, `p2`: a number where it is fixed, else None, and the gate is taken: `Acon(p1=1.0)(x, p2, beta)`. One rule serves
    ACON-A, B and C (beta a parameter), Meta-ACON (beta generated) and Swish. Smooth: no kinks. 16-bit values are computed in
    float32. Source: Ma et al. 2021, equation 8 (ACON-C).
    """

    p1: float | None = None
    p2: float | None = None

    def __post_init__(self) -> None:
        if self.p1 is None and self.p2 is not None:
            raise SpecError("Acon: a fixed p2 needs a fixed p1; p1 and p2 are symmetric")

    @property
    def gates(self) -> tuple[str, ...]:
        """The names of the values that are taken beside x."""
        return (*(name for name in ("p1", "p2") if getattr(self, name) is None), "beta")

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return self.check_gates(self.gates, shapes)


@dataclass(frozen=True)
class SmoothMaximum(Primitive):
    """smooth_maximum(x1, ..., xn) = sum of xi exp(beta xi) / sum of exp(beta xi), of two values or more of one shape.

    `beta`: towards infinity the maximum, 0 the mean, towards minus infinity the minimum. Smooth: no kinks. Overflows for no
    finite values. Source: Ma et al. 2021, equation 2.
    """

    beta: float = 1.0

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        check(len(shapes) >= 2 and all(shape == shapes[0] for shape in shapes), self, "two values or more of one shape", shapes)
        return (shapes[0],)


@dataclass(frozen=True)
class Maximum(Primitive):
    """The larger of two values of one shape, element by element. Gradient where they are equal: half to each."""

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        check(len(shapes) == 2 and shapes[0] == shapes[1], self, "two values of one shape", shapes)
        return (shapes[0],)


@dataclass(frozen=True)
class PReLUFunction(Gated):
    """slopes(x, negative) = x where x > 0, else negative x: PReLU's function. Gradient at 0: `negative`, and 0 for it."""

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return self.check_gates(("negative",), shapes)


@dataclass(frozen=True)
class AReLUFunction(Gated):
    """attention_slopes(x, alpha, beta) = (1 + sigmoid(beta)) x where x > 0, else a x, a = min(max(alpha, 0.01), 0.99).

    AReLU's function. Gradient at x = 0: a; for alpha: none outside of 0.01 to 0.99, bounds included within.
    """

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return self.check_gates(("alpha", "beta"), shapes)


@dataclass(frozen=True)
class RepActCoefficients(Primitive):
    """What RepAct's four branches add up to: collapse(weights, alpha) -> the factors of x, relu(x) and hardswish(x).

    With w = `weights` (4,), or their softmax, for identity, ReLU, PReLU and HardSwish, and PReLU's slope `alpha` (1,):
    w0 + alpha w2, w1 + (1 - alpha) w2, w3, each (1,). Five parameters, three degrees of freedom.
    """

    softmax: bool = False

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        check(shapes == ((4,), (1,)), self, "weights (4,) and alpha (1,)", shapes)
        return ((1,), (1,), (1,))


@dataclass(frozen=True)
class RepActFunction(Gated):
    """branches(x, identity, relu, hardswish) = identity x + relu max(x, 0) + hardswish x min(max(x + 3, 0), 6) / 6.

    `shift`: a fourth gate of that name is added. Gradient at 0: relu' is 0; at -3 and 3: hardswish' is 0 and 1. Exact there in
    float16 too, since 16-bit values are computed in float32. RepAct's function in three factors.
    """

    shift: bool = False

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return self.check_gates(("identity", "relu", "hardswish") + (("shift",) if self.shift else ()), shapes)


@dataclass(frozen=True)
class DynamicMaximum(Primitive):
    """dynamic_maximum(x, theta, lambdas, init_v) = max(a1 x + b1, a2 x + b2): DyReLU's function, coefficients per sample.

    (a1, a2, b1, b2) = lambdas (2 sigmoid(theta) - 1) + init_v, for theta (N, 4), or per channel for theta (N, 4 C), whose
    channel c has elements 4 c to 4 c + 3. `lambdas`, `init_v`: (4,), constants. Gradient where the two are equal: half to each.
    """

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        check(len(shapes) == 4 and len(shapes[0]) >= 2, self, "x, theta, lambdas, init_v", shapes)
        x, theta, *constants = shapes
        check(theta in ((x[0], 4), (x[0], 4 * x[1])), self, f"theta ({x[0]}, 4) or ({x[0]}, {4 * x[1]})", theta)
        check(constants == [(4,), (4,)], self, "lambdas and init_v of shape (4,)", tuple(constants))
        return (x,)
