"""The learnable activations that published tables compare against: Swish, PReLU, AReLU, DyReLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from acon_core.errors import SpecError
from acon_core.spec.activation_base import Activation, ChannelwiseActivation
from acon_core.spec.gated import Acon, AReLUFunction, DynamicMaximum, PReLUFunction
from acon_core.spec.graph import Graph, graph
from acon_core.spec.node import Node
from acon_core.spec.param import Constant, Param, Values
from acon_core.spec.pointwise import ReLU
from acon_core.spec.primitives import GlobalAvgPool, Linear
from acon_core.spec.rearrange import Flatten

__all__ = ["AReLU", "DyReLU", "PReLU", "Swish"]


@dataclass(frozen=True)
class Swish(Activation):
    """Swish with one learned number: y = x sigmoid(weight x).

    Notes
    -----
    With weight 1 it is SiLU; `AconA` has one number per channel. The output has the input's shape,
    which may be any; there are no kinks.

    State: `weight` (1,), initially 0.25, without weight decay.

    References
    ----------
    Ramachandran et al. 2017, "Searching for Activation Functions", section 4. The initial value is
    that of RepAct's tables.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.named_params(spec.Swish())["weight"].shape
    (1,)
    """

    def make_graph(self) -> Graph:
        return graph("x", ["y = acon(x, weight)"], "y", {"acon": Acon(1.0, 0.0)}, {"weight": Param((1,), Constant(0.25))})


@dataclass(frozen=True)
class PReLU(ChannelwiseActivation):
    """PReLU: y = x for x > 0, else weight x.

    Parameters
    ----------
    channels : int, optional
        Number of channels, C. Only needed if not `shared`.
    shared : bool, default True
        Share one slope between all channels, PyTorch's default.
    channel_axis : int, default 1
        Axis of the channels: 1 for (N, C, ...), -1 for (N, ..., C).

    Notes
    -----
    The output has the input's shape. Gradient at 0: `weight` for x, and 0 for `weight`.

    State: `weight`, (1,) if `shared`, else (C,), initially 0.25, without weight decay.

    References
    ----------
    He et al. 2015, "Delving Deep into Rectifiers", equation 1; torch.nn.PReLU.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.named_params(spec.PReLU(64, shared=False))["weight"].shape
    (64,)
    """

    needs_channels: ClassVar[bool] = False

    shared: bool = True

    def make_graph(self) -> Graph:
        size = 1 if self.shared else self.width
        return graph(
            "x", ["y = slopes(x, weight)"], "y", {"slopes": PReLUFunction()}, {"weight": Param((size,), Constant(0.25))}
        )


@dataclass(frozen=True)
class AReLU(Activation):
    """AReLU: y = (1 + sigmoid(beta)) x for x > 0, else a x, with a = clip(alpha, 0.01, 0.99).

    Notes
    -----
    The output has the input's shape, which may be any. Gradient at x = 0: a. Gradient for alpha
    outside [0.01, 0.99]: 0.

    State, without weight decay: `alpha` (1,), initially 0.9; `beta` (1,), initially 2.

    References
    ----------
    Chen et al. 2020, "AReLU: Attention-based Rectified Linear Unit", equation 4.

    Examples
    --------
    >>> from acon_core import spec
    >>> list(spec.named_params(spec.AReLU()))
    ['alpha', 'beta']
    """

    def make_graph(self) -> Graph:
        params = {"alpha": Param((1,), Constant(0.9)), "beta": Param((1,), Constant(2.0))}
        return graph("x", ["y = slopes(x, alpha, beta)"], "y", {"slopes": AReLUFunction()}, params)


@dataclass(frozen=True)
class DyReLU(ChannelwiseActivation):
    """DyReLU: y = max(a1 x + b1, a2 x + b2), with coefficients generated per sample.

    Parameters
    ----------
    channels : int
        Number of channels, C.
    variant : {"A", "B"}, default "A"
        "A": one set of coefficients for all channels. "B": one per channel.
    reduction : int, default 4
        Factor r of the hidden width, max(1, C // r).
    channel_axis : int, default 1
        Axis of the channels: 1 for (N, C, ...), -1 for (N, ..., C).

    Notes
    -----
    (a1, a2, b1, b2) = lambdas (2 sigmoid(fc2(relu(fc1(mean of x over space)))) - 1) + init_v. The
    output has the input's shape. Gradient where the two lines are equal: one half to each.

    State: `lambdas` (4,), the constants (1, 1, 0.5, 0.5); `init_v` (4,), the constants (1, 0, 0,
    0); linear layers `fc1` (C to hidden) and `fc2` (hidden to 4, or 4 C in variant B).

    References
    ----------
    Chen et al. 2020, "Dynamic ReLU", section 3.2. Names of the port that RepAct's tables use.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.named_params(spec.DyReLU(64, variant="B"))["fc2.weight"].shape
    (256, 16)
    """

    variant: Literal["A", "B"] = "A"
    reduction: int = 4

    def make_graph(self) -> Graph:
        if self.variant not in ("A", "B"):
            raise SpecError(f"DyReLU: expected variant A or B, found {self.variant!r}")
        hidden = max(1, self.width // self.reduction)
        children: dict[str, Node] = {
            "fc1": Linear(self.width, hidden),
            "relu": ReLU(),
            "fc2": Linear(hidden, 4 if self.variant == "A" else 4 * self.width),
            "mean": GlobalAvgPool(),
            "flatten": Flatten(),
            "max": DynamicMaximum(),
        }
        params = {
            "lambdas": Param((4,), Values((1.0, 1.0, 0.5, 0.5)), kind="derived"),
            "init_v": Param((4,), Values((1.0, 0.0, 0.0, 0.0)), kind="derived"),
        }
        program = ["m = mean(x)", "v = flatten(m)", "h = fc1(v)", "r = relu(h)", "theta = fc2(r)"]
        return graph("x", [*program, "y = max(x, theta, lambdas, init_v)"], "y", children, params)
