"""RepAct: four branches in training, three factors in inference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from acon_core.errors import SpecError
from acon_core.spec.activation_base import Activation
from acon_core.spec.gated import RepActCoefficients, RepActFunction
from acon_core.spec.graph import Graph, graph
from acon_core.spec.node import Node
from acon_core.spec.param import Constant, Param
from acon_core.spec.primitives import BatchNorm
from acon_core.spec.rearrange import FlattenToOneChannel, ReshapeLike

__all__ = ["FusedRepAct", "RepAct"]


@dataclass(frozen=True)
class RepAct(Activation):
    """RepAct: y = w0 x + w1 relu(x) + w2 prelu(x) + w3 hardswish(x), with learned weights w.

    Parameters
    ----------
    variant : {1, 2, 3}, default 1
        1: the weights as they are. 2: their softmax. 3: as 1, then a BatchNorm of one channel over
        the whole tensor.

    Raises
    ------
    OneValuePerChannelError
        In training with variant 3 and one value.

    Notes
    -----
    Computed as y = A x + B relu(x) + H hardswish(x), with A = w0 + alpha w2, B = w1 + (1 - alpha)
    w2 and H = w3: five parameters have three degrees of freedom. The output has the input's shape,
    which may be any. Gradients at kinks: relu'(0) = 0, hardswish'(-3) = 0, hardswish'(3) = 1.

    State, without weight decay: `weights` (4,) for identity, ReLU, PReLU and HardSwish, initially
    0.25; `alpha` (1,), PReLU's slope, initially 0.25; in variant 3 the batch norm `norm`.

    References
    ----------
    Wu et al. 2024, "RepAct: The Re-parameterizable Adaptive Activation Function" (arXiv
    2407.00131), RepAct I, II and III; 2771096196/RepAct, RepActs.py, whose order of branches
    differs.

    Examples
    --------
    >>> from acon_core import spec
    >>> list(spec.named_params(spec.RepAct()))
    ['weights', 'alpha']
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
    """RepAct in closed form for inference: y = A x + B relu(x) + H hardswish(x) + c.

    Parameters
    ----------
    shift : bool, default False
        Whether there is a c, which comes from the norm of RepAct III.

    Notes
    -----
    `fuse` makes it from `RepAct`. It is exact at the kinks -3, 0 and 3, in 16 bits too, where the
    released fused form is wrong. The output has the input's shape, which may be any. Gradients at
    kinks as RepAct's.

    State, without weight decay: `identity`, `relu` and `hardswish` (A, B and H), and `shift` (c) if
    there is one; each (1,).

    References
    ----------
    Wu et al. 2024, "RepAct: The Re-parameterizable Adaptive Activation Function" (arXiv
    2407.00131).

    Examples
    --------
    >>> from acon_core import spec
    >>> list(spec.named_params(spec.FusedRepAct(shift=True)))
    ['identity', 'relu', 'hardswish', 'shift']
    """

    shift: bool = False

    def make_graph(self) -> Graph:
        values = {"identity": 0.3125, "relu": 0.4375, "hardswish": 0.25} | ({"shift": 0.0} if self.shift else {})
        params = {name: Param((1,), Constant(value)) for name, value in values.items()}
        return graph("x", [f"y = branches(x, {', '.join(params)})"], "y", {"branches": RepActFunction(self.shift)}, params)
