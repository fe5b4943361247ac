"""RepAct: four branches while it learns, three factors when it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from acon_core.errors import SpecError
from acon_core.spec.activation_base import Activation
from acon_core.spec.gated import RepActCoefficients, RepActFunction
from acon_core.spec.graph import Graph, graph
from acon_core.spec.node import Node
from acon_core.spec.param import Constant, Param
from acon_core.spec.primitives import BatchNorm, FlattenToOneChannel, ReshapeLike

__all__ = ["FusedRepAct", "RepAct"]


@dataclass(frozen=True)
class RepAct(Activation):
    """RepAct: y = w0 x + w1 relu(x) + w2 prelu(x) + w3 hardswish(x), the four branches weighed by learnt numbers.

    `weights`: (4,), for identity, ReLU, PReLU, HardSwish in that order, initially 0.25; `alpha`: (1,), the PReLU's slope,
    initially 0.25; no weight decay. `variant`: 1, weights as they are; 2, their softmax; 3, as 1 and then a BatchNorm of one
    channel, `norm`, over the whole tensor of any rank. Five parameters with three degrees of freedom: y = A x + B relu(x) +
    H hardswish(x), A = w0 + alpha w2, B = w1 + (1 - alpha) w2, H = w3, which is how it is computed. Any shape -> the same.
    Gradients at kinks: relu'(0) = 0, hardswish'(-3) = 0, hardswish'(3) = 1. Raises OneValuePerChannelError (variant 3).
    Source: Wu et al. 2024 (arXiv 2407.00131), RepAct I, II and III; RepActs.py, whose order of branches differs.
    """

    variant: Literal[1, 2, 3] = 1

    def make_graph(self) -> Graph:
        if self.variant not in (1, 2, 3):
            raise SpecError(f"RepAct: expected variant 1, 2 or 3, found {self.variant}")
        params = {"weights": Param((4,), Constant(0.25)), "alpha": Param((1,), Constant(0.25))}
        children: dict[str, Node] = {"collapse": RepActCoefficients(softmax=self.variant == 2), "branches": RepActFunction()}
        program = ["a, b, h = collapse(weights, alpha)", "y = branches(x, a, b, h)"]
        if self.variant != 3:
            return graph("x", program, "y", children, params)
        children |= {"norm": BatchNorm(1), "flat": FlattenToOneChannel(), "like": ReshapeLike()}
        return graph("x", [*program, "f = flat(y)", "n = norm(f)", "z = like(n, x)"], "z", children, params)


@dataclass(frozen=True)
class FusedRepAct(Activation):
    """RepAct's exact closed form for inference: y = A x + B relu(x) + H hardswish(x), and + c from RepAct III's norm.

    `identity`, `relu`, `hardswish`: A, B, H; `shift`: c, where the field is True; each (1,), no weight decay. Free of branches,
    differentiable, out of place; exact at -3, 0 and 3 in 16 bits too. Any shape -> the same. Gradients at kinks as RepAct's.
    Source: field-wide algebra of Wu et al. 2024, whose released fused form is wrong at the three knots. `fuse` makes it.
    """

    shift: bool = False

    def make_graph(self) -> Graph:
        values = {"identity": 0.3125, "relu": 0.4375, "hardswish": 0.25} | ({"shift": 0.0} if self.shift else {})
        params = {name: Param((1,), Constant(value)) for name, value in values.items()}
        return graph("x", [f"y = branches(x, {', '.join(params)})"], "y", {"branches": RepActFunction(self.shift)}, params)
