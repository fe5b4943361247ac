"""Primitives without parameters that join, split, reduce, reorder or reshape values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from acon_core.errors import SpecError
from acon_core.spec.param import Shape
from acon_core.spec.primitives import Primitive, check
from acon_core.spec.sizes import divides, extent_fits, fits, quotient, total, volume

__all__ = [
    "Add", "ChannelScale", "ChannelShuffle", "Concat", "Flatten", "FlattenToOneChannel", "MoveAxis", "ReduceSample",
    "ReshapeLike", "Split",
]  # fmt: skip


@dataclass(frozen=True)
class Add(Primitive):
    """The sum of two values of one shape."""

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        check(len(shapes) == 2 and fits(*shapes), self, "two values of one shape", shapes)
        return shapes[:1]


@dataclass(frozen=True)
class ChannelScale(Primitive):
    """x times one factor per sample and channel. (N, C, ...), (N, C, 1, 1) -> (N, C, ...)."""

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        scales = len(shapes) == 2 and len(shapes[0]) >= 2 and fits(shapes[1], (*shapes[0][:2], 1, 1))
        check(scales, self, "(N, C, ...) and (N, C, 1, 1)", shapes)
        return shapes[:1]


@dataclass(frozen=True)
class Concat(Primitive):
    """Concatenate along the channels. (N, C1, ...), (N, C2, ...) -> (N, C1 + C2, ...)."""

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        first = shapes[0]
        alike = all(fits(s[:1] + s[2:], first[:1] + first[2:]) for s in shapes)
        check(len(first) >= 2 and alike, self, "values that differ in channels alone", shapes)
        return ((first[0], total(s[1] for s in shapes), *first[2:]),)


@dataclass(frozen=True)
class Split(Primitive):
    """The channels in equal parts. (N, C, ...) -> `parts` values (N, C / parts, ...).

    Parameters
    ----------
    parts : int
        Number of parts. It divides C.
    interleaved : bool
        Part i takes channels i, i + parts, ... if True, else a run of consecutive channels.
    """

    parts: int
    interleaved: bool

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) >= 2 and divides(self.parts, x[1]), self, f"channels divisible by {self.parts}", x)
        return ((x[0], quotient(x[1], self.parts), *x[2:]),) * self.parts


@dataclass(frozen=True)
class ChannelShuffle(Primitive):
    """Channel shuffle: y[:, j groups + g] = x[:, g C / groups + j]. (N, C, ...) -> the same.

    Parameters
    ----------
    groups : int
        Number of groups. It divides C.

    References
    ----------
    Zhang et al. 2018, "ShuffleNet", section 3.1.
    """

    groups: int

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) >= 2 and divides(self.groups, x[1]), self, f"channels divisible by {self.groups}", x)
        return (x,)


@dataclass(frozen=True)
class ReduceSample(Primitive):
    """The sum or mean over all elements of a sample. (N, C, ...) -> (N, 1, 1, 1).

    Parameters
    ----------
    how : {"sum", "mean"}, default "sum"
        The reduction.
    """

    how: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        if self.how not in ("sum", "mean"):
            raise SpecError(f"ReduceSample: expected sum or mean, found {self.how!r}")

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) >= 2, self, "(N, C, ...)", x)
        return ((x[0], 1, 1, 1),)


@dataclass(frozen=True)
class Flatten(Primitive):
    """(N, C, H, W) -> (N, C H W), in this order also where a backend stores channels last."""

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) == 4, self, "(N, C, H, W)", x)
        return ((x[0], volume(x[1:])),)


@dataclass(frozen=True)
class MoveAxis(Primitive):
    """One axis moved to another place; the others keep their order.

    Parameters
    ----------
    source, destination : int
        As in `numpy.moveaxis`.
    """

    source: int
    destination: int

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        inside = all(-len(x) <= axis < len(x) for axis in (self.source, self.destination))
        check(inside, self, f"a value that has the axes {self.source} and {self.destination}", x)
        order = [axis for axis in range(len(x)) if axis != self.source % len(x)]
        order.insert(self.destination % len(x), self.source % len(x))
        return (tuple(x[axis] for axis in order),)


@dataclass(frozen=True)
class FlattenToOneChannel(Primitive):
    """All elements of a sample in one channel. (N, C, ...) -> (N, 1, number of elements).

    The order may be any that `ReshapeLike` undoes.
    """

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) >= 2, self, "(N, C, ...)", x)
        return ((x[0], 1, volume(x[1:])),)


@dataclass(frozen=True)
class ReshapeLike(Primitive):
    """The first value, made by `FlattenToOneChannel`, in the shape of the second."""

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        alike = len(shapes) == 2 and extent_fits(volume(shapes[0]), volume(shapes[1]))
        check(alike, self, "two values of one size", shapes)
        return (shapes[1],)
