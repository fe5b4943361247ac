"""Calls of the gated functions on MegEngine's tensors, for the tests of the kernel library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from acon_core import spec
from acon_core.kernels import Plan
from acon_core.numerics import scaled_error

Shape = tuple[int, ...]
IMAGE = (3, 5, 4, 7)
ONE, CHANNEL, BATCH, BOTH = (1,), (5,), (3, 1, 1, 1), (3, 5, 1, 1)

# Each function by its layout: its name, its node, and the shapes of its arguments.
CALLS: dict[str, tuple[str, spec.Node, list[Shape]]] = {
    "acon per channel": ("acon", spec.Acon(), [IMAGE, CHANNEL, (1, 5, 1, 1), CHANNEL]),
    "acon of much": ("acon", spec.Acon(), [(3, 80, 9, 7), (80,), (1, 80, 1, 1), (3, 80, 1, 1)]),
    "acon per sample": ("acon", spec.Acon(), [IMAGE, CHANNEL, ONE, BATCH]),
    "acon per sample and channel": ("acon", spec.Acon(), [IMAGE, CHANNEL, CHANNEL, BOTH]),
    "acon per element": ("acon", spec.Acon(), [IMAGE, CHANNEL, BOTH, IMAGE]),
    "acon of numbers": ("fixed", spec.Acon(p1=1.25, p2=-0.25), [IMAGE, CHANNEL]),
    "acon on features": ("acon", spec.Acon(), [(3, 5), CHANNEL, ONE, (3, 5)]),
    "acon of one value": ("acon", spec.Acon(), [(1, 1), ONE, ONE, ONE]),
    "prelu": ("prelu", spec.PReLUFunction(), [IMAGE, CHANNEL]),
    "prelu per sample": ("prelu", spec.PReLUFunction(), [IMAGE, BATCH]),
    "arelu": ("arelu", spec.AReLUFunction(), [IMAGE, ONE, ONE]),
    "repact": ("repact", spec.RepActFunction(shift=True), [IMAGE, ONE, CHANNEL, BATCH, CHANNEL]),
    "repact without shift": ("repact", spec.RepActFunction(), [IMAGE, ONE, ONE, ONE]),
    "two lines": ("lines", spec.DynamicMaximum(), [IMAGE, (3, 20)]),
    "two lines of a sample": ("lines", spec.DynamicMaximum(), [IMAGE, (3, 4)]),
    "maximum": ("maximum", spec.Maximum(), [IMAGE, IMAGE]),
}
# The largest error over the scale, of a result in the dtype of x, and of one in float32.
BOUNDS = {"float32": (1e-6, 1e-6), "bfloat16": (2**-8, 1e-6), "float16": (2**-11, 1e-6)}
# Half of the smallest number in float16.
TINY = {"float32": 0.0, "bfloat16": 0.0, "float16": 2.0**-25}
LAMBDAS, INIT_V = (1.0, 0.75, 0.5, 0.25), (1.0, 0.25, 0.125, -0.5)


def function(name: str, axis: int = 1) -> Callable[..., Any]:
    """Return a function of tensors."""
    import megengine as mge
    from acon_megengine import functional as f

    if name == "fixed":
        return lambda x, beta: f.acon(x, 1.25, -0.25, beta, channel_axis=axis)
    if name == "lines":
        return lambda x, theta: f.dynamic_maximum(x, theta, mge.Tensor(LAMBDAS), mge.Tensor(INIT_V), channel_axis=axis)
    if name == "maximum":
        return f.maximum
    return lambda *arguments: getattr(f, name)(*arguments, channel_axis=axis)


def dtype_of(name: str) -> Any:
    from megengine.core.tensor.dtype import bfloat16

    return bfloat16 if name == "bfloat16" else name


def tensors(shapes: list[Shape], dtype: str = "float32") -> list[Any]:
    """Draw the arguments: in `dtype` if of the shape of x, else in float32."""
    import megengine as mge

    random = np.random.default_rng(7)
    made = []
    for index, shape in enumerate(shapes):
        small = index and len(shape) == 1
        low = 0.2 if small else -0.8
        values = random.uniform(low, 0.8, shape) if index else random.normal(size=shape) * 2.0
        made.append(mge.Tensor(values.astype(np.float32)).astype(dtype_of(dtype if shape == shapes[0] else "float32")))
    return made


def numbers(tensor: Any) -> np.ndarray:
    values: np.ndarray = tensor.astype("float32").numpy().astype(np.float64)
    return values


def cosines(y: Any) -> Any:
    """Return a gradient of y."""
    import megengine as mge

    values = np.cos(np.arange(np.prod(y._tuple_shape)) + 0.5).reshape(y._tuple_shape)
    return mge.Tensor(values.astype(np.float32)).astype(y.dtype)


def value_and_gradients(call: Callable[..., Any], arguments: list[Any]) -> list[Any]:
    from megengine.autodiff import GradManager

    with GradManager().attach(arguments) as manager:
        y = call(*arguments)
        manager.backward(y, cosines(y))
    found = [y, *(each.grad for each in arguments)]
    for each in arguments:
        each.grad = None
    return found


def by_formula(call: Callable[..., Any], arguments: list[Any]) -> list[Any]:
    """Return value and gradients without the library."""
    from acon_megengine import kernels as own

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "usable", lambda: False)
        return refused(call, arguments)


def refused(call: Callable[..., Any], arguments: list[Any]) -> list[Any]:
    """Return value and gradients, of a call that the library does not compute."""
    before = Plan.runs
    found = value_and_gradients(call, arguments)
    assert Plan.runs == before
    return found


def published(x: Any, p1: Any, p2: Any, beta: Any) -> Any:
    """Return the published formula, for gates that broadcast against x."""
    import megengine.functional as F

    return (p1 - p2) * x * F.sigmoid(beta * (p1 - p2) * x) + p2 * x


def assert_close(found: list[Any], expected: list[Any], bound: float = 1e-6) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one._tuple_shape == other._tuple_shape
        assert scaled_error(numbers(one), numbers(other), abs(numbers(other)).max()) < bound


ACON = [IMAGE, (1, 5, 1, 1), (1, 5, 1, 1), BATCH]


def acon(*arguments: Any) -> Any:
    from acon_megengine import functional

    return functional.acon(*arguments)
