"""What a parameter is: its shape, its kind, whether weight decay applies to it, and how it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from acon_core.random import Stream

__all__ = [
    "Constant", "KaimingNormal", "Normal", "NormalPerInput", "Param", "Shape", "UniformPerFan", "Values", "XavierUniform",
]  # fmt: skip

Shape = tuple[int, ...]
Kind = Literal["weight", "statistic", "counter", "derived"]


class Init(Protocol):
    """A rule for initial values: a shape and a stream of random numbers give the array, in float64."""

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class Constant:
    """Every element is `value`."""

    value: float

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]:
        return np.full(shape, self.value)


@dataclass(frozen=True)
class Values:
    """The values themselves, in order."""

    values: tuple[float, ...]

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]:
        return np.array(self.values, np.float64).reshape(shape)


@dataclass(frozen=True)
class Normal:
    """Normal, mean 0, standard deviation `std`."""

    std: float

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]:
        return random.normal(shape, self.std)


@dataclass(frozen=True)
class NormalPerInput:
    """Normal, mean 0, standard deviation 1 / shape[1]: one over the inputs of a group (the ShuffleNetV2 rule)."""

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]:
        return random.normal(shape, 1.0 / shape[1])


@dataclass(frozen=True)
class KaimingNormal:
    """Normal, mean 0, variance 2 / fan: what ReLU halves is made up for. `fan` "in" counts the inputs of one output element,
    "out" shape[0] times the kernel, whatever the groups. Source: He et al. 2015; PyTorch's `kaiming_normal_`."""

    fan: Literal["in", "out"]

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]:
        fan = math.prod(shape[1:]) if self.fan == "in" else shape[0] * math.prod(shape[2:])
        return random.normal(shape, math.sqrt(2.0 / fan))


@dataclass(frozen=True)
class XavierUniform:
    """Uniform within +-sqrt(6 / (inputs + outputs)) of a linear layer's weight (out, in). Source: Glorot and Bengio 2010;
    what Paddle's own linear layer starts from."""

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]:
        bound = math.sqrt(6.0 / (shape[0] + shape[1]))
        return random.uniform(shape, -bound, bound)


@dataclass(frozen=True)
class UniformPerFan:
    """Uniform within +-1 / sqrt(fan): PyTorch's rule for the weights and the bias of its conv and linear layers."""

    fan: int

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]:
        bound = 1.0 / math.sqrt(self.fan)
        return random.uniform(shape, -bound, bound)


@dataclass(frozen=True)
class Param:
    """One named array of a node: the checkpoint's schema is the table of these.

    `kind`: `weight` (trained), `statistic` (a running mean or variance), `counter` (`num_batches_tracked`, int64),
    `derived` (follows from the spec alone: made again when written, checked when read). `decay`: weight decay applies.
    `dtype`: `float` is whatever dtype the network has; counters and indices are `int64` in every network.
    """

    shape: Shape
    init: Init
    kind: Kind = "weight"
    decay: bool = False
    dtype: Literal["float", "int64"] = "float"

    @property
    def integer(self) -> bool:
        """Whether it is int64 in every dtype of the network."""
        return self.dtype == "int64"
