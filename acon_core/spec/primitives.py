"""The basic layers, which every backend implements: those with weights, windows or randomness.

What frameworks do differently is a field or stated here. Layers that join, split or reshape values
are in `rearrange`, elementwise functions in `pointwise`, functions of x and learned or generated
values in `gated`, layers of transformers in `tokens`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from acon_core.errors import SpecError
from acon_core.spec.node import Node
from acon_core.spec.param import Constant, Param, Shape, UniformPerFan
from acon_core.spec.sizes import OPEN, extent_fits

__all__ = ["BatchNorm", "Conv2d", "DropPath", "Dropout", "GlobalAvgPool", "LayerNorm", "Linear", "MaxPool2d", "Primitive"]

Pair = tuple[int, int]


def pair(value: int | Pair) -> Pair:
    """Return (height, width) from one number or two."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def check(holds: bool, node: Node, expected: str, shape: object) -> None:
    """Raise a SpecError that says what the node expected and which shape it found."""
    if not holds:
        raise SpecError(f"{type(node).__name__}: expected {expected}, found shape {shape}")


@dataclass(frozen=True)
class Primitive(Node):
    """A node that a backend implements. It may have parameters, but no children."""

    def _set_pairs(self, *names: str) -> None:
        for name in names:
            object.__setattr__(self, name, pair(getattr(self, name)))


@dataclass(frozen=True)
class Conv2d(Primitive):
    """2-D convolution (cross-correlation). (N, in, H, W) -> (N, out, H', W').

    Parameters
    ----------
    in_channels, out_channels : int
        Number of channels.
    kernel : int or tuple of 2 int
        Size of the kernel in pixels, (height, width) or one number; so are the next three.
    stride, padding, dilation : int or tuple of 2 int
        Step, zeros on both sides, and distance of the kernel's elements.
    groups : int, default 1
        Number of groups. It divides both numbers of channels.
    bias : bool, default True
        Whether there is a bias.

    Raises
    ------
    SpecError
        If `groups` does not divide the channels, or the input is smaller than the kernel.

    Notes
    -----
    y[n, o, h, w] = bias[o] + sum over i, u, v of
    weight[o, i, u, v] x[n, i, s h + d u - p, s w + d v - p].

    State: `weight` (out, in / groups, kernel height, kernel width), `bias` (out,).
    """

    in_channels: int
    out_channels: int
    kernel: Any
    stride: Any = (1, 1)
    padding: Any = (0, 0)
    dilation: Any = (1, 1)
    groups: int = 1
    bias: bool = True

    def __post_init__(self) -> None:
        self._set_pairs("kernel", "stride", "padding", "dilation")
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise SpecError(
                f"Conv2d: groups={self.groups} must divide {self.in_channels} inputs and {self.out_channels} outputs"
            )

    @property
    def params(self) -> Mapping[str, Param]:
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel)
        init = UniformPerFan(shape[1] * shape[2] * shape[3])
        params = {"weight": Param(shape, init, decay=True)}
        if self.bias:
            params["bias"] = Param((self.out_channels,), init)
        return params

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) == 4 and extent_fits(x[1], self.in_channels), self, f"(N, {self.in_channels}, H, W)", x)
        size = window(self, x, self.kernel, self.stride, self.padding, self.dilation)
        return ((x[0], self.out_channels, *size),)

    def macs(self, *shapes: Shape) -> int:
        """Output elements times the kernel's volume within a group."""
        (shape,), kernel = self.out_shapes(*shapes), pair(self.kernel)
        return math.prod(shape) * (self.in_channels // self.groups) * math.prod(kernel)


def window(node: Node, x: Shape, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)) -> Shape:
    """Return the output's (height, width) of a sliding window, rounded down."""
    reach = [dilation[i] * (kernel[i] - 1) + 1 - 2 * padding[i] for i in (0, 1)]
    size = tuple(OPEN if x[2 + i] == OPEN else (x[2 + i] - reach[i]) // stride[i] + 1 for i in (0, 1))
    inside = all(extent == OPEN or extent > 0 for extent in size)
    check(inside, node, f"an input no smaller than its {kernel[0]}x{kernel[1]} window", x)
    return size


@dataclass(frozen=True)
class BatchNorm(Primitive):
    """Batch normalisation: y = weight (x - mean) / sqrt(var + eps) + bias per channel.

    Parameters
    ----------
    channels : int
        Number of channels, C.
    eps : float, default 1e-5
        Added to the variance.
    decay : float, default 0.9
        Weight of the old running value. 0.9 is PyTorch's momentum 0.1.

    Raises
    ------
    OneValuePerChannelError
        In training with one value per channel.

    Notes
    -----
    (N, C, ...) -> the same. Training uses the mean and the **biased** variance of the batch, then
    sets running = decay running + (1 - decay) batch, with the **unbiased** variance (n - 1).
    Evaluation uses the running values.

    State: `weight`, `bias`, `running_mean`, `running_var`, each (C,); `num_batches_tracked` (), the
    number of training batches.

    References
    ----------
    Ioffe and Szegedy 2015, "Batch Normalization", algorithms 1 and 2; the running variance is
    PyTorch's.
    """

    channels: int
    eps: float = 1e-5
    decay: float = 0.9

    @property
    def params(self) -> Mapping[str, Param]:
        shape = (self.channels,)
        return {
            "weight": Param(shape, Constant(1.0)),
            "bias": Param(shape, Constant(0.0)),
            "running_mean": Param(shape, Constant(0.0), kind="statistic"),
            "running_var": Param(shape, Constant(1.0), kind="statistic"),
            "num_batches_tracked": Param((), Constant(0), kind="counter", dtype="int64"),
        }

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) >= 2 and extent_fits(x[1], self.channels), self, f"(N, {self.channels}, ...)", x)
        return (x,)


@dataclass(frozen=True)
class LayerNorm(Primitive):
    """Layer normalisation over the channels of each position. (N, C, ...) -> the same.

    Parameters
    ----------
    channels : int
        Number of channels, C.
    eps : float, default 1e-5
        Added to the variance. The default is PyTorch's; Flax has 1e-6.

    Notes
    -----
    y = weight (x - mean) / sqrt(var + eps) + bias, with the biased variance. Training and
    evaluation are the same. State: `weight`, `bias`, each (C,).

    References
    ----------
    Ba et al. 2016, "Layer Normalization", equation 3.
    """

    channels: int
    eps: float = 1e-5

    @property
    def params(self) -> Mapping[str, Param]:
        return {"weight": Param((self.channels,), Constant(1.0)), "bias": Param((self.channels,), Constant(0.0))}

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) >= 2 and extent_fits(x[1], self.channels), self, f"(N, {self.channels}, ...)", x)
        return (x,)


@dataclass(frozen=True)
class Linear(Primitive):
    """y = weight x + bias over the channels of each position. (N, in, ...) -> (N, out, ...).

    Parameters
    ----------
    in_features, out_features : int
        Number of channels.
    bias : bool, default True
        Whether there is a bias.

    Notes
    -----
    State: `weight` (out, in), `bias` (out,).
    """

    in_features: int
    out_features: int
    bias: bool = True

    @property
    def params(self) -> Mapping[str, Param]:
        init = UniformPerFan(self.in_features)
        params = {"weight": Param((self.out_features, self.in_features), init, decay=True)}
        if self.bias:
            params["bias"] = Param((self.out_features,), init)
        return params

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) >= 2 and extent_fits(x[1], self.in_features), self, f"(N, {self.in_features}, ...)", x)
        return ((x[0], self.out_features, *x[2:]),)

    def macs(self, *shapes: Shape) -> int:
        """Output elements times input features."""
        (shape,) = self.out_shapes(*shapes)
        return math.prod(shape) * self.in_features


@dataclass(frozen=True)
class MaxPool2d(Primitive):
    """The maximum of each window. (N, C, H, W) -> (N, C, H', W'), rounded down.

    Parameters
    ----------
    kernel, stride, padding : int or tuple of 2 int
        In pixels. Padding never is the maximum.

    Raises
    ------
    SpecError
        If the padding exceeds half the kernel: a window could hold padding alone.

    Notes
    -----
    The gradient goes to the first of equal values in row order.
    """

    kernel: Any
    stride: Any
    padding: Any = (0, 0)

    def __post_init__(self) -> None:
        self._set_pairs("kernel", "stride", "padding")
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise SpecError(f"MaxPool2d: padding {self.padding} exceeds half the kernel {self.kernel}")

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) == 4, self, "(N, C, H, W)", x)
        return ((x[0], x[1], *window(self, x, self.kernel, self.stride, self.padding)),)


@dataclass(frozen=True)
class GlobalAvgPool(Primitive):
    """The mean over space, of any rank and size. (N, C, ...) -> (N, C, 1, 1)."""

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        check(len(x) >= 2, self, "(N, C, ...)", x)
        return ((x[0], x[1], 1, 1),)


@dataclass(frozen=True)
class Dropout(Primitive):
    """Dropout: in training, zero each element with probability `rate`, divide others by 1 - rate.

    Parameters
    ----------
    rate : float
        Probability in [0, 1).
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate < 1.0:
            raise SpecError(f"Dropout: expected a rate in [0, 1), found {self.rate}")

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return shapes


@dataclass(frozen=True)
class DropPath(Primitive):
    """Stochastic depth: in training, zero each sample with probability `rate`, scale the others.

    Parameters
    ----------
    rate : float
        Probability in [0, 1). Other samples are divided by 1 - rate.

    References
    ----------
    Huang et al. 2016, "Deep Networks with Stochastic Depth".
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate < 1.0:
            raise SpecError(f"DropPath: expected a rate in [0, 1), found {self.rate}")

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return shapes
