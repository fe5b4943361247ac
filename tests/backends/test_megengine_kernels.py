"""The kernel library under MegEngine: where it is the path taken, where not, and its results."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from megengine_calls import (
    ACON,
    BOUNDS,
    CALLS,
    INIT_V,
    LAMBDAS,
    TINY,
    acon,
    assert_close,
    by_formula,
    cosines,
    function,
    numbers,
    published,
    refused,
    tensors,
    value_and_gradients,
)

from acon_core import kernels, reference
from acon_core.kernels import Plan
from acon_core.numerics import scaled_error

needs_library = pytest.mark.skipif(kernels.library() is None, reason=f"the kernel library: {kernels.status()}")
pytestmark = [pytest.mark.backend("megengine"), needs_library]


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


def test_no_gradients_one_run() -> None:
    leaves = tensors(ACON)
    before = Plan.runs
    assert_close([acon(*leaves)], [published(*leaves)])
    assert Plan.runs == before + 1


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
