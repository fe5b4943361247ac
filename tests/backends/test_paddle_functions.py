"""Every function on Paddle tensors: kinks and extremes, float64, frozen arguments, to_static."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from acon_core.errors import SpecError

pytestmark = pytest.mark.backend("paddle")


# Values, and derivatives at 0 and at the other kinks, by hand.
SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772
KINKS: list[tuple[str, dict[str, Any], list[tuple[float, float, float]]]] = [
    ("relu", {}, [(0.0, 0, 0), (-0.0, 0, 0), (1e-8, 1e-8, 1), (-1e-8, 0, 0), (-3e38, 0, 0), (3e38, 3e38, 1)]),
    ("relu6", {}, [(0.0, 0, 0), (6.0, 6, 0), (5.5, 5.5, 1), (3e38, 6, 0), (-3e38, 0, 0)]),
    (
        "leaky_relu",
        {"slope": 0.25},
        [(0.0, 0, 0.25), (1e-8, 1e-8, 1), (-2.0, -0.5, 0.25), (-2e38, -5e37, 0.25), (3e38, 3e38, 1)],
    ),
    ("elu", {"alpha": 1.5}, [(0.0, 0, 1.5), (1e-8, 1e-8, 1), (-3e38, -1.5, 0), (3e38, 3e38, 1)]),
    ("selu", {}, [(0.0, 0, SCALE * ALPHA), (2.0, 2 * SCALE, SCALE), (-3e38, -SCALE * ALPHA, 0), (1e38, 1e38 * SCALE, SCALE)]),
    ("celu", {"alpha": 2.0}, [(0.0, 0, 1), (1e-8, 1e-8, 1), (-3e38, -2, 0), (3e38, 3e38, 1)]),
    ("gelu", {}, [(0.0, 0, 0.5), (3e38, 3e38, 1), (-3e38, 0, 0)]),
    ("gelu", {"approximate": "tanh"}, [(0.0, 0, 0.5), (3e38, 3e38, 1), (-3e38, 0, 0), (150.0, 150, 1), (-150.0, 0, 0)]),
    ("silu", {}, [(0.0, 0, 0.5), (3e38, 3e38, 1), (-3e38, 0, 0), (-100.0, 0, 0)]),
    ("mish", {}, [(0.0, 0, 0.6), (3e38, 3e38, 1), (-3e38, 0, 0)]),
    ("softplus", {"beta": 2.0}, [(0.0, math.log(2) / 2, 0.5), (3e38, 3e38, 1), (-3e38, 0, 0)]),
    ("hardswish", {}, [(-3.0, 0, 0), (3.0, 3, 1), (0.0, 0, 0.5), (-1.5, -0.375, 0), (3e38, 3e38, 1), (-3e38, 0, 0)]),
    ("hardsigmoid", {}, [(-3.0, 0, 0), (3.0, 1, 0), (0.0, 0.5, 1 / 6), (1.5, 0.75, 1 / 6), (3e38, 1, 0), (-3e38, 0, 0)]),
    ("sigmoid", {}, [(0.0, 0.5, 0.25), (3e38, 1, 0), (-3e38, 0, 0)]),
]


def value_and_slope(function: Callable[..., Any], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import paddle

    leaf = paddle.to_tensor(x, stop_gradient=False)
    y = function(leaf)
    (slope,) = paddle.grad(y.sum(), [leaf])
    return y.numpy(), slope.numpy()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options", "rows"), KINKS)
def test_kinks_and_extremes(name: str, options: dict[str, Any], rows: list[tuple[float, float, float]], dtype: str) -> None:
    from acon_paddle import pointwise

    x, y, slope = (np.array(column, dtype) for column in zip(*rows, strict=True))
    # 64 of each, because Paddle computes the tail of an array by other code.
    found = value_and_slope(lambda leaf: getattr(pointwise, name)(leaf, **options), np.repeat(x, 64))
    rounding = 4 * np.finfo(dtype).eps
    for values, expected in zip(found, (y, slope), strict=True):
        np.testing.assert_allclose(values, np.repeat(expected, 64), rtol=rounding, atol=rounding)


def test_float64_against_mpmath() -> None:
    """Paddle is off by 1e-8 in float64. Ours is within 8 roundings of max(1, |x|) on [-40, 40]."""
    import mpmath as mp
    from acon_paddle import pointwise

    exact: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
        "elu": ({"alpha": 1.1}, lambda x: x if x > 0 else mp.mpf(1.1) * mp.expm1(x)),
        "selu": ({}, lambda x: mp.mpf(SCALE) * (x if x > 0 else mp.mpf(ALPHA) * mp.expm1(x))),
        "celu": ({"alpha": 0.7}, lambda x: x if x > 0 else mp.mpf(0.7) * mp.expm1(x / mp.mpf(0.7))),
        "gelu": ({}, lambda x: x * mp.ncdf(x)),
        "silu": ({}, lambda x: x / (1 + mp.exp(-x))),
        "mish": ({}, lambda x: x * mp.tanh(mp.log1p(mp.exp(x)))),
        "softplus": ({"beta": 1.3}, lambda x: mp.log1p(mp.exp(mp.mpf(1.3) * x)) / mp.mpf(1.3)),
        "sigmoid": ({}, lambda x: 1 / (1 + mp.exp(-x))),
    }
    x = np.random.default_rng(5).uniform(-40, 40, 64)
    with mp.workdps(60):
        for name, (options, function) in exact.items():
            y, slope = value_and_slope(lambda leaf, n=name, o=options: getattr(pointwise, n)(leaf, **o), x)
            for found, expected in ((y, function), (slope, lambda a, f=function: mp.diff(f, a, h=mp.mpf(10) ** -20))):
                error = [
                    abs(mp.mpf(float(a)) - expected(mp.mpf(float(b)))) / max(1, abs(b)) for a, b in zip(found, x, strict=True)
                ]
                assert max(error) < 8 * 2.0**-53, name


@pytest.mark.parametrize("name", ["gelu", "mish", "softplus", "hardswish", "relu6", "celu", "elu", "selu", "silu"])
def test_agreement_with_paddle_functions(name: str) -> None:
    import paddle
    from acon_paddle import pointwise

    x = np.random.default_rng(1).uniform(-8, 8, (3, 5, 4)).astype("float32")
    ours, theirs = (
        value_and_slope(function, x) for function in (getattr(pointwise, name), getattr(paddle.nn.functional, name))
    )
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


# At module level: to_static does not transform nested functions, and a PyLayer must not be.
def of_numbers(x: Any, beta: Any) -> Any:
    from acon_paddle import functional

    return functional.acon(x, 1.0, 0.1, beta)


def smooth(a: Any, b: Any, beta: Any) -> Any:
    from acon_paddle import functional

    return functional.smooth_maximum(a, b, beta=beta)


def dynamic_maximum(x: Any, theta: Any) -> Any:
    import paddle
    from acon_paddle import functional

    lambdas, init_v = paddle.to_tensor([1.0, 1.0, 0.5, 0.5], "float64"), paddle.to_tensor([1.0, 0.0, 0.0, 0.0], "float64")
    return functional.dynamic_maximum(x, theta, lambdas, init_v)


def gated() -> dict[str, tuple[Callable[..., Any], Callable[..., Any], list[tuple[int, ...]]]]:
    """Return each gated function, the formula that Paddle differentiates, and the shapes."""
    import acon_paddle.functional as f
    import paddle
    from paddle.nn.functional import hardswish, relu, sigmoid

    image = (3, 5, 4, 2)

    def plain(x: Any, p1: Any, p2: Any, beta: Any) -> Any:
        return (p1 - p2) * x * sigmoid(beta * (p1 - p2) * x) + p2 * x

    def by_channel(gate: Any) -> Any:
        return gate.reshape([5, 1, 1])

    def attention(x: Any, alpha: Any, beta: Any) -> Any:
        return paddle.where(x > 0, (1 + sigmoid(beta)) * x, alpha.clip(0.01, 0.99) * x)

    def softmax(a: Any, b: Any, beta: Any) -> Any:
        return a * sigmoid(beta * (a - b)) + b * sigmoid(beta * (b - a))

    def dynamic(x: Any, theta: Any) -> Any:
        t = (2 * sigmoid(theta) - 1).reshape([3, 5, 4, 1, 1])
        return paddle.maximum((t[:, :, 0] + 1) * x + 0.5 * t[:, :, 2], t[:, :, 1] * x + 0.5 * t[:, :, 3])

    vector = (1,)

    return {
        "acon of (C,) and (N, 1, 1, 1)": (
            f.acon, lambda x, p1, p2, beta: plain(x, by_channel(p1), by_channel(p2), beta), [image, (5,), (5,), (3, 1, 1, 1)],
        ),
        "acon per pixel": (f.acon, plain, [image, (1, 5, 1, 1), (1, 5, 1, 1), image]),
        "acon of numbers": (of_numbers, lambda x, b: plain(x, 1.0, 0.1, b), [image, vector]),
        "prelu": (f.prelu, lambda x, n: paddle.where(x > 0, x, by_channel(n) * x), [image, (5,)]),
        "arelu": (f.arelu, attention, [image, vector, vector]),
        "repact": (
            f.repact, lambda x, a, b, h, c: a * x + b * relu(x) + h * hardswish(x) + c, [image, *[vector] * 4],
        ),
        "smooth_maximum": (smooth, softmax, [image, image, vector]),
        "dynamic_maximum": (dynamic_maximum, dynamic, [image, (3, 20)]),
    }  # fmt: skip


GATED = [
    "acon of (C,) and (N, 1, 1, 1)", "acon per pixel", "acon of numbers", "prelu", "arelu", "repact",
    "smooth_maximum", "dynamic_maximum",
]  # fmt: skip


def gradients_of(run: Callable[..., Any], arrays: list[np.ndarray], frozen: int | None = None) -> list[np.ndarray | None]:
    import paddle

    leaves = [paddle.to_tensor(array, stop_gradient=index == frozen) for index, array in enumerate(arrays)]
    y = run(*leaves)
    weights = paddle.to_tensor(np.cos(np.arange(math.prod(y.shape))).reshape(y.shape))
    (y * weights).sum().backward()
    return [y.numpy(), *(None if leaf.grad is None else leaf.grad.numpy() for leaf in leaves)]


@pytest.mark.parametrize("name", GATED)
def test_gated_gradients_with_frozen_inputs_and_to_static(name: str) -> None:
    """In float64, because to_static would round Python floats to float32."""
    import paddle

    function, formula, shapes = gated()[name]
    random = np.random.default_rng(2)
    arrays = [random.uniform(0.1, 0.9, s) if s == (1,) else random.normal(size=s) * 2 for s in shapes]
    expected = gradients_of(formula, arrays)
    for frozen in (None, *range(len(arrays))):
        found = gradients_of(function, arrays, frozen)
        for index, (first, second) in enumerate(zip(found, expected, strict=True)):
            if frozen is not None and index == frozen + 1:
                assert first is None
            else:
                np.testing.assert_allclose(first, second, rtol=1e-11, atol=1e-12, err_msg=f"{index} of {name}")

    # to_static passes no more arguments than the function names.
    def of_2(a: Any, b: Any) -> Any:
        return function(a, b)

    def of_3(a: Any, b: Any, c: Any) -> Any:
        return function(a, b, c)

    def of_4(a: Any, b: Any, c: Any, d: Any) -> Any:
        return function(a, b, c, d)

    def of_5(a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
        return function(a, b, c, d, e)

    run = paddle.jit.to_static({2: of_2, 3: of_3, 4: of_4, 5: of_5}[len(arrays)], full_graph=True)
    for first, second in zip(gradients_of(run, arrays), expected, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-11, atol=1e-12, err_msg=f"{name} under to_static")


@pytest.mark.parametrize(("name", "options", "rows"), KINKS)
def test_pointwise_under_to_static_in_float64(
    name: str, options: dict[str, Any], rows: list[tuple[float, float, float]]
) -> None:
    import paddle
    from acon_paddle import activation

    layer = activation(name, **options)
    x = np.random.default_rng(1).uniform(-8, 8, (3, 5, 4))
    compiled = paddle.jit.to_static(plain_function(layer), full_graph=True)
    for found, expected in zip(value_and_slope(compiled, x), value_and_slope(layer, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-15)


def plain_function(layer: Any) -> Callable[[Any], Any]:
    """Wrap a layer in a plain function, which to_static handles more reliably."""

    def run(x: Any) -> Any:
        return layer(x)

    return run


@pytest.mark.parametrize("beta", [0.0, 1e-3, 1.0, -2.0, 50.0, 1e30])
@pytest.mark.parametrize("pair", [(3e38, -3e38), (1000.0, 1000.0625), (-3e38, -3e38), (2.0, -1.0), (1e-8, 0.0)])
def test_smooth_maximum_does_not_overflow(pair: tuple[float, float], beta: float) -> None:
    """Against b + (a - b) sigmoid(beta (a - b)) to 60 digits, in float32."""
    import mpmath as mp
    import paddle
    from acon_paddle import smooth_maximum

    a, b = (paddle.to_tensor(np.full(70, value, "float32"), stop_gradient=False) for value in pair)
    y = smooth_maximum(a, b, beta=beta)
    y.sum().backward()
    with mp.workdps(60):
        first, second, k = (mp.mpf(float(np.float32(value))) for value in (*pair, beta))
        z = k * (first - second)
        s = 1 / (1 + mp.exp(-z)) if z > -1e4 else mp.mpf(0)
        t = 1 / (1 + mp.exp(z)) if z < 1e4 else mp.mpf(0)
        expected = [second + (first - second) * s, s + z * s * t, t - z * s * t]
    scale = max(abs(pair[0]), abs(pair[1]))
    for found, value, unit in zip((y, a.grad, b.grad), expected, (scale, 1.0, 1.0), strict=True):
        np.testing.assert_allclose(found.numpy() / unit, float(value) / unit, rtol=0, atol=4e-7)


@pytest.mark.parametrize("x", [0.0, 2.0])
def test_ties_split_the_gradient(x: float) -> None:
    """maximum(x, x), and DyReLU's max(x, 0) at 0: with theta 0 its coefficients are init_v."""
    import paddle
    from acon_paddle.functional import dynamic_maximum, maximum

    leaves = [paddle.full([70], x) for _ in range(2)]
    for leaf in leaves:
        leaf.stop_gradient = False
    for gradient in paddle.grad(maximum(*leaves).sum(), leaves):
        np.testing.assert_array_equal(gradient.numpy(), 0.5)
    value = paddle.full([2, 3, 5, 7], x)
    value.stop_gradient = False
    y = dynamic_maximum(value, paddle.zeros([2, 4]), paddle.to_tensor([1.0, 1.0, 0.5, 0.5]), paddle.to_tensor([1.0, 0, 0, 0]))
    np.testing.assert_array_equal(paddle.grad(y.sum(), [value])[0].numpy(), 0.5 if x == 0 else 1.0)


@pytest.mark.parametrize("axis", [1, -1])
def test_gates_of_any_channel_axis(axis: int) -> None:
    """Each gated function gives the same result with channels first and last."""
    import paddle
    from acon_paddle import functional as f

    x = paddle.to_tensor(np.random.default_rng(6).normal(size=(3, 5, 4, 2)) * 3)
    gates = [paddle.to_tensor(np.random.default_rng(seed).uniform(0.1, 0.9, shape)) for seed, shape in
             enumerate([(5,), (3, 5, 1, 1), (3, 1, 1, 1), (1, 5, 1, 1)])]  # fmt: skip
    moved = paddle.moveaxis(x, 1, axis)
    for function, count in ((f.acon, 3), (f.prelu, 1), (f.arelu, 2), (f.repact, 4)):
        for first in range(4):
            taken = [gates[(first + index) % 4] for index in range(count)]
            y = function(moved, *taken, channel_axis=axis)
            np.testing.assert_array_equal(paddle.moveaxis(y, axis, 1).numpy(), function(x, *taken).numpy())


@pytest.mark.parametrize("shape", [(5, 1, 1), (3, 5), (4,), (2, 5, 1, 1), (3, 4, 1, 1), (3, 1, 4, 2), (3,)])
@pytest.mark.parametrize("name", ["acon", "prelu", "arelu", "repact"])
def test_wrong_gate_shapes_are_refused(name: str, shape: tuple[int, ...]) -> None:
    import paddle
    from acon_paddle import functional

    function, x, good = getattr(functional, name), paddle.ones([3, 5, 4, 2]), paddle.ones([5])
    rest = {"acon": 2, "prelu": 0, "arelu": 1, "repact": 3}[name]
    for position in range(rest + 1):
        gates = [good] * position + [paddle.ones(shape)] + [good] * (rest - position)
        with pytest.raises(SpecError, match="expected a gate of shape"):
            function(x, *gates)
    for axis in (0, 4, -4):
        with pytest.raises(SpecError, match=f"channel_axis {axis}"):
            function(x, *[good] * (rest + 1), channel_axis=axis)


def test_rank_3_gate_is_not_broadcast_along_the_batch() -> None:
    """(C, 1, 1) with N = C, also in a trace; dynamic gates of rank 4 are accepted."""
    import paddle
    from acon_paddle import acon
    from paddle.static import InputSpec

    def run(x: Any, beta: Any) -> Any:
        return acon(x, 1.0, 0.0, beta)

    x = paddle.rand([5, 5, 4, 2])
    for function in (run, paddle.jit.to_static(run, full_graph=True)):
        for _ in range(2):
            with pytest.raises(SpecError, match="found \\(5, 1, 1\\)"):
                function(x, paddle.ones([5, 1, 1]))
        np.testing.assert_allclose(function(x, paddle.ones([5])).numpy(), (x / (1 + paddle.exp(-x))).numpy(), rtol=1e-6)
    sizes = [InputSpec([None, 5, None, None], "float32"), InputSpec([None, 5, 1, 1], "float32")]
    opened = paddle.jit.to_static(run, full_graph=True, input_spec=sizes)
    for batch in (5, 3):
        gate = paddle.rand([batch, 5, 1, 1])
        np.testing.assert_allclose(opened(x[:batch], gate).numpy(), run(x[:batch], gate).numpy(), rtol=1e-6)


def test_smooth_maximum_invalid_inputs() -> None:
    import paddle
    from acon_paddle import smooth_maximum

    x = paddle.ones([3, 5])
    for values in ((), (x,), (x, x[:, :1]), (x, x[0]), (x, x, x[:1])):
        with pytest.raises(SpecError, match="two values or more of one shape"):
            smooth_maximum(*values)
    for shape in ((5,), (3, 1)):
        with pytest.raises(SpecError, match="expected beta of one element"):
            smooth_maximum(x, x, beta=paddle.ones(shape))
    for beta in (2, paddle.ones([]), paddle.ones([1, 1])):
        np.testing.assert_array_equal(smooth_maximum(x[0, 0], x[0, 1], beta=beta).numpy(), 1.0)
