"""How every function here that has a gradient of its own is differentiated: one Function, which keeps the arguments alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Argument = Tensor | float


def wide(*values: Argument) -> list[Any]:
    """16-bit tensors in float32: sums would round too much, and kinks such as -3 or a bound of 3e38 are not exact there."""
    narrow = (torch.float16, torch.bfloat16)
    return [value.float() if isinstance(value, Tensor) and value.dtype in narrow else value for value in values]


def into(tensor: Tensor, operation: str, *others: Argument) -> Tensor:
    """`tensor.operation(*others)` into the tensor's own memory, or into fresh memory where it may be differentiated in turn.

    Fresh memory of the size of x costs more than what is computed into it.
    """
    changed: Tensor = getattr(tensor, operation if torch.is_grad_enabled() else operation + "_")(*others)
    return changed


@dataclass(frozen=True)
class Rule:
    """A function of each element of x and of gates that broadcast against it, with its gradient.

    `value(x, *gates)`. `pullback(needed, g, x, *gates)`: for each argument g times its derivative, of any shape that sums to
    the argument's, or None where `needed` is False. Both see 16-bit values in float32. `pullback` is differentiable itself.
    Both change a tensor in place only by what went into it, so that vmap over any of the arguments works.
    """

    value: Callable[..., Tensor]
    pullback: Callable[..., Sequence[Tensor | None]]

    def __call__(self, x: Tensor, *gates: Argument) -> Tensor:
        function = _FromArguments if torch.compiler.is_compiling() else _WithForwardMode
        y: Tensor = function.apply(self, x, *gates, *(None for _ in range(_GATES - len(gates))))
        return y


# How many gates a rule may have. torch.compile counts the parameters of `forward`, so that it can have no *gates; those
# that a rule does not have are None.
_GATES = 4


class _FromArguments(torch.autograd.Function):
    """A rule's value, in x's dtype; numbers among the arguments are fixed and have no gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        rule: Rule, x: Tensor, a: Argument | None, b: Argument | None, c: Argument | None, d: Argument | None
    ) -> Tensor:
        gates = (gate for gate in (a, b, c, d) if gate is not None)
        return rule.value(*wide(x, *gates)).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.rule, *arguments = (argument for argument in inputs if argument is not None)
        ctx.fixed = [None if isinstance(argument, Tensor) else argument for argument in arguments]
        ctx.save_for_backward(*(argument for argument in arguments if isinstance(argument, Tensor)))

    @staticmethod
    def pullback(ctx: Any, needed: Sequence[bool], g: Tensor) -> list[Tensor | None]:
        """The gradient of every argument in its own shape and dtype, None where it is not needed."""
        saved = iter(ctx.saved_tensors)
        arguments = [next(saved) if fixed is None else fixed for fixed in ctx.fixed]
        terms = ctx.rule.pullback(needed[: len(arguments)], *wide(g, *arguments))
        return [
            None if term is None else term.sum_to_size(like.shape).to(like.dtype)
            for term, like in zip(terms, arguments, strict=True)
        ]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        gradients = _FromArguments.pullback(ctx, ctx.needs_input_grad[1:], g)
        return None, *gradients, *(None for _ in range(1 + _GATES - len(gradients)))


class _WithForwardMode(_FromArguments):
    """The same, and forward mode: apart, since torch.compile takes no Function that has a jvp of its own."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _FromArguments.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*(argument for argument in inputs if isinstance(argument, Tensor)))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor:
        # The pullback is linear in g: what it is itself pulled back along is the push forward.
        given = tuple(tangent for tangent in tangents if tangent is not None)
        needed = [tangent is not None for tangent in tangents]

        def pull(g: Tensor) -> tuple[Tensor, ...]:
            return tuple(term for term in _FromArguments.pullback(ctx, needed, g) if term is not None)

        _, push = torch.func.vjp(pull, torch.zeros_like(ctx.saved_tensors[0]))
        dy: Tensor = push(given)[0]
        return dy
