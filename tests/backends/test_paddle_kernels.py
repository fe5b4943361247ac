"""The kernel library under Paddle: where it is the path taken, where not, and its results."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acon_core import kernels, reference, spec
from acon_core.kernels import Plan
from acon_core.numerics import scaled_error

needs_library = pytest.mark.skipif(kernels.library() is None, reason=f"the kernel library: {kernels.status()}")
pytestmark = [pytest.mark.backend("paddle"), needs_library]

IMAGE = (3, 5, 4, 7)
ONE, CHANNEL, BATCH, BOTH = (1,), (5,), (3, 1, 1, 1), (3, 5, 1, 1)

# Each function by its layout: how it is called, its node, and the shapes of its arguments.
CALLS: dict[str, tuple[str, spec.Node, list[tuple[int, ...]]]] = {
    "acon per channel": ("acon", spec.Acon(), [IMAGE, CHANNEL, (1, 5, 1, 1), CHANNEL]),
    "acon per sample": ("acon", spec.Acon(), [IMAGE, CHANNEL, ONE, BATCH]),
    "acon per sample and channel": ("acon", spec.Acon(), [IMAGE, CHANNEL, CHANNEL, BOTH]),
    "acon per element": ("acon", spec.Acon(), [IMAGE, CHANNEL, BOTH, IMAGE]),
    "acon of numbers": ("fixed", spec.Acon(p1=1.25, p2=-0.25), [IMAGE, CHANNEL]),
    "acon on features": ("acon", spec.Acon(), [(3, 5), CHANNEL, ONE, (3, 5)]),
    "prelu": ("prelu", spec.PReLUFunction(), [IMAGE, CHANNEL]),
    "prelu per sample": ("prelu", spec.PReLUFunction(), [IMAGE, BATCH]),
    "arelu": ("arelu", spec.AReLUFunction(), [IMAGE, ONE, ONE]),
    "repact": ("repact", spec.RepActFunction(shift=True), [IMAGE, ONE, CHANNEL, BATCH, CHANNEL]),
    "repact without shift": ("repact", spec.RepActFunction(), [IMAGE, ONE, ONE, ONE]),
    "two lines": ("lines", spec.DynamicMaximum(), [IMAGE, (3, 20)]),
    "two lines of a sample": ("lines", spec.DynamicMaximum(), [IMAGE, (3, 4)]),
    "maximum": ("maximum", spec.Maximum(), [IMAGE, IMAGE]),
    "smooth maximum": ("smooth", spec.SmoothMaximum(1.75), [IMAGE, IMAGE]),
}
# The largest error over the scale: of a result in the dtype of x, and of one in that of the gates.
BOUNDS = {"float32": (1e-6, 1e-6), "float64": (2e-15, 2e-15), "bfloat16": (2**-8, 1e-6), "float16": (2**-11, 1e-6)}
# Half of the smallest number.
TINY = {"float32": 0.0, "float64": 0.0, "bfloat16": 0.0, "float16": 2.0**-25}
LAMBDAS, INIT_V = (1.0, 0.75, 0.5, 0.25), (1.0, 0.25, 0.125, -0.5)


def function(name: str, axis: int = 1) -> Callable[..., Any]:
    """Return a function of tensors."""
    import acon_paddle
    import paddle
    from acon_paddle import functional as f

    if name == "fixed":
        return lambda x, beta: f.acon(x, 1.25, -0.25, beta, channel_axis=axis)
    if name == "lines":

        def lines(x: Any, theta: Any) -> Any:
            constants = (paddle.to_tensor(each, theta.dtype) for each in (LAMBDAS, INIT_V))
            return f.dynamic_maximum(x, theta, *constants, channel_axis=axis)

        return lines
    if name == "maximum":
        return f.maximum
    if name == "smooth":
        return lambda a, b: acon_paddle.smooth_maximum(a, b, beta=1.75)
    return lambda *arguments: getattr(f, name)(*arguments, channel_axis=axis)


def tensors(shapes: list[tuple[int, ...]], dtype: str) -> list[Any]:
    """Draw the arguments. A gate has the dtype of x where it has its shape, else that of sums."""
    import paddle

    random = np.random.default_rng(7)
    of_gates = dtype if dtype == "float64" else "float32"
    made = []
    for shape in shapes:
        values = (
            random.uniform(0.2, 0.8, shape)
            if len(shape) == 1
            else random.normal(size=shape) * (2 if shape == shapes[0] else 0.5)
        )
        tensor = paddle.to_tensor(values).astype(dtype if shape == shapes[0] else of_gates)
        tensor.stop_gradient = False
        made.append(tensor)
    return made


def numbers(tensor: Any) -> np.ndarray:
    values: np.ndarray = tensor.astype("float64").numpy()
    return values


def cosines(y: Any) -> Any:
    """Return a gradient of y."""
    import paddle

    return paddle.to_tensor(np.cos(np.arange(y.size) + 0.5).reshape(y.shape)).astype(y.dtype)


def in_layout(call: str, layout: str) -> Callable[..., Any]:
    """Return a function of tensors with the channels first that computes in another layout."""
    if layout == "first":
        return function(call)

    def last(*arguments: Any) -> Any:
        shape = arguments[0].shape
        moved = [each.moveaxis(1, -1) if each.shape == shape else each for each in arguments]
        if layout == "last":
            moved[0] = moved[0].contiguous()
        return function(call, -1)(*moved).moveaxis(-1, 1)

    return last


@pytest.mark.parametrize("layout", ["first", "last", "transposed"])
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients_by_the_kernel(name: str, dtype: str, layout: str) -> None:
    """Against the reference in float64, from the values that the dtype stores."""
    call, node, shapes = CALLS[name]
    leaves = tensors(shapes, dtype)
    constants = [LAMBDAS, INIT_V] if call == "lines" else []
    result = reference.forward(node, {}, [*map(numbers, leaves), *map(np.array, constants)])

    before = Plan.runs
    y = in_layout(call, layout)(*leaves)
    weights = cosines(y)
    y.backward(weights)
    assert Plan.runs == before + 2
    assert y.dtype == leaves[0].dtype

    expected = result.vjp((numbers(weights),))
    of_x, of_gates = BOUNDS[dtype]
    assert scaled_error(numbers(y), result.values[0], abs(result.values[0]).max()) < of_x
    for leaf, exact, scale in zip(leaves, expected.inputs, expected.input_scales, strict=False):
        assert leaf.grad.dtype == leaf.dtype
        assert list(leaf.grad.shape) == list(leaf.shape)
        bound = of_x if leaf.dtype == y.dtype else of_gates
        if call == "smooth":  # the two gradients sum to that of y: the smaller one has the error of the sum
            scale = np.maximum(scale, np.abs(numbers(weights)))
        error = (np.abs(numbers(leaf.grad) - exact) - TINY[dtype]) / np.maximum(scale, 1e-300)
        assert error.max() < bound


def plain_acon(x: Any, p1: Any, p2: Any, beta: Any) -> Any:
    """Return the published formula, for gates that broadcast against x."""
    from paddle.nn.functional import sigmoid

    return (p1 - p2) * x * sigmoid(beta * (p1 - p2) * x) + p2 * x


def acon(x: Any, p1: Any, p2: Any, beta: Any) -> Any:
    from acon_paddle import functional

    return functional.acon(x, p1, p2, beta)


ACON = [IMAGE, (1, 5, 1, 1), (1, 5, 1, 1), BATCH]


def values_of(call: Callable[..., Any], leaves: list[Any]) -> list[np.ndarray]:
    y = call(*leaves)
    y.backward(cosines(y))
    found = [numbers(each) for each in (y, *(leaf.grad for leaf in leaves))]
    for leaf in leaves:
        leaf.grad = None
    return found


@pytest.mark.parametrize("frozen", range(4))
def test_frozen_arguments_have_no_gradient(frozen: int) -> None:
    leaves = tensors(ACON, "float32")
    expected = values_of(plain_acon, leaves)[1:]
    leaves[frozen].stop_gradient = True
    before = Plan.runs
    y = acon(*leaves)
    y.backward(cosines(y))
    assert Plan.runs == before + 2
    assert leaves[frozen].grad is None
    for index, leaf in enumerate(leaves):
        if index != frozen:
            assert scaled_error(leaf.grad.numpy(), expected[index], abs(expected[index]).max()) < 1e-6


def test_without_gradients_the_kernel_runs_once() -> None:
    import paddle

    leaves = tensors(ACON, "float32")
    expected = acon(*leaves)
    with paddle.no_grad():
        before = Plan.runs
        y = acon(*leaves)
        assert Plan.runs == before + 1
    assert y.stop_gradient
    detached = acon(*[leaf.detach() for leaf in leaves])
    assert detached.stop_gradient
    for found in (y, detached):
        np.testing.assert_array_equal(found.numpy(), expected.numpy())


@pytest.mark.parametrize("name", ["acon per sample", "prelu", "arelu", "repact", "two lines", "maximum", "smooth maximum"])
def test_second_derivatives_are_those_of_the_formula(name: str) -> None:
    """With create_graph the gradient is the formula's. Beside differences of the kernel's own."""
    import paddle

    call, _, shapes = CALLS[name]
    leaves = tensors(shapes, "float64")
    step = paddle.to_tensor(np.sin(np.arange(leaves[0].size)).reshape(shapes[0]))

    def gradients(x: Any, create_graph: bool) -> list[Any]:
        y = function(call)(x, *leaves[1:])
        found: list[Any] = paddle.grad(y, [x, *leaves[1:]], [cosines(y)], create_graph=create_graph)
        return found

    first = gradients(leaves[0], False)
    before = Plan.runs
    recorded = gradients(leaves[0], True)
    assert Plan.runs == before + 1  # the value
    for found, expected in zip(recorded, first, strict=True):
        assert scaled_error(found.numpy(), expected.numpy(), abs(expected.numpy()).max()) < 1e-14

    weights = [paddle.to_tensor(np.cos(np.arange(each.size) + 1.0).reshape(each.shape)) for each in recorded]
    total = sum(((each * weight).sum() for each, weight in zip(recorded, weights, strict=True)), (0 * leaves[0]).sum())
    second = paddle.grad(total, leaves, allow_unused=True)[0]
    h = 1e-5
    ends = [paddle.to_tensor((leaves[0] + sign * h * step).numpy(), stop_gradient=False) for sign in (1, -1)]
    up, down = (sum(float((g * w).sum()) for g, w in zip(gradients(end, False), weights, strict=True)) for end in ends)
    slope = (second.numpy() * step.numpy()).sum()
    np.testing.assert_allclose((up - down) / (2 * h), slope, rtol=1e-6, atol=1e-8)


def test_traces_take_the_formula(tmp_path: Path) -> None:
    """A trace of the whole graph, and what is saved of it, call no kernel."""
    import acon_paddle
    import paddle
    from paddle.static import InputSpec

    leaves = tensors(ACON, "float32")
    expected = values_of(acon, leaves)
    traced = paddle.jit.to_static(acon, full_graph=True)
    before = Plan.runs
    found = values_of(traced, leaves)
    assert Plan.runs == before
    for one, other in zip(found, expected, strict=True):
        assert scaled_error(one, other, abs(other).max()) < 1e-6

    layer = acon_paddle.MetaAconC(5)
    layer.eval()
    value = layer(leaves[0]).numpy()
    before = Plan.runs
    paddle.jit.save(layer, str(tmp_path / "saved"), input_spec=[InputSpec([None, 5, None, None], "float32")])
    loaded = paddle.jit.load(str(tmp_path / "saved"))(leaves[0]).numpy()
    assert Plan.runs == before
    assert scaled_error(loaded, value, abs(value).max()) < 1e-6


def test_a_trace_in_parts_has_the_same_results() -> None:
    """With full_graph=False, Paddle runs our functions between two parts of the trace."""
    import paddle

    leaves = tensors(ACON, "float32")
    expected = values_of(plain_acon, leaves)
    for one, other in zip(values_of(paddle.jit.to_static(acon, full_graph=False), leaves), expected, strict=True):
        assert scaled_error(one, other, abs(other).max()) < 1e-6


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_autocast_keeps_the_dtype_of_x(level: str) -> None:
    """The kernel runs under auto_cast, on x as it comes: 16 bits after a layer that casts."""
    import paddle

    leaves = tensors(ACON, "float32")
    half = leaves[0].astype("bfloat16").detach()
    half.stop_gradient = False
    for x in (leaves[0], half):
        expected = values_of(acon, [x, *leaves[1:]])
        before = Plan.runs
        with paddle.amp.auto_cast(level=level, dtype="bfloat16"):
            y = acon(x, *leaves[1:])
        y.backward(cosines(y))
        assert Plan.runs == before + 2
        assert y.dtype == x.dtype
        for one, other in zip((y, *(leaf.grad for leaf in (x, *leaves[1:]))), expected, strict=True):
            np.testing.assert_array_equal(numbers(one), other)
        for leaf in (x, *leaves[1:]):
            leaf.grad = None


def test_gates_in_16_bits_are_read_in_float32() -> None:
    x, *gates = tensors(ACON, "float32")
    halves = [gate.astype("bfloat16").detach() for gate in gates]
    wide = [half.astype("float32").detach() for half in halves]
    for gate in (*halves, *wide):
        gate.stop_gradient = False
    expected = values_of(plain_acon, [x, *wide])
    before = Plan.runs
    found = values_of(acon, [x, *halves])
    assert Plan.runs == before + 2
    for one, other, bound in zip(found, expected, (1e-6, 1e-6, 2**-8, 2**-8, 2**-8), strict=True):
        assert scaled_error(one, other, abs(other).max()) < bound


def test_calls_that_the_library_does_not_serve_take_the_formula() -> None:
    """No values, one axis, two gates of the size of x, dtypes that differ."""
    import paddle
    from acon_paddle import functional as f

    x = paddle.to_tensor(np.random.default_rng(3).normal(size=IMAGE).astype("float32"))
    gate = paddle.to_tensor([0.5])
    before = Plan.runs
    assert f.acon(x[:0], gate, gate, gate).shape == [0, 5, 4, 7]
    np.testing.assert_allclose(f.maximum(x, x[0, 0]).numpy(), np.maximum(x.numpy(), x.numpy()[0, 0]))
    np.testing.assert_allclose(f.acon(x, x, 0.5 * x, gate).numpy(), plain_acon(x, x, 0.5 * x, gate).numpy(), atol=1e-5)
    mixed = f.acon(x.astype("bfloat16"), 1.0, 0.0, x)
    np.testing.assert_allclose(
        numbers(mixed), plain_acon(x, paddle.ones([1]), paddle.zeros([1]), x).numpy(), rtol=2e-2, atol=1e-5
    )
    row = paddle.to_tensor([0.5, -2.0, 3.0])
    np.testing.assert_allclose(f.smooth_maximum(row, -row, beta=2.0).numpy(), [0.5, 2.0, 3.0], atol=0.2)
    assert Plan.runs == before


class Elsewhere:
    """What the binding asks of a tensor that is on another device, or sparse."""

    shape = IMAGE

    def __init__(self, dtype: Any, dense: bool, cpu: bool) -> None:
        self.dtype = dtype
        self.is_dense = lambda: dense
        self.place = self
        self.is_cpu_place = lambda: cpu


@pytest.mark.parametrize(("dense", "cpu"), [(False, True), (True, False)])
def test_tensors_elsewhere_take_the_formula(monkeypatch: pytest.MonkeyPatch, dense: bool, cpu: bool) -> None:
    import paddle
    from acon_paddle import kernels as binding

    here, elsewhere = paddle.ones(IMAGE), Elsewhere(paddle.float32, dense, cpu)
    monkeypatch.setattr(binding, "Tensor", (paddle.Tensor, Elsewhere))
    assert binding.usable("slopes", here, (1.0, here), 1) is not None
    assert binding.usable("slopes", here, (1.0, elsewhere), 1) is None  # type: ignore[arg-type]
    assert binding.usable("slopes", elsewhere, (1.0, here), 1) is None  # type: ignore[arg-type]


PROGRAM = """
import numpy as np, paddle
from acon_core.kernels import Plan
from acon_paddle import functional as f, kernels
x = paddle.to_tensor(np.cos(np.arange(300000.0)).reshape(3, 5, 20, 1000).astype("float32"), stop_gradient=False)
gate = paddle.to_tensor([0.5, 1.0, 1.5, 2.0, 2.5], stop_gradient=False)
y = f.acon(x, gate, 0.25, 1.0)
y.sum().backward()
print(Plan.runs, kernels._openmp()[0](), float(y.sum()), float(x.grad.sum()), *gate.grad.numpy())
"""


def run_program(**environment: str) -> list[float]:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return list(map(float, result.stdout.split()))


def test_without_the_library_and_with_threads() -> None:
    """ACON_KERNELS=0 takes the formula. The kernel uses the threads of Paddle's operations."""
    off = run_program(ACON_KERNELS="0")
    assert off[0] == 0
    one, three = run_program(OMP_NUM_THREADS="1"), run_program(OMP_NUM_THREADS="3")
    assert (one[:2], three[:2]) == ([2, 1], [2, 3])
    assert one[2:] == three[2:]
    np.testing.assert_allclose(one[2:], off[2:], rtol=1e-5)
