"""The Triton kernels, on a GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported

from acon_torch import triton_kernels
from gated_formulas import GATES, LAYOUTS, Array, X, evaluate, gates_of

from acon_core.kernels import DTYPES, geometry

pytestmark = pytest.mark.backend("torch")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The interpreter cuts bfloat16 off instead of rounding it.
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53, "bfloat16": 2.0 ** (-8 if DEVICE == "cuda" else -7), "float16": 2.0**-11}
LEAST = {"float32": 1e-44, "float64": 1e-320, "bfloat16": 1e-38, "float16": 1e-7}


@pytest.fixture(params=[(1024, 2048), (512, 1)], ids=["one step", "small tiles, several steps"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let small arrays have several tiles, and a program several steps."""
    monkeypatch.setattr(triton_kernels, "TILE", request.param[0])
    monkeypatch.setattr(triton_kernels, "PULL_TILE", request.param[0])
    monkeypatch.setattr(triton_kernels, "ENOUGH", request.param[1])
    triton_kernels._launch.cache_clear()
    yield
    triton_kernels._launch.cache_clear()


def compute(function: str, dtype: str, x: Array, gates: list[Any], g: Array, axis: int, order: Any = None) -> Any:
    """Run the kernels on arrays that have the dtype's precision; numbers are constant gates.

    Return y, dx and dgates, and the arrays as they were rounded.
    """
    moved = x.shape if order is None else tuple(x.shape[each] for each in order)

    def dense(array: Array) -> torch.Tensor:
        """Make a tensor that lies in memory in the order of x."""
        tensor = torch.from_numpy(np.ascontiguousarray(array.transpose(order or range(array.ndim)))).to(DEVICE)
        tensor = tensor.to(getattr(torch, dtype)).reshape(moved)
        return tensor if order is None else tensor.permute(*np.argsort(order).tolist())

    like = [isinstance(gate, np.ndarray) and gate.shape == x.shape for gate in gates]
    only_channels = tuple(size if each == axis else 1 for each, size in enumerate(x.shape))
    shapes = tuple(
        gate if not isinstance(gate, np.ndarray) else (gate.size,) if gate.shape == only_channels else gate.shape
        for gate in gates
    )
    tensor, slope = dense(x), dense(g)
    plan = geometry(function, dtype, x.shape, shapes, axis, tuple(tensor.stride()))
    assert plan is not None
    wide = getattr(torch, plan.gate_dtype)
    tensors = [
        None if not isinstance(gate, np.ndarray) else dense(gate) if each else torch.from_numpy(gate).to(DEVICE, wide)
        for gate, each in zip(gates, like, strict=True)
    ]
    y, dx = torch.empty_like(tensor), torch.empty_like(tensor)
    triton_kernels.run(plan, tensor, tensors, y)
    results = []
    for _ in range(2):
        dgates = [None if each is None else torch.full_like(each, torch.nan) for each in tensors]
        triton_kernels.run(plan, tensor, tensors, dx, slope, dgates)
        results.append(dgates)
    for one, two in zip(*results, strict=True):
        assert one is None or torch.equal(one.nan_to_num(), two.nan_to_num()), "other bits in a second run"
    as_numpy = [None if each is None else each.double().cpu().numpy() for each in (tensor, slope, *tensors)]
    return y, dx, results[0], as_numpy


def check(found: torch.Tensor, expected: tuple[Array, Array], unit: float, least: float, what: str) -> None:
    value, scale = (np.broadcast_to(each, found.shape) for each in expected)
    error = np.abs(found.double().cpu().numpy() - value)
    assert (error <= unit * scale + least).all(), (what, (error / (unit * scale + least)).max())


CASES = [("float32", layout) for layout in LAYOUTS]
CASES += [(dtype, layout) for dtype in DTYPES if dtype != "float32" for layout in ("samples, channels last", "pixels")]


@pytest.mark.parametrize(("dtype", "layout"), CASES)
@pytest.mark.parametrize("function", GATES)
def test_values_and_gradients(function: str, layout: str, dtype: str, tiles: None) -> None:
    shape, axis, order, _ = LAYOUTS[layout]
    rng = np.random.default_rng(5)
    x, g = rng.normal(0, 3, shape), rng.normal(0, 1, shape)
    x.flat[:3] = 0.0, -3.0, 3.0
    gates = [rng.normal(0.3, 0.8, each) for each in gates_of(function, layout)]
    y, dx, dgates, (x, g, *gates) = compute(function, dtype, x, gates, g, axis, order)
    expected = evaluate(function, x, gates, g)
    wide = UNIT["float64" if dtype == "float64" else "float32"]
    half = UNIT[dtype] if len(dtype) > 7 or dtype == "float16" else 0.0  # the rounding of the result
    check(y, expected.y, 8 * wide + half, LEAST[dtype], "y")
    check(dx, expected.dx, 10 * wide + half, LEAST[dtype], "dx")
    for k, (found, wanted) in enumerate(zip(dgates, expected.dgates, strict=True)):
        whole = half if gates[k].shape == shape else 0.0
        check(found, wanted, 12 * wide + whole, LEAST[dtype] if whole else LEAST["float32"], f"gate {k}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("constants", [(1.0, 0.0), (0.7, -0.1)])
def test_constant_gates(dtype: str, constants: tuple[float, float]) -> None:
    rng = np.random.default_rng(6)
    x, g, beta = rng.normal(0, 3, X), rng.normal(0, 1, X), rng.normal(1, 0.5, (1, 5, 1, 1))
    y, dx, dgates, (x, g, _, _, beta) = compute("acon", dtype, x, [*constants, beta], g, 1)
    rounded = [np.array(each, dtype).astype(float).reshape(1, 1, 1, 1) for each in constants]
    expected = evaluate("acon", x, [*rounded, beta], g)
    check(y, expected.y, 8 * UNIT[dtype], 0.0, "y")
    check(dx, expected.dx, 10 * UNIT[dtype], 0.0, "dx")
    assert dgates[:2] == [None, None]
    check(dgates[2], expected.dgates[2], 12 * UNIT[dtype], 0.0, "beta")


SPECIAL = [np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-40, -1e-45, 0.0, -0.0, -87.5, -95.0, -103.0, 103.0, 1.0]


@pytest.mark.parametrize("function", GATES)
def test_special_values(function: str) -> None:
    """Infinities, NaN, the largest numbers and denormal results, element by element."""
    x = np.array(SPECIAL, np.float32).astype(float).reshape(1, -1)
    slopes: dict[str, Any] = {"acon": [1.0, 0.0, 1.0], "attention_slopes": [0.25, -1.0], "slopes": [1.5, -0.25]}
    slopes |= {"branches": [0.5, 0.25, 1.0, -0.5], "two_lines": [1.0, -0.5, 0.25, 0.5], "maximum": [0.5]}
    gates: list[Any] = [np.full((1, 1), each) for each in slopes[function]]
    y, dx, _, _ = compute(function, "float32", x, gates, np.ones_like(x), 1)
    with np.errstate(invalid="ignore", over="ignore"):
        expected = evaluate(function, x, gates, np.ones_like(x))
        for found, (value, _) in ((y, expected.y), (dx, expected.dx)):
            array = found.cpu().numpy()
            np.testing.assert_array_equal(np.isnan(array), np.isnan(value))
            np.testing.assert_allclose(array, value.astype(np.float32), rtol=2e-6, atol=1e-43)  # x times a denormal


def test_infinite_gates_beside_the_tile() -> None:
    """Elements outside the array add nothing, although an infinite gate times 0 is NaN."""
    x = np.arange(1.0, 12.0).reshape(1, 11)
    gates: list[Any] = [np.full((1, 1), 1.0), np.full((1, 1), 0.0), np.full((1, 1), np.inf)]
    _, _, dgates, _ = compute("acon", "float32", x, gates, np.ones_like(x), 1)
    assert dgates[0].item() == x.sum()


def test_parts_that_are_not_needed_and_empty_arrays() -> None:
    x = torch.linspace(-2, 2, 24, device=DEVICE).reshape(2, 3, 4)
    gate = torch.tensor([0.5, 1.0, 1.5], device=DEVICE)
    plan = geometry("slopes", "float32", (2, 3, 4), ((3,), (3,)), 1)
    assert plan is not None
    dgate = torch.empty_like(gate)
    triton_kernels.run(plan, x, (gate, gate), None, torch.ones_like(x), (None, dgate))
    np.testing.assert_allclose(dgate.cpu(), x.clamp(max=0).sum((0, 2)).cpu(), rtol=1e-6)
    empty = geometry("slopes", "float32", (0, 3, 4), ((3,), (3,)), 1)
    assert empty is not None
    triton_kernels.run(empty, x[:0], (gate, gate), None, x[:0], (None, dgate))
    assert not dgate.any()


@pytest.mark.skipif(DEVICE == "cpu", reason="four gigabytes in an interpreter")
def test_more_than_2_31_elements() -> None:
    size = 2**31 + 37
    x = torch.ones(1, size, dtype=torch.bfloat16, device=DEVICE)
    x[0, -3:] = torch.tensor([-2.0, 3.0, -4.0])
    plan = geometry("slopes", "bfloat16", (1, size), ((1,), (1,)), 1)
    assert plan is not None
    gates = [torch.full((1,), each, device=DEVICE) for each in (2.0, 0.5)]
    y = torch.empty_like(x)
    triton_kernels.run(plan, x, gates, y)
    assert y[0, -4:].tolist() == [2.0, -1.0, 6.0, -2.0]
    dgates = [torch.empty_like(gate) for gate in gates]
    triton_kernels.run(plan, x, gates, y, torch.ones_like(x), dgates)
    assert dgates[1].item() == -6.0
    assert abs(dgates[0].item() / size - 1) < 1e-6
