"""The kernel library against the NumPy reference: functions, dtypes, layouts, widths, threads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import DTYPES, GATES, LIKE_X, Case, plan, run, width

from acon_core import kernels

acon_kernels = pytest.importorskip("acon_kernels", reason="acon-kernels is not installed: the kernel library is not tested")

# The largest relative error of rounding, and an absolute one that denormals allow.
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53, "bfloat16": 2.0**-8, "float16": 2.0**-11}
SMALLEST = {"float32": 1e-45, "float64": 5e-324, "bfloat16": 1e-40, "float16": 6e-8}
SIZES = [
    (1, 1, 1), (2, 3, 5), (3, 2, 49), (1, 1, 4099), (3, 1, 1031), (2, 7, 3), (4, 50, 16), (5, 6, 64), (1, 131, 37),
    (2, 5, 2050), (1, 700, 101),
]  # fmt: skip


def check(case: Case) -> None:
    """Compare y and all gradients with the reference."""
    exact, scales = case.expected()
    found = [case.value(), *case.pull()]
    unit, of_gates = UNIT[case.dtype], UNIT["float64" if case.dtype == "float64" else "float32"]
    for index, (array, expected, scale) in enumerate(zip(found, exact, scales, strict=True)):
        stored = unit if index < 2 or case.covers[index - 2] == LIKE_X else of_gates
        computed = 8 * of_gates * scale
        rounding = 0.0 if stored == of_gates else stored * np.abs(expected) * 1.01
        bound = computed + rounding + SMALLEST[case.dtype] * (index + 1)
        name = ["y", "dx", *(f"gate {k}" for k in range(4))][index]
        worst = np.max(np.abs(np.asarray(array, np.float64) - expected) - bound)
        assert worst <= 0, f"{case.function} {case.dtype} {case.sizes} {case.covers}: {name} is {worst:.3g} beyond its bound"


def cover_patterns(count: int) -> list[tuple[int, ...]]:
    """Return equal covers for all gates, gates that differ, and a last gate like x."""
    equal = [(cover,) * count for cover in range(8)]
    mixed = [tuple((3 * k + shift) % 8 for k in range(count)) for shift in range(0, 8, 3)]
    like_x = [(*(cover,) * (count - 1), LIKE_X) for cover in (0, 2, 4, 5)]
    return equal + mixed + like_x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", GATES)
def test_every_layout_equals_the_reference(function: str, dtype: str) -> None:
    for number, (sizes, covers) in enumerate(product(SIZES, cover_patterns(GATES[function]))):
        if number % 4 == 0 or dtype == "float32":
            check(Case(function, dtype, sizes, covers, seed=number))


@given(
    st.sampled_from(list(GATES)),
    st.sampled_from(list(DTYPES)),
    st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 70)),
    st.lists(st.integers(0, 7), min_size=4, max_size=4),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_random_sizes_and_covers_equal_the_reference(
    function: str, dtype: str, sizes: tuple[int, ...], covers: list[int], like_x: bool
) -> None:
    chosen = covers[: GATES[function]]
    check(Case(function, dtype, sizes, [*chosen[:-1], LIKE_X] if like_x else chosen))


@pytest.mark.parametrize("function", GATES)
def test_sizes_of_zero(function: str) -> None:
    for sizes, cover in product([(0, 3, 5), (2, 0, 5), (2, 3, 0), (0, 0, 0)], range(8)):
        case = Case(function, "float32", sizes, (cover,) * GATES[function])
        assert case.value().size == 0
        assert not any(array.any() for array in case.pull()[1:])


def test_what_is_not_asked_for_is_not_written() -> None:
    case = Case("acon", "float32", (2, 5, 77), (2, 2, LIKE_X))
    wanted = case.pull()
    for missing in range(4):
        out = [None if index == missing else np.full_like(array, np.nan) for index, array in enumerate(wanted)]
        assert run(case.plan, case.x, case.gates, out[0], case.g, out[1:]) == 0
        assert all(array is None or np.array_equal(array, expected) for array, expected in zip(out, wanted, strict=True))
    assert run(case.plan, case.x, case.gates, None, case.g, [None] * 4) == 0


def test_an_absent_gate_is_zero() -> None:
    with_zero = Case("branches", "float32", (2, 5, 77), (2, 2, 2, 0))
    with_zero.gates[3][...] = 0.0
    y = np.empty_like(with_zero.x)
    assert run(with_zero.plan, with_zero.x, [*with_zero.gates[:3], None], y) == 0
    assert np.array_equal(y, with_zero.value())


@pytest.mark.parametrize(
    "arguments", [("acon", (2, 8, 2)), ("acon", (2, 9, 2)), ("maximum", (-1,)), ("acon", (2, 2, 2), (2, -1, 5))]
)
def test_refused_plans(arguments: tuple) -> None:
    function, covers, *sizes = arguments
    memory = np.zeros(200, np.float32)
    structure = plan(function, "float32", *(sizes or [(2, 5, 7)]), covers)
    assert run(structure, memory, [memory] * 3, memory.copy()) == 2
    structure = plan("acon", "float32", (2, 5, 7), (2, 2, 2))
    for field in ("function", "type"):
        setattr(structure, field, 6)
        assert run(structure, memory, [memory] * 3, memory.copy()) == 2
        setattr(structure, field, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "strides", "axis"),
    [
        ((3, 5, 7, 11), None, 1),
        ((3, 5, 7, 11), (385, 1, 55, 5), 1),  # channels last
        ((3, 77, 5), None, -1),  # tokens
        ((37, 19), None, 1),
    ],
)
def test_planned_calls_equal_the_reference(
    shape: tuple[int, ...], strides: tuple[int, ...] | None, axis: int, dtype: str
) -> None:
    """The planner and the library agree on what covers mean."""
    batch, channels = shape[0], shape[axis]
    rank = [1] * (len(shape) - 2)
    for gates in product([(channels,), (batch, channels, *rank), (1,)], repeat=3):
        planned = kernels.plan("acon", dtype, shape, gates, axis, strides)
        assert planned is not None
        case = Case("acon", dtype, list(planned.structure.sizes), list(planned.structure.covers)[:3])
        assert [gate.size for gate in case.gates] == [int(np.prod(gate)) for gate in gates]
        check(case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", GATES)
def test_results_do_not_depend_on_the_number_of_threads(function: str, dtype: str) -> None:
    count = GATES[function]
    for sizes, covers in [
        ((3, 41, 1031), (2,) * count),
        ((1, 1500, 97), (4,) * count),
        ((1, 1, 70001), (0,) * (count - 1) + (LIKE_X,)),
    ]:
        case = Case(function, dtype, sizes, covers)
        one = [case.value(), *case.pull()]
        for threads in (2, 7):
            for first, other in zip(one, [case.value(threads), *case.pull(threads)], strict=True):
                assert first.tobytes() == other.tobytes()


# Values of x beside gates of ordinary size. -1e30 and the like make z of 3e38 with a beta of 1e8.
SPECIAL = [0.0, -0.0, 1e-45, -1e-45, 1e-39, -1e-39, 1e-20, -3.0, 3.0, 0.5, -0.5, 20.0, -20.0, 87.0, -87.0, 104.0, -104.0, 1e4,
           -1e4, 1e30, -1e30, 3e38, -3e38, np.inf, -np.inf, np.nan]  # fmt: skip
SPECIAL_GATES = {
    "acon": [(1.2, -0.7, 0.9), (1.0, 0.0, 1.0), (0.3, 0.3, 1.0), (1.0, 0.0, 1e8), (2.0, 0.5, -1.0), (1.0, 0.0, 0.0)],
    "slopes": [(1.0, 0.25), (0.5, -0.25)],
    "attention_slopes": [(0.25, 0.7), (-1.0, -90.0), (0.01, 100.0), (0.99, 0.5), (1.5, 0.0)],
    "branches": [(0.5, 0.25, 0.75, 0.1), (0.0, 0.0, 1.0, 0.0)],
    "two_lines": [(1.0, 0.5, 0.0, 0.25), (1.0, 1.0, 0.0, 0.0), (2.0, -0.5, 0.0, 0.0)],
    "maximum": [(0.0,), (-0.0,), (3.0,), (-np.inf,), (np.inf,), (np.nan,)],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", GATES)
def test_special_values_equal_the_reference(function: str, dtype: str) -> None:
    """Denormals, zeros with their sign, infinities and NaN."""
    covers = (0,) * (GATES[function] - 1) + ((7,) if function == "maximum" else (0,))
    for values in SPECIAL_GATES[function]:
        case = Case(function, dtype, (1, 1, len(SPECIAL)), covers)
        case.x[...], case.g[...] = SPECIAL, 1.0
        for gate, value in zip(case.gates, values, strict=True):
            gate[...] = value
        exact, _ = case.expected()
        with np.errstate(all="ignore"):
            expected = [array.astype(case.x.dtype) for array in exact[:2]]
        for name, found, right in zip(("y", "dx"), (case.value(), case.pull()[0]), expected, strict=True):
            for x, a, b in zip(SPECIAL, found.ravel(), right.ravel(), strict=True):
                message = f"{function}{values} {dtype}: {name} at {x}: {a}, expected {b}"
                if not np.isfinite(b) or (b == 0 and abs(x) < 90):
                    assert np.array_equal(a, b, equal_nan=True), message
                else:
                    tolerance = (8 + 4 * (abs(x) if abs(x) < 1e3 else 0)) * UNIT[dtype]
                    assert abs(np.float64(a) - b) <= tolerance * abs(b) + 2 * SMALLEST[dtype] * max(1, abs(x)), message
                if b == 0 and name == "y" and function in ("slopes", "attention_slopes"):
                    assert np.signbit(a) == np.signbit(b), message


def test_a_gate_that_is_clipped_or_nan() -> None:
    case = Case("attention_slopes", "float32", (1, 5, 9), (2, 2))
    alpha = np.array([0.01, 0.99, 0.009, 0.991, np.nan], np.float32)
    case.gates[0][0, :, 0], case.x[...], case.g[...] = alpha, -1.0, 1.0
    dalpha = case.pull()[1].ravel()
    assert dalpha.tolist() == [-9.0, -9.0, 0.0, 0.0, 0.0]
    low, high = -np.float32(0.01), -np.float32(0.99)
    assert np.array_equal(case.value()[0, :, 0], [low, high, low, high, np.nan], equal_nan=True)


def all_numbers(dtype: str) -> np.ndarray:
    return np.arange(65536, dtype=np.uint32).astype(np.uint16).view(DTYPES[dtype])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_16_bit_number_is_read_as_numpy_reads_it(dtype: str) -> None:
    """The gradient of a shift that is not shared is g in float32."""
    case = Case("branches", dtype, (1, 1, 65536), (0, 0, 0, 7))
    case.g[...] = all_numbers(dtype)
    assert np.array_equal(case.pull()[4].ravel(), all_numbers(dtype).astype(np.float32), equal_nan=True)
    passed = Case("maximum", dtype, (1, 1, 65536), (0,))
    passed.x[...], passed.gates[0][...] = all_numbers(dtype), -np.inf
    numbers, bits = all_numbers(dtype), passed.value().ravel().view(np.uint16)
    ordinary = ~np.isnan(numbers.astype(np.float32))
    assert np.array_equal(bits[ordinary], numbers.view(np.uint16)[ordinary])
    assert np.isnan(passed.value().ravel().astype(np.float32)[~ordinary]).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_writing_16_bits_rounds_to_nearest_even_as_numpy_does(dtype: str) -> None:
    """Every number, the middle to the next one, and the float32 on either side of both."""
    numbers = all_numbers(dtype).astype(np.float32)
    with np.errstate(all="ignore"):
        following = (all_numbers(dtype).view(np.uint16) + np.uint16(1)).view(DTYPES[dtype]).astype(np.float32)
        centres = np.concatenate([numbers, (numbers * 0.5 + following * 0.5)])
        around = [np.nextafter(centres, np.float32(way)) for way in (np.inf, -np.inf)]
        extremes = np.array([1e-45, -1e-45, 65519.9, 65520.0, 3.4e38, -3.4e38, 1e-30, np.nan], np.float32)
        floats = np.concatenate([centres, *around, extremes])
        expected = floats.astype(DTYPES[dtype])
    case = Case("maximum", dtype, (1, 1, floats.size), (7,))
    case.x[...], case.gates[0][...] = -np.inf, floats
    found, is_nan = case.value().ravel(), np.isnan(floats)
    assert np.array_equal(found.view(np.uint16)[~is_nan], expected.view(np.uint16)[~is_nan])
    assert np.isnan(found.astype(np.float32)[is_nan]).all()


@pytest.mark.parametrize("bytes", [16, 32, 64])
def test_every_vector_width_of_this_processor(bytes: int) -> None:
    """Run this file again with narrower vectors. This process uses the widest."""
    if bytes > width():
        pytest.skip(f"this processor has vectors of {width()} bytes")
    if bytes == width():
        return
    environment = os.environ | {"ACON_KERNELS_WIDTH": str(bytes), "PYTEST_ADDOPTS": ""}
    root = Path(__file__).parents[2]
    chosen = ["-q", "-n", "0", "-p", "no:cacheprovider", "-k", "not vector_width and not speed", "--backend", "numpy", __file__]
    code = f"import pytest, sys; from kernel_calls import width; assert width() == {bytes}; sys.exit(pytest.main({chosen!r}))"
    paths = [str(root / "tests" / "helpers"), str(root / "backends"), str(root), environment.get("PYTHONPATH", "")]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment | {"PYTHONPATH": os.pathsep.join(paths)},
                         capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]


def test_loading_the_library_keeps_denormals() -> None:
    """Code compiled with -ffast-math turns them off in the whole process when it is loaded."""
    code = (
        "import ctypes, acon_kernels; small = float('5e-324'); ctypes.CDLL(str(acon_kernels.library))\n"
        "assert small * 1.0 == small != 0.0 and float('1e-310') / 2.0 > 0.0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_the_entry_points_are_exported() -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm is not installed")
    lines = subprocess.run(
        [nm, "-D", "--defined-only", str(acon_kernels.library)], check=True, capture_output=True, text=True
    ).stdout
    assert {line.split()[-1] for line in lines.splitlines()} <= {"acon_apply", "acon_xla"}


def test_speed_of_acon_is_that_of_vectors() -> None:
    """A loop that lost its vectors takes ten times as long; slopes, without exp, do not."""
    times = {}
    for function in ("acon", "slopes"):
        case = Case(function, "float32", (1, 64, 1024), (2,) * GATES[function])
        out = [np.empty_like(array) for array in (case.x, *case.gates)]
        for backward in (False, True):
            measured = []
            for _ in range(30):
                start = time.thread_time()
                for _ in range(4):
                    run(case.plan, case.x, case.gates, out[0], case.g if backward else None, out[1:])
                measured.append(time.thread_time() - start)
            times[function, backward] = min(measured)
    for backward in (False, True):
        assert times["acon", backward] < 8 * times["slopes", backward]


@pytest.mark.skipif("ACON_KERNELS_HUGE" not in os.environ, reason="takes 17 GiB of memory; ACON_KERNELS_HUGE=1 runs it")
def test_more_elements_than_32_bits_count() -> None:
    elements = 2**31 + 37
    x = np.zeros(elements, DTYPES["bfloat16"])
    x[-37:] = np.arange(37)
    y, g, dx = np.empty_like(x), x, np.empty_like(x)
    gates = [np.array([value], np.float32) for value in (1.0, 0.0, 1.0)]
    dgates = [np.empty(1, np.float32) for _ in gates]
    structure = plan("acon", "bfloat16", (1, 1, elements), (0, 0, 0))
    assert run(structure, x, gates, y, threads=2) == 0
    assert run(structure, x, gates, dx, g, dgates, threads=2) == 0
    small = Case("acon", "bfloat16", (1, 1, 37), (0, 0, 0))
    small.x[...] = small.g[...] = np.arange(37)
    for gate, value in zip(small.gates, gates, strict=True):
        gate[...] = value
    assert np.array_equal(small.value().ravel(), y[-37:])
    assert not y[:-37].any()
    for found, expected in zip([dx[-37:], *dgates], small.pull(), strict=True):
        assert np.allclose(np.asarray(found, np.float64), expected.astype(np.float64).ravel(), rtol=1e-6)
