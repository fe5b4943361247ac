"""What tracers leave open: sizes, and whole values in `torch.fx`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling
from torch.fx import Proxy

from acon_core.spec.sizes import OPEN

# Their sizes are numbers, but in torch.jit.trace.
_PLAIN = (Tensor, nn.Parameter)

is_traced: Callable[[], object] = torch._C._get_tracing_state
"""Return something true in `torch.jit.trace`."""


def sizes(value: Tensor) -> tuple[int, ...]:
    """Return the shape, with `OPEN` for each size that a tracer leaves open.

    Neither torch.compile, torch.export nor fake tensors get a guard on such a size.
    """
    if is_dynamo_compiling():
        return _known_sizes(value)
    if type(value) in _PLAIN and not is_traced():
        return value.shape
    return _traced_sizes(value)


def _known_sizes(value: Tensor) -> tuple[int, ...]:
    from torch.fx.experimental.symbolic_shapes import has_static_value  # a second to import; compilers have done so

    return tuple([int(size) if has_static_value(size) else OPEN for size in value.shape])


def _traced_sizes(value: Tensor) -> tuple[int, ...]:
    state = is_traced()
    if not state:
        return _known_sizes(value)
    # torch.jit.trace: sizes are tensors, so that the trace serves other sizes. These are checked.
    torch._C._set_tracing_state(None)
    try:
        return tuple(value.shape)
    finally:
        torch._C._set_tracing_state(state)


def _tracer(values: Sequence[Any]) -> Any:
    return next(value for value in values if isinstance(value, Proxy)).tracer


def is_root(module: nn.Module, *values: Any) -> bool:
    """Return whether the module is what `torch.fx` traces, so that no node can name it."""
    return not _tracer(values).path_of_module(module)


def record(module: nn.Module, *values: Any) -> Any:
    """Record the call of a module as one node of `torch.fx`, as is done for those of torch.nn."""
    tracer = _tracer(values)
    return tracer.create_proxy("call_module", tracer.path_of_module(module), values, {})


def record_function(module: nn.Module, function: Callable[..., Any], values: Sequence[Any], options: Any) -> Any:
    """Record the call of the module of a function: as that of the function where it has no name."""
    if is_root(module, *values):
        return _tracer(values).create_proxy("call_function", function, tuple(values), options)
    return record(module, *values)


def call_as_leaf(module: nn.Module, *values: Any) -> Any:
    """Call a module in a trace of `torch.fx` so that it is recorded as one node."""
    return _tracer(values).call_module(module, partial(record, module), values, {})
