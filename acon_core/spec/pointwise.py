"""Functions of each element alone, without parameters. Every gradient at a kink is stated: all four backends keep to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from acon_core.errors import SpecError
from acon_core.spec.param import Shape
from acon_core.spec.primitives import Primitive, check

__all__ = [
    "CELU", "ELU", "GELU", "SELU", "Elementwise", "HardSigmoid", "HardSwish", "Identity", "LeakyReLU", "Mish", "ReLU",
    "ReLU6", "SiLU", "Sigmoid", "Softplus",
]  # fmt: skip


@dataclass(frozen=True)
class Elementwise(Primitive):
    """A function of each element alone: any shape -> the same. 16-bit values are computed in float32."""

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        check(len(shapes) == 1, self, "one value", shapes)
        return shapes


@dataclass(frozen=True)
class Identity(Elementwise):
    """x."""


@dataclass(frozen=True)
class ReLU(Elementwise):
    """max(x, 0). Gradient at 0: 0. Source: Nair and Hinton 2010."""


@dataclass(frozen=True)
class ReLU6(Elementwise):
    """min(max(x, 0), 6). Gradient at 0 and at 6: 0. Source: Krizhevsky 2010."""


@dataclass(frozen=True)
class LeakyReLU(Elementwise):
    """x where x > 0, else slope x. Gradient at 0: slope. Source: Maas et al. 2013."""

    slope: float = 0.01


@dataclass(frozen=True)
class ELU(Elementwise):
    """x where x > 0, else alpha (exp(x) - 1). Gradient at 0: alpha. Source: Clevert et al. 2016, equation 15."""

    alpha: float = 1.0


SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


@dataclass(frozen=True)
class SELU(Elementwise):
    """scale x where x > 0, else scale alpha (exp(x) - 1), with the paper's two constants to 20 digits.

    Gradient at 0: scale alpha. Source: Klambauer et al. 2017, equation 2 and appendix A.
    """


@dataclass(frozen=True)
class CELU(Elementwise):
    """x where x > 0, else alpha (exp(x / alpha) - 1): smooth, gradient 1 at 0. Source: Barron 2017, equation 2."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.alpha == 0:
            raise SpecError("CELU: alpha must not be 0, by which x is divided")


@dataclass(frozen=True)
class GELU(Elementwise):
    """x times the normal distribution's cumulative function of x: x (1 + erf(x / sqrt 2)) / 2.

    `approximate`: `none`, or `tanh` for x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2. Smooth.
    Source: Hendrycks and Gimpel 2016, section 2.
    """

    approximate: Literal["none", "tanh"] = "none"

    def __post_init__(self) -> None:
        if self.approximate not in ("none", "tanh"):
            raise SpecError(f"GELU: expected approximate `none` or `tanh`, found {self.approximate!r}")


@dataclass(frozen=True)
class SiLU(Elementwise):
    """x sigmoid(x). Smooth; its gradient is finite for every finite x. Source: Elfwing et al. 2018."""


@dataclass(frozen=True)
class Mish(Elementwise):
    """x tanh(log(1 + exp(x))). Smooth. Source: Misra 2020, equation 1."""


@dataclass(frozen=True)
class Softplus(Elementwise):
    """log(1 + exp(beta x)) / beta, exact for every x: no threshold beyond which it would be x. Source: Glorot et al. 2011."""

    beta: float = 1.0

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise SpecError(f"Softplus: expected beta above 0, found {self.beta}")


@dataclass(frozen=True)
class HardSwish(Elementwise):
    """x min(max(x + 3, 0), 6) / 6. Gradient at -3: 0; at 3: 1. Source: Howard et al. 2019, section 5.2."""


@dataclass(frozen=True)
class HardSigmoid(Elementwise):
    """min(max(x + 3, 0), 6) / 6. Gradient at -3 and at 3: 0. Source: Howard et al. 2019, section 5.2."""


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """1 / (1 + exp(-x)). Smooth."""
