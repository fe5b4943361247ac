"""Hand-written gradients of the gated functions: one Function, which keeps the arguments only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from acon_core.errors import DtypeError
from acon_core.spec import check_gate
from acon_core.spec.sizes import volume
from acon_torch.tracing import is_traced, sizes

Gate = Tensor | float
Terms = Sequence[Tensor | None]

# The largest |z| for which z * sigmoid(z) * sigmoid(-z) is formed. Beyond it the product is 0, but
# infinity * 0 would be NaN.
BOUND = 3e38
HALF = (torch.float16, torch.bfloat16)


def check_floating(function: str, x: Tensor) -> None:
    """Raise DtypeError for integers and booleans."""
    if not x.is_floating_point():
        raise DtypeError.at(function, x.dtype)


def upcast_half(*values: Gate) -> list[Any]:
    """Convert 16-bit tensors to float32: sums round too much, and float16 has no BOUND."""
    return [value.float() if isinstance(value, Tensor) and value.dtype in HALF else value for value in values]


def to_rank(gate: Gate, x: Tensor, channel_axis: int) -> Gate:
    """Reshape a gate so that it broadcasts against x; numbers stay as they are.

    (1,) applies to all of x, (C,) and (1 or N, 1 or C, ...) to batch and channels, and the shape of
    x to each element. Raises SpecError for any other shape.
    """
    if not isinstance(gate, Tensor):
        return gate
    own, given = sizes(gate), sizes(x)
    if channel_axis == 1 and len(given) == 4 and own == (1, given[1], 1, 1):
        return gate
    if own == (1,) or volume(own) == 1:
        return gate.reshape([1] * len(given))
    check_gate(own, given, channel_axis)
    if own == given or any(size != 1 for size in own[2:]):
        return gate
    # The sizes themselves, not those of `sizes`: a trace serves other batches.
    shape = [1] * len(given)
    shape[channel_axis] = gate.shape[1] if len(own) > 1 else gate.shape[0]
    shape[0] = gate.shape[0] if len(own) > 1 else 1
    return gate.reshape(shape)


def inplace(tensor: Tensor, operation: str, *others: Gate) -> Tensor:
    """Compute `tensor.operation(*others)` in place, or in new memory in a trace.

    A trace is differentiated by PyTorch, which keeps what the operations made.
    """
    result: Tensor = getattr(tensor, operation if is_traced() else operation + "_")(*others)
    return result


def inplace_if_safe(tensor: Tensor, operation: str, *others: Gate) -> Tensor:
    """Compute `tensor.operation(*others)` in place, or in new memory if it may be differentiated.

    Allocating memory of the size of x costs more than computing what goes into it.
    """
    result: Tensor = getattr(tensor, operation if torch.is_grad_enabled() else operation + "_")(*others)
    return result


@dataclass(frozen=True)
class Rule:
    """An elementwise function of x and of gates that broadcast against it, with its gradient.

    `value(x, *gates)` is the function. `pullback(needed, g, x, *gates)` returns one term per
    argument, g times the derivative, in any shape that sums to the argument's; None where `needed`
    is False. Both get 16-bit values in float32. `pullback` is itself differentiable. Both change a
    tensor in place only by what was computed from it, so that vmap over any argument works.
    PyTorch's own gradient of `value` is the same, kinks included: it is that of a traced module.
    """

    value: Callable[..., Tensor]
    pullback: Callable[..., Terms]

    def __call__(self, x: Tensor, *gates: Gate) -> Tensor:
        compiling = torch.compiler.is_compiling()
        if not (compiling or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0):
            # Neither vmap nor forward mode is at work: a small tensor in a fourth of the time.
            if is_traced() or not is_differentiated(x, *gates):
                return self.evaluate(x, *gates)  # a trace can only be saved without a Function
            return _EagerFunction.apply(self, x, *gates)
        function = _Function if compiling else _FunctionWithForwardMode
        y: Tensor = function.apply(self, x, *gates, *(None for _ in range(_MAX_GATES - len(gates))))
        return y

    def evaluate(self, x: Tensor, *gates: Gate) -> Tensor:
        """Return the value in the dtype of x."""
        return self.value(*upcast_half(x, *gates)).to(x.dtype)

    def gradients(self, needed: Sequence[bool], g: Tensor, *arguments: Gate) -> list[Tensor | None]:
        """Return the gradient of each argument in its shape and dtype, or None if not needed."""
        terms = self.pullback(needed[: len(arguments)], *upcast_half(g, *arguments))
        return [
            None if term is None else term.sum_to_size(like.shape).to(like.dtype)
            for term, like in zip(terms, arguments, strict=True)
        ]


def is_differentiated(*arguments: Gate | None) -> bool:
    """Return whether a gradient may be asked for."""
    return torch.is_grad_enabled() and any(isinstance(each, Tensor) and each.requires_grad for each in arguments)


# torch.compile counts the parameters of `forward`: no `*gates`. Unused gates are None.
_MAX_GATES = 4


class _Function(torch.autograd.Function):
    """The value of a rule in the dtype of x. Numbers among the arguments have no gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rule: Rule, x: Tensor, a: Gate | None, b: Gate | None, c: Gate | None, d: Gate | None) -> Tensor:
        return rule.evaluate(x, *(gate for gate in (a, b, c, d) if gate is not None))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.rule, *arguments = (argument for argument in inputs if argument is not None)
        ctx.fixed = [None if isinstance(argument, Tensor) else argument for argument in arguments]
        ctx.save_for_backward(*(argument for argument in arguments if isinstance(argument, Tensor)))

    @staticmethod
    def pullback(ctx: Any, needed: Sequence[bool], g: Tensor) -> list[Tensor | None]:
        saved = iter(ctx.saved_tensors)
        arguments = [next(saved) if fixed is None else fixed for fixed in ctx.fixed]
        gradients: list[Tensor | None] = ctx.rule.gradients(needed, g, *arguments)
        return gradients

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        gradients = _Function.pullback(ctx, ctx.needs_input_grad[1:], g)
        return None, *gradients, *(None for _ in range(1 + _MAX_GATES - len(gradients)))


class _EagerFunction(torch.autograd.Function):
    """The same for plain eager calls.

    PyTorch prepares a Function without `setup_context` faster.
    """

    @staticmethod
    def forward(ctx: Any, rule: Rule, *arguments: Gate) -> Tensor:
        ctx.rule, ctx.fixed = rule, [None if isinstance(argument, Tensor) else argument for argument in arguments]
        ctx.save_for_backward(*[argument for argument in arguments if isinstance(argument, Tensor)])
        return rule.evaluate(*arguments)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_Function.pullback(ctx, ctx.needs_input_grad[1:], g)


class _FunctionWithForwardMode(_Function):
    """Add forward mode, in a class of its own: torch.compile accepts no Function with a jvp."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _Function.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*(argument for argument in inputs if isinstance(argument, Tensor)))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor:
        # The pullback is linear in g, so its own pullback is the push-forward.
        given = tuple(tangent for tangent in tangents if tangent is not None)
        needed = [tangent is not None for tangent in tangents]

        def pull(g: Tensor) -> tuple[Tensor, ...]:
            return tuple(term for term in _Function.pullback(ctx, needed, g) if term is not None)

        _, push = torch.func.vjp(pull, torch.zeros_like(ctx.saved_tensors[0]))
        dy: Tensor = push(given)[0]
        return dy
