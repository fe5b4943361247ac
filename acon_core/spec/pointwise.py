"""Elementwise functions without parameters. All backends follow the stated gradients at kinks."""

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
    """A function of each element alone, of any shape. 16-bit values are computed in float32."""

    def out_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        check(len(shapes) == 1, self, "one value", shapes)
        return shapes


@dataclass(frozen=True)
class Identity(Elementwise):
    """The identity: y = x.

    Notes
    -----
    No kinks.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation("identity") == spec.Identity()
    True
    """


@dataclass(frozen=True)
class ReLU(Elementwise):
    """ReLU: y = max(x, 0).

    Notes
    -----
    Gradient at 0: 0.

    References
    ----------
    Nair and Hinton 2010, "Rectified Linear Units Improve Restricted Boltzmann Machines".

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation("relu") == spec.ReLU()
    True
    """


@dataclass(frozen=True)
class ReLU6(Elementwise):
    """ReLU6: y = min(max(x, 0), 6).

    Notes
    -----
    Gradient at 0 and at 6: 0.

    References
    ----------
    Krizhevsky 2010, "Convolutional Deep Belief Networks on CIFAR-10".

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation("relu6") == spec.ReLU6()
    True
    """


@dataclass(frozen=True)
class LeakyReLU(Elementwise):
    """Leaky ReLU: y = x for x > 0, else slope x.

    Parameters
    ----------
    slope : float, default 0.01
        Slope for negative x.

    Notes
    -----
    Gradient at 0: `slope`.

    References
    ----------
    Maas et al. 2013, "Rectifier Nonlinearities Improve Neural Network Acoustic Models".

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation("leaky_relu(slope=0.2)")
    LeakyReLU(slope=0.2)
    """

    slope: float = 0.01


@dataclass(frozen=True)
class ELU(Elementwise):
    """ELU: y = x for x > 0, else alpha (exp(x) - 1).

    Parameters
    ----------
    alpha : float, default 1.0
        Minus the limit for x towards minus infinity.

    Notes
    -----
    Gradient at 0: `alpha`.

    References
    ----------
    Clevert et al. 2016, "Fast and Accurate Deep Network Learning by Exponential Linear Units",
    equation 15.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation("elu")
    ELU(alpha=1.0)
    """

    alpha: float = 1.0


SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


@dataclass(frozen=True)
class SELU(Elementwise):
    """SELU: y = scale x for x > 0, else scale alpha (exp(x) - 1).

    Notes
    -----
    scale and alpha are the paper's constants, to 20 digits. Gradient at 0: scale alpha.

    References
    ----------
    Klambauer et al. 2017, "Self-Normalizing Neural Networks", equation 2 and appendix A.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation("selu") == spec.SELU()
    True
    """


@dataclass(frozen=True)
class CELU(Elementwise):
    """CELU: y = x for x > 0, else alpha (exp(x / alpha) - 1).

    Parameters
    ----------
    alpha : float, default 1.0
        Minus the limit for x towards minus infinity, if positive. Not 0.

    Raises
    ------
    SpecError
        If alpha is 0.

    Notes
    -----
    No kinks: the gradient at 0 is 1.

    References
    ----------
    Barron 2017, "Continuously Differentiable Exponential Linear Units", equation 2.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation("celu(alpha=0.5)")
    CELU(alpha=0.5)
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.alpha == 0:
            raise SpecError("CELU: expected alpha other than 0, because x is divided by it")


@dataclass(frozen=True)
class GELU(Elementwise):
    """GELU: y = x (1 + erf(x / sqrt 2)) / 2, x times the normal distribution function.

    Parameters
    ----------
    approximate : {"none", "tanh"}, default "none"
        "tanh": y = x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.

    Raises
    ------
    SpecError
        If `approximate` is something else.

    Notes
    -----
    No kinks.

    References
    ----------
    Hendrycks and Gimpel 2016, "Gaussian Error Linear Units", section 2.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation("gelu(approximate=tanh)")
    GELU(approximate='tanh')
    """

    approximate: Literal["none", "tanh"] = "none"

    def __post_init__(self) -> None:
        if self.approximate not in ("none", "tanh"):
            raise SpecError(f"GELU: expected approximate `none` or `tanh`, found {self.approximate!r}")


@dataclass(frozen=True)
class SiLU(Elementwise):
    """SiLU: y = x sigmoid(x).

    Notes
    -----
    No kinks. The gradient is finite for every finite x.

    References
    ----------
    Elfwing et al. 2018, "Sigmoid-Weighted Linear Units for Neural Network Function Approximation in
    Reinforcement Learning".

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation("silu") == spec.SiLU()
    True
    """


@dataclass(frozen=True)
class Mish(Elementwise):
    """Mish: y = x tanh(log(1 + exp(x))).

    Notes
    -----
    No kinks.

    References
    ----------
    Misra 2020, "Mish: A Self Regularized Non-Monotonic Activation Function", equation 1.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation("mish") == spec.Mish()
    True
    """


@dataclass(frozen=True)
class Softplus(Elementwise):
    """Softplus: y = log(1 + exp(beta x)) / beta.

    Parameters
    ----------
    beta : float, default 1.0
        Sharpness; positive.

    Raises
    ------
    SpecError
        If beta is not positive.

    Notes
    -----
    No kinks. There is no threshold beyond which y is replaced by x.

    References
    ----------
    Glorot et al. 2011, "Deep Sparse Rectifier Neural Networks".

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation("softplus")
    Softplus(beta=1.0)
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise SpecError(f"Softplus: expected beta above 0, found {self.beta}")


@dataclass(frozen=True)
class HardSwish(Elementwise):
    """HardSwish: y = x min(max(x + 3, 0), 6) / 6.

    Notes
    -----
    Gradient at -3: 0; at 3: 1.

    References
    ----------
    Howard et al. 2019, "Searching for MobileNetV3", section 5.2.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation("HSwish") == spec.HardSwish()
    True
    """


@dataclass(frozen=True)
class HardSigmoid(Elementwise):
    """HardSigmoid: y = min(max(x + 3, 0), 6) / 6.

    Notes
    -----
    Gradient at -3 and at 3: 0.

    References
    ----------
    Howard et al. 2019, "Searching for MobileNetV3", section 5.2.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation("hardsigmoid") == spec.HardSigmoid()
    True
    """


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """Sigmoid: y = 1 / (1 + exp(-x)).

    Notes
    -----
    No kinks.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation("sigmoid") == spec.Sigmoid()
    True
    """
