"""Parameters of nodes, and the rules for their initial values."""

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
    """A rule for initial values: it makes a float64 array from a shape and random numbers."""

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class Constant:
    """Every element is `value`.

    Parameters
    ----------
    value : float
        The value.
    """

    value: float

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]:
        return np.full(shape, self.value)


@dataclass(frozen=True)
class Values:
    """The values themselves, in row order.

    Parameters
    ----------
    values : tuple of float
        The values, as many as the parameter has elements.
    """

    values: tuple[float, ...]

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]:
        return np.array(self.values, np.float64).reshape(shape)


@dataclass(frozen=True)
class Normal:
    """Normal distribution with mean 0 and standard deviation `std`.

    Parameters
    ----------
    std : float
        Standard deviation.
    """

    std: float

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]:
        return random.normal(shape, self.std)


@dataclass(frozen=True)
class NormalPerInput:
    """Normal distribution with mean 0 and standard deviation 1 / shape[1]; ShuffleNetV2's rule."""

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]:
        return random.normal(shape, 1.0 / shape[1])


@dataclass(frozen=True)
class KaimingNormal:
    """Normal distribution with mean 0 and variance 2 / fan.

    Parameters
    ----------
    fan : {"in", "out"}
        "in": shape[1] times the kernel. "out": shape[0] times the kernel, whatever the groups.

    References
    ----------
    He et al. 2015, "Delving Deep into Rectifiers"; torch.nn.init.kaiming_normal_.
    """

    fan: Literal["in", "out"]

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]:
        fan = math.prod(shape[1:]) if self.fan == "in" else shape[0] * math.prod(shape[2:])
        return random.normal(shape, math.sqrt(2.0 / fan))


@dataclass(frozen=True)
class XavierUniform:
    """Uniform distribution within +-sqrt(6 / (in + out)), for a weight (out, in).

    References
    ----------
    Glorot and Bengio 2010, "Understanding the Difficulty of Training Deep Feedforward Neural
    Networks"; the default of Paddle's linear layer.
    """

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]:
        bound = math.sqrt(6.0 / (shape[0] + shape[1]))
        return random.uniform(shape, -bound, bound)


@dataclass(frozen=True)
class UniformPerFan:
    """Uniform distribution within +-1 / sqrt(fan), PyTorch's default for conv and linear layers.

    Parameters
    ----------
    fan : int
        Number of inputs of one output.
    """

    fan: int

    def draw(self, shape: Shape, random: Stream) -> NDArray[np.float64]:
        bound = 1.0 / math.sqrt(self.fan)
        return random.uniform(shape, -bound, bound)


@dataclass(frozen=True)
class Param:
    """One array of a node's state.

    Parameters
    ----------
    shape : tuple of int
        Its shape.
    init : Init
        Its initial values.
    kind : {"weight", "statistic", "counter", "derived"}
        "weight" is trained. The others are kinds of buffer. "statistic": a running mean or
        variance. "counter": `num_batches_tracked`. "derived": follows from the spec alone; computed
        when written and checked when read.
    decay : bool, default False
        Whether weight decay applies.
    dtype : {"float", "int64"}
        "float" is the network's dtype. Counters and indices are int64 in every network.
    """

    shape: Shape
    init: Init
    kind: Kind = "weight"
    decay: bool = False
    dtype: Literal["float", "int64"] = "float"

    @property
    def integer(self) -> bool:
        """Whether the array is int64 whatever the network's dtype."""
        return self.dtype == "int64"
