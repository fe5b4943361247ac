"""Functions of x and of learned or generated values: the cores of the learnable activations.

Such a value is called a gate below.
"""

from __future__ import annotations

from dataclasses import dataclass

from acon_core.errors import SpecError
from acon_core.spec.param import Shape
from acon_core.spec.primitives import Primitive, check
from acon_core.spec.sizes import extent_fits, fits, volume

__all__ = [
    "AReLUFunction", "Acon", "DynamicMaximum", "Maximum", "PReLUFunction", "RepActCoefficients", "RepActFunction",
    "SmoothMaximum", "check_gate",
]  # fmt: skip


def _broadcasts(gate: Shape, batch: int, channels: int, rank: int) -> bool:
    """Return whether the gate is per tensor, per channel, or per sample and channel."""
    if len(gate) == 1:
        return extent_fits(gate[0], 1, channels)
    ranked = len(gate) in (4, rank)
    ones = all(extent_fits(extent, 1) for extent in gate[2:])
    return ranked and ones and extent_fits(gate[0], 1, batch) and extent_fits(gate[1], 1, channels)


def check_gate(gate: Shape, x: Shape, channel_axis: int) -> None:
    """Check that a gate broadcasts along batch and channels only.

    Without this check, broadcasting could turn a wrong shape into a wrong result.

    Parameters
    ----------
    gate, x : tuple of int
        Shapes, with -1 for sizes that a compiler leaves open; these always fit.
    channel_axis : int
        Axis of the channels in x.

    Raises
    ------
    SpecError
        If the gate has none of the shapes (1,), (C,), (1 or N, 1 or C, 1, 1) and x's.
    """
    if len(gate) == 0 or fits(gate, (1,)):
        return
    if not 0 < (channel_axis if channel_axis >= 0 else len(x) + channel_axis) < len(x):
        raise SpecError(f"channel_axis {channel_axis}: expected an axis of x {x} other than the batch")
    batch, channels = x[0], x[channel_axis]
    if not fits(gate, x) and not _broadcasts(gate, batch, channels, len(x)):
        raise SpecError(
            f"expected a gate of shape (1,), ({channels},), (1 or {batch}, 1 or {channels}, 1, 1) or that of x, found {gate} "
            f"beside x {x} with its channels at axis {channel_axis}; pass channel_axis=1 for (N, C, ...)"
        )


class Gated(Primitive):
    """A function of x and gates. Gates are brought to the rank of x; channels are axis 1."""

    def check_gates(self, names: tuple[str, ...], shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
        check(len(shapes) == 1 + len(names), self, f"x, {', '.join(names)}", shapes)
        x, *gates = shapes
        check(len(x) >= 2, self, "(N, C, ...)", x)
        for name, gate in zip(names, gates, strict=True):
            expected = f"{name} of shape (1,), ({x[1]},), (1 or {x[0]}, 1 or {x[1]}, 1, 1) or that of x beside x {x}"
            check(fits(gate, x) or _broadcasts(gate, x[0], x[1], len(x)), self, expected, gate)
        return (x,)


@dataclass(frozen=True)
class Acon(Gated):
    """acon(x, p1, p2, beta) = x (p2 + (p1 - p2) sigmoid(beta (p1 - p2) x)): smooth max(p1 x, p2 x).

    Parameters
    ----------
    p1, p2 : float, optional
        A fixed number. If None, the value is an input: ``Acon(p1=1.0)`` takes x, p2, beta.

    Raises
    ------
    SpecError
        If p2 is fixed but not p1.

    Notes
    -----
    ACON-A, B, C and Swish take beta from a parameter; Meta-ACON generates it. No kinks. 16-bit
    values are computed in float32.

    References
    ----------
    Ma et al. 2021, "Activate or Not: Learning Customized Activation", equation 8.
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
    """smooth_maximum(x1, ..., xn) = sum(xi exp(beta xi)) / sum(exp(beta xi)), for equal shapes.

    Parameters
    ----------
    beta : float, default 1.0
        Towards infinity the maximum, 0 the mean, towards minus infinity the minimum.

    Notes
    -----
    It takes two values or more. No kinks. Does not overflow for finite values.

    References
    ----------
    Ma et al. 2021, "Activate or Not: Learning Customized Activation", equation 2.
    """

    beta: float = 1.0

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        alike = len(shapes) >= 2 and all(fits(shape, shapes[0]) for shape in shapes)
        check(alike, self, "two values or more of one shape", shapes)
        return (shapes[0],)


@dataclass(frozen=True)
class Maximum(Primitive):
    """The elementwise maximum of two values of one shape. Gradient of ties: half to each."""

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        check(len(shapes) == 2 and fits(*shapes), self, "two values of one shape", shapes)
        return (shapes[0],)


@dataclass(frozen=True)
class PReLUFunction(Gated):
    """prelu(x, negative) = x for x > 0, else negative x.

    Notes
    -----
    Gradient at 0: `negative` for x, and 0 for `negative`.
    """

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return self.check_gates(("negative",), shapes)


@dataclass(frozen=True)
class AReLUFunction(Gated):
    """arelu(x, alpha, beta) = (1 + sigmoid(beta)) x for x > 0, else clip(alpha, 0.01, 0.99) x.

    Notes
    -----
    Gradient at x = 0: clip(alpha, 0.01, 0.99). Gradient for alpha: 0 outside [0.01, 0.99].
    """

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return self.check_gates(("alpha", "beta"), shapes)


@dataclass(frozen=True)
class RepActCoefficients(Primitive):
    """The factors of x, relu(x) and hardswish(x) to which RepAct's four branches add up.

    repact_coefficients(weights, alpha) = w0 + alpha w2, w1 + (1 - alpha) w2, w3, each (1,), with w
    the `weights` (4,) of identity, ReLU, PReLU and HardSwish, and `alpha` (1,) the slope of PReLU.

    Parameters
    ----------
    softmax : bool, default False
        Whether w is the softmax of the weights.
    """

    softmax: bool = False

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        check(len(shapes) == 2 and fits(shapes[0], (4,)) and fits(shapes[1], (1,)), self, "weights (4,) and alpha (1,)", shapes)
        return ((1,), (1,), (1,))


@dataclass(frozen=True)
class RepActFunction(Gated):
    """repact(x, identity, relu, hardswish) = identity x + relu max(x, 0) + hardswish hardswish(x).

    Parameters
    ----------
    shift : bool, default False
        Whether a fourth gate, `shift`, is added.

    Notes
    -----
    hardswish(x) = x min(max(x + 3, 0), 6) / 6. Gradients at kinks: relu'(0) = 0, hardswish'(-3) =
    0, hardswish'(3) = 1. 16-bit values are computed in float32, so that these hold in float16 too.
    """

    shift: bool = False

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return self.check_gates(("identity", "relu", "hardswish") + (("shift",) if self.shift else ()), shapes)


@dataclass(frozen=True)
class DynamicMaximum(Primitive):
    """dynamic_maximum(x, theta, lambdas, init_v) = max(a1 x + b1, a2 x + b2): DyReLU's function.

    Notes
    -----
    (a1, a2, b1, b2) = lambdas (2 sigmoid(theta) - 1) + init_v. theta is (N, 4), or (N, 4 C) with
    elements 4 c to 4 c + 3 for channel c. `lambdas` and `init_v` are (4,). Gradient where the two
    lines are equal: half to each.
    """

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        check(len(shapes) == 4 and len(shapes[0]) >= 2, self, "x, theta, lambdas, init_v", shapes)
        x, theta, *constants = shapes
        wide = volume((4, x[1]))
        expected = f"theta ({x[0]}, 4) or ({x[0]}, {wide})"
        check(fits(theta, (x[0], 4)) or fits(theta, (x[0], wide)), self, expected, theta)
        check(all(fits(each, (4,)) for each in constants), self, "lambdas and init_v of shape (4,)", tuple(constants))
        return (x,)
