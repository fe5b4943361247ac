"""The kernel library under MegEngine: where it is the path taken, where not, and its results.

MegEngine computes asynchronously, the library at once: many tests are about who waits for whom.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from acon_core import kernels, reference, spec
from acon_core.kernels import Plan
from acon_core.numerics import scaled_error

needs_library = pytest.mark.skipif(kernels.library() is None, reason=f"the kernel library: {kernels.status()}")
pytestmark = [pytest.mark.backend("megengine"), needs_library]

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


@pytest.mark.parametrize("layout", ["first", "last", "transposed"])
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients_by_the_kernel(name: str, dtype: str, layout: str) -> None:
    """Against the reference in float64, from the values that the dtype stores."""
    from acon_megengine.modules import move_axis

    call, node, shapes = CALLS[name]
    leaves = tensors(shapes, dtype)
    constants = [LAMBDAS, INIT_V] if call == "lines" else []
    result = reference.forward(node, {}, [*map(numbers, leaves), *map(np.array, constants)])

    def moved(*arguments: Any) -> Any:
        if layout == "first":
            return function(call)(*arguments)
        x = arguments[0]
        alike = [each._tuple_shape == x._tuple_shape for each in arguments]
        last = [move_axis(each, 1, -1) if like else each for each, like in zip(arguments, alike, strict=True)]
        if layout == "last":
            last[0] = (last[0] + 0.0).astype(x.dtype)
        return move_axis(function(call, -1)(*last), -1, 1)

    before = Plan.runs
    y, *found = value_and_gradients(moved, leaves)
    assert Plan.runs == before + 2
    assert y.dtype == leaves[0].dtype

    expected = result.vjp((numbers(cosines(y)),))
    of_x, of_gates = BOUNDS[dtype]
    assert scaled_error(numbers(y), result.values[0], abs(result.values[0]).max()) < of_x
    for leaf, gradient, exact, scale in zip(leaves, found, expected.inputs, expected.input_scales, strict=False):
        assert gradient.dtype == leaf.dtype
        assert gradient._tuple_shape == leaf._tuple_shape
        error = (np.abs(numbers(gradient) - exact) - TINY[dtype]) / np.maximum(scale, 1e-30)
        assert error.max() < (of_x if leaf.dtype == y.dtype else of_gates)


@pytest.mark.parametrize("name", CALLS)
def test_the_formula_agrees_at_kinks_and_ties(name: str) -> None:
    """At whole numbers; those of the two arguments of maximum are often equal."""
    import megengine.functional as F

    call, _, shapes = CALLS[name]
    x, *others = tensors(shapes)
    arguments = [F.round(x), *(F.round(2.0 * each) if call == "maximum" else each for each in others)]
    before = Plan.runs
    found = value_and_gradients(function(call), arguments)
    assert Plan.runs == before + 2
    assert_close(found, by_formula(function(call), arguments), 3e-6)


CALLS_IN_A_ROW = 1000
ACON = [IMAGE, (1, 5, 1, 1), (1, 5, 1, 1), BATCH]


def acon(*arguments: Any) -> Any:
    from acon_megengine import functional

    return functional.acon(*arguments)


def test_gates_in_16_bits_are_read_in_float32() -> None:
    x, *gates = tensors(ACON)
    halves = [gate.astype("float16") for gate in gates]
    expected = by_formula(acon, [x, *(half.astype("float32") for half in halves)])
    before = Plan.runs
    found = value_and_gradients(acon, [x, *halves])
    assert Plan.runs == before + 2
    assert_close(found[:2], expected[:2])
    assert_close(found[2:], expected[2:], 2**-11)
    assert {each.dtype.name for each in found[2:]} == {"float16"}


def test_views_are_read_in_their_order() -> None:
    """Parts, transposed and expanded tensors share memory with others: x, gates and g."""
    import megengine.functional as F

    def views(x: Any, p1: Any, p2: Any, beta: Any) -> Any:
        wide = F.transpose(F.concat([x, 2.0 * x], 3)[..., 1::2], (0, 1, 3, 2))
        beta = F.broadcast_to(F.transpose(beta, (0, 2, 3, 1)), BOTH)
        return F.transpose(acon(wide, p1, p2, beta), (1, 0, 3, 2))[1:, ::2] * 1.0

    leaves = tensors(ACON)
    expected = by_formula(views, leaves)
    before = Plan.runs
    found = value_and_gradients(views, leaves)
    assert Plan.runs == before + 2
    assert_close(found[:4], expected[:4])  # MegEngine's own gradient of broadcast_to is not exact


def test_no_gradients_one_run() -> None:
    leaves = tensors(ACON)
    before = Plan.runs
    assert_close([acon(*leaves)], [published(*leaves)])
    assert Plan.runs == before + 1


@pytest.mark.parametrize("shape", [(1, 1), IMAGE, (3, 5, 40, 70)])
def test_results_are_written_in_place(shape: Shape) -> None:
    """Their memory is not copied, and belongs to them alone."""
    from acon_megengine import kernels as own

    x, *gates = tensors([shape, ONE, ONE, ONE])
    plan = own.find("acon", 1, x, gates)
    assert plan is not None
    written = []

    class Recorded:
        like_x, gate_dtype = plan.like_x, plan.gate_dtype

        @staticmethod
        def run(at_x: int, at_gates: list[int], out: int, *others: Any) -> None:
            written.append(out)
            plan.run(at_x, at_gates, out, *others)

    def address(tensor: Any) -> int:
        return np.from_dlpack(Capsule(tensor)).ctypes.data

    class Capsule:
        def __init__(self, tensor: Any) -> None:
            self.tensor = tensor

        def __dlpack__(self) -> Any:
            return self.tensor.__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    first, second = (own._run(Recorded, None, x, *gates)[0] for _ in range(2))
    assert written == [address(first), address(second)]
    assert len({*written, address(x)}) == 3


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 2, 2), (2, 5, 3, 7), (4, 16, 17, 17)])
def test_many_calls_between_other_operations(shape: Shape) -> None:
    """Nobody reads, writes or frees memory too early: operations pend before and after each call.

    Results are read at the end only. Each call is given values that the one before was not.
    """
    import megengine as mge
    import megengine.functional as F

    random = np.random.default_rng(sum(shape))
    gate = (1, shape[1], 1, 1)
    draws = [random.normal(size=(7, *each)).astype(np.float32) for each in (shape, gate, gate, gate)]

    def twice(x: Any, *gates: Any) -> Any:
        y = acon(x + 0.5, *gates)
        return acon(F.abs(y) * 2.0 + y, *gates) * 3.0

    def step(index: int) -> list[Any]:
        return [mge.Tensor(draw[index % 7]) for draw in draws]

    expected = [[numbers(each) for each in by_formula(twice, step(index))] for index in range(7)]
    before, found = Plan.runs, []
    for index in range(CALLS_IN_A_ROW // 4):
        found.append(value_and_gradients(twice, step(index)))
        for _ in range(3):  # take the memory that was freed
            F.relu(F.ones(shape) + float(index))
    assert Plan.runs == before + 4 * len(found)
    for index, results in enumerate(found):
        for one, other in zip(results, expected[index % 7], strict=True):
            assert scaled_error(numbers(one), other, abs(other).max()) < 1e-5
    assert (F.ones((2,)) + 1.0).numpy().tolist() == [2.0, 2.0]  # constants that others share


@pytest.mark.parametrize("level", [0, 1])
def test_level_of_asynchrony(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import megengine as mge

    before, runs = mge.config.async_level, Plan.runs
    mge.config.async_level = level
    try:
        leaves = tensors(ACON)
        assert_close(value_and_gradients(acon, leaves), by_formula(acon, leaves))
    finally:
        mge.config.async_level = before
    assert Plan.runs == runs + 2


@pytest.mark.parametrize(("device", "threads"), [("cpu0", 1), ("multithread2:0", 2)])
def test_other_devices_of_the_cpu(device: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are on the device of x. A device with threads has the library use as many."""
    from acon_megengine import kernels as own

    used, run = [], Plan.run
    monkeypatch.setattr(Plan, "run", lambda plan, *arguments: (used.append(arguments[5:]), run(plan, *arguments)))
    leaves = tensors([(6, 5, 60, 70), (1, 5, 1, 1), (1, 5, 1, 1), (6, 1, 1, 1)])
    expected = by_formula(acon, leaves)
    found = value_and_gradients(acon, [each.to(device) for each in leaves])
    assert used == [(threads, own._parallel() if threads > 1 else None)] * 2
    assert {str(each.device).split(":")[0] for each in found} == {device.split(":")[0]}
    assert_close([each.to(leaves[0].device) for each in found], expected, 2e-6)


@pytest.mark.parametrize("symbolic", [False, True])
def test_traces_take_the_formula(symbolic: bool) -> None:
    from megengine.jit import trace

    leaves = tensors(ACON)
    expected = value_and_gradients(acon, leaves)
    traced = trace(lambda *arguments: value_and_gradients(acon, list(arguments)), symbolic=symbolic)
    before = Plan.runs
    for _ in range(3):
        assert_close(traced(*leaves), expected)
    assert Plan.runs == before


def test_a_dump_holds_the_formula(tmp_path: Any) -> None:
    from megengine.jit import trace
    from megengine.utils.comp_graph_tools import GraphInference

    leaves = tensors(ACON)
    expected = acon(*leaves)
    before = Plan.runs
    traced = trace(lambda x: acon(x, *leaves[1:]), symbolic=True, capture_as_const=True)
    traced(leaves[0])
    traced.dump(str(tmp_path / "a.mge"), arg_names=["x"], optimize_for_inference=False)
    assert Plan.runs == before
    (found,) = GraphInference(str(tmp_path / "a.mge")).run(leaves[0].numpy()).values()
    assert scaled_error(found, expected.numpy(), 1.0) < 1e-6


@pytest.mark.parametrize("name", ["acon per sample", "prelu", "arelu", "repact", "two lines", "maximum"])
def test_second_derivatives_are_those_of_the_formula(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two grad managers at work; equal to those without the library, to the last bit."""
    from acon_megengine import kernels as own
    from megengine.autodiff import GradManager

    call, _, shapes = CALLS[name]
    leaves = tensors(shapes)

    def second() -> list[np.ndarray]:
        with GradManager().attach(leaves) as outer:
            with GradManager().attach(leaves) as inner:
                y = function(call)(*leaves)
                inner.backward((y * y).sum())
            total = sum((each.grad * each.grad).sum() for each in leaves)
            for each in leaves:
                each.grad = None
            outer.backward(total)
        found = [each.grad.numpy() for each in leaves]
        for each in leaves:
            each.grad = None
        return found

    before = Plan.runs
    found = second()
    assert Plan.runs == before
    monkeypatch.setattr(own, "usable", lambda: False)
    for one, other in zip(found, second(), strict=True):
        assert np.abs(other).max() > 0
        np.testing.assert_array_equal(one, other)


def test_a_second_manager_that_comes_later() -> None:
    """The value is the kernel's, the gradient the formula's: its own gradient is asked for."""
    from megengine.autodiff import GradManager

    leaves = tensors(ACON)
    expected = by_formula(acon, leaves)
    before = Plan.runs
    with GradManager().attach(leaves) as manager:
        y = acon(*leaves)
        with GradManager():
            manager.backward(y, cosines(y))
    assert Plan.runs == before + 1
    assert_close([y, *(each.grad for each in leaves)], expected)


def test_memory_that_may_be_dropped_is_not_written() -> None:
    """DTR frees a tensor's memory and runs the operation that made it again."""
    import megengine as mge

    leaves = tensors(ACON)
    mge.dtr.enable()
    try:
        found = refused(acon, leaves)
    finally:
        mge.dtr.disable()
    assert_close(found, by_formula(acon, leaves))


def test_calls_that_the_library_does_not_serve_take_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """No values, one axis, two gates as large as x, dtypes that differ, another format, a GPU."""
    import megengine as mge
    from acon_megengine import functional as f
    from acon_megengine import kernels as own

    x, *gates = tensors(ACON)
    one = mge.Tensor([0.5])
    before = Plan.runs
    assert acon(x[:0], one, one, one)._tuple_shape == (0, 5, 4, 7)
    np.testing.assert_array_equal(f.maximum(x[0, 0, 0], -x[0, 0, 0]).numpy(), np.abs(x[0, 0, 0].numpy()))
    np.testing.assert_array_equal(f.maximum(x, x[:1]).numpy(), np.maximum(x.numpy(), x[:1].numpy()))
    assert_close([acon(x, x, 0.5 * x, one)], [published(x, x, 0.5 * x, one)])
    half = x.astype("float16")
    assert_close([acon(half, 1.0, 0.0, x)], [published(half.astype("float32"), 1.0, 0.0, x)], 2**-11)
    other = mge.Tensor(x.numpy(), format="nhwc")
    assert acon(other, one, one, one).format == "nhwc"
    assert Plan.runs == before
    with pytest.raises(RuntimeError, match="comp_node"):
        acon(x, one.to("cpu1"), one, one)
    assert Plan.runs == before
    monkeypatch.setattr(own, "_threads", lambda device: 0)  # as of a GPU
    assert_close(refused(acon, [x, *gates]), by_formula(acon, [x, *gates]))


CODE = """
import numpy as np, megengine as mge
from megengine.autodiff import GradManager
from acon_core import kernels
from acon_megengine import acon
x = mge.Tensor(np.linspace(-3, 4, 30, dtype="float32").reshape(2, 5, 3))
gates = [mge.Tensor([each]) for each in (1.25, -0.5, 2.0)]
with GradManager().attach([x, *gates]) as manager:
    y = acon(x, *gates)
    manager.backward(y, x * x + 0.25)
found = [y, x.grad, *(each.grad for each in gates)]
"""


def test_without_the_library_everything_is_the_formula() -> None:
    """With ACON_KERNELS=0, which is read once, in a process of its own: to the last bit."""
    from acon_megengine import kernels as own

    here: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "usable", lambda: False)
        exec(CODE, here)
    before = Plan.runs
    exec(CODE, by_kernel := {})
    assert Plan.runs == before + 2
    assert_close(by_kernel["found"], here["found"])

    report = CODE + "print(kernels.Plan.runs, [each.numpy().tobytes().hex() for each in found])"
    environment = {**os.environ, "ACON_KERNELS": "0"}
    done = subprocess.run([sys.executable, "-c", report], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == f"0 {[each.numpy().tobytes().hex() for each in here['found']]}"
