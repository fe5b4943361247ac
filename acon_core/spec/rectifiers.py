"""The parametric activations that the published tables compare against: PReLU, AReLU, DyReLU, and Swish of one beta."""

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
from acon_core.spec.primitives import Flatten, GlobalAvgPool, Linear

__all__ = ["AReLU", "DyReLU", "PReLU", "Swish"]


@dataclass(frozen=True)
class Swish(Activation):
    """Swish: y = x sigmoid(weight x), with one learnt number for all of x. With weight 1 it is SiLU.

    `weight`: (1,), initially 0.25, no weight decay. Any shape -> the same; smooth. `AconA` has one number per channel.
    Source: Ramachandran et al. 2017, section 4; the value that RepAct's tables start from.
    """

    def make_graph(self) -> Graph:
        return graph("x", ["y = acon(x, weight)"], "y", {"acon": Acon(1.0, 0.0)}, {"weight": Param((1,), Constant(0.25))})


@dataclass(frozen=True)
class PReLU(ChannelwiseActivation):
    """PReLU: y = x where x > 0, else weight x. Gradient at 0: weight.

    `weight`: (1,) when `shared`, PyTorch's default, else (C,), one per channel; initially 0.25, no weight decay.
    `channels`: C, needed when not shared. (N, C, ...) -> the same. Source: He et al. 2015, equation 1; torch.nn.PReLU.
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
    """AReLU: y = (1 + sigmoid(beta)) x where x > 0, else a x, with a = alpha held within 0.01 to 0.99.

    `alpha`, `beta`: (1,), initially 0.9 and 2, no weight decay. Any shape -> the same. Gradient at x = 0: a; for alpha outside
    of the range: 0. Source: Chen et al. 2020, equation 4.
    """

    def make_graph(self) -> Graph:
        params = {"alpha": Param((1,), Constant(0.9)), "beta": Param((1,), Constant(2.0))}
        return graph("x", ["y = slopes(x, alpha, beta)"], "y", {"slopes": AReLUFunction()}, params)


@dataclass(frozen=True)
class DyReLU(ChannelwiseActivation):
    """DyReLU: y = max(a1 x + b1, a2 x + b2), with coefficients per sample from the mean of x over space.

    (a1, a2, b1, b2) = lambdas (2 sigmoid(fc2(relu(fc1(mean)))) - 1) + init_v, so that it starts near ReLU. `variant`: `A`, one
    set for all channels; `B`, one per channel. `channels`: C; hidden width max(1, C // `reduction`). `fc1`, `fc2`: linear;
    `lambdas` (1, 1, 0.5, 0.5) and `init_v` (1, 0, 0, 0) are constants that the published state holds.
    (N, C, ...) -> the same. Gradient where the two pieces are equal: half to each.
    Source: Chen et al. 2020 (Dynamic ReLU), section 3.2; names of the port that RepAct's tables use.
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
