"""Plans of calls of the kernel library: which layout they choose, and which calls they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_core import kernels
from acon_core.errors import SpecError
from acon_core.verification.verify import has_framework


def sizes_and_covers(*arguments: Any, **options: Any) -> tuple[list[int], list[int]]:
    found = kernels.geometry(*arguments, **options)
    assert found is not None
    return list(found.structure.sizes), list(found.structure.covers)[: len(found.constants)]


X = (2, 5, 3, 4)
PER_CHANNEL, PER_SAMPLE, BOTH = (1, 5, 1, 1), (2, 1, 1, 1), (2, 5, 1, 1)


@pytest.mark.parametrize(
    ("gates", "sizes", "covers"),
    [
        ((PER_CHANNEL, (5,), PER_CHANNEL), [2, 5, 12], [2, 2, 2]),
        (((1,), 1.0, 0.5), [1, 1, 120], [0, 0, 0]),
        ((BOTH, BOTH, BOTH), [1, 10, 12], [2, 2, 2]),
        ((PER_CHANNEL, PER_CHANNEL, BOTH), [2, 5, 12], [2, 2, 3]),
        ((PER_SAMPLE, (1,), PER_SAMPLE), [1, 2, 60], [2, 0, 2]),
        ((PER_CHANNEL, PER_CHANNEL, X), [2, 5, 12], [2, 2, 8]),
    ],
)
def test_neighbouring_sizes_with_the_same_gates_are_merged(gates: Any, sizes: list[int], covers: list[int]) -> None:
    assert sizes_and_covers("acon", "float32", X, gates, 1) == (sizes, covers)


def test_memory_order_decides_the_layout() -> None:
    channels_last = (60, 1, 20, 5)
    gates = (PER_CHANNEL, PER_CHANNEL, BOTH)
    assert sizes_and_covers("acon", "float32", X, gates, 1, strides=channels_last) == ([2, 12, 5], [4, 4, 5])
    tokens = ((5,), (5,), (5,))
    assert sizes_and_covers("acon", "float32", (2, 7, 5), tokens, -1) == ([1, 14, 5], [4, 4, 4])


@pytest.mark.parametrize(
    ("dtype", "shape", "gates", "strides"),
    [
        ("int32", X, (PER_CHANNEL,) * 3, None),
        ("float32", X, (X, PER_CHANNEL, PER_CHANNEL), None),  # only the last gate may be as large as x
        ("float32", X, (PER_CHANNEL,) * 3, (120, 24, 4, 1)),  # gaps
        ("float32", X, (BOTH,) * 3, (1, 24, 8, 2)),  # the batch lies innermost; the gates lie in another order
        ("float32", X, (PER_CHANNEL,) * 3, (0, 12, 4, 1)),  # an expanded batch
        ("float32", (5,), ((1,),) * 3, None),
    ],
)
def test_calls_that_the_library_does_not_serve(dtype: str, shape: Any, gates: Any, strides: Any) -> None:
    assert kernels.geometry("acon", dtype, shape, gates, 1 if len(shape) > 1 else 0, strides=strides) is None


def test_there_is_a_plan_of_the_library_only_with_the_library() -> None:
    arguments = ("acon", "float32", X, (PER_CHANNEL,) * 3, 1, None)
    expected = None if kernels.library() is None else kernels.geometry(*arguments)
    assert kernels.plan(*arguments) is expected
    code = f"from acon_core import kernels; print(kernels.plan(*{arguments!r}), kernels.geometry(*{arguments!r}) is None)"
    assert run_python(code, ACON_KERNELS="0") == "None False"


@pytest.mark.parametrize("gate", [(4,), (1, 1, 1)])
def test_a_gate_that_does_not_fit_is_an_error(gate: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match="expected a gate of shape"):
        kernels.geometry("acon", "float32", X, (gate, (5,), (5,)), 1)


@st.composite
def calls(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[Any, ...], int, tuple[int, ...]]:
    """Draw a shape, three gates, the channel axis and the memory order of x."""
    rank = draw(st.integers(2, 5))
    shape = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    axis = draw(st.integers(1, rank - 1))
    order = tuple(draw(st.permutations(range(rank))))
    batch, channels = shape[0], shape[axis]
    ones = (1,) * (rank - 2)
    kinds = [(1,), (channels,), (batch, channels, *ones), (1, channels, *ones), (batch, 1, *ones), 0.75]
    gates = tuple(draw(st.sampled_from([*kinds, shape] if last else kinds)) for last in (False, False, True))
    return shape, gates, axis, order


@given(call=calls())
def test_plans_describe_the_same_broadcast_as_numpy(call: Any) -> None:
    """The offset of each gate's value, by the plan, beside NumPy's broadcast of the gate."""
    shape, gates, axis, order = call
    strides = [0] * len(shape)
    step = 1
    for each in reversed(order):
        strides[each] = step
        step *= shape[each]
    found = kernels.geometry("acon", "float32", shape, gates, axis, tuple(strides))
    if found is None:
        return
    sizes = list(found.structure.sizes)
    assert np.prod(sizes) == np.prod(shape)
    for position, gate in enumerate(gates):
        cover = found.structure.covers[position]
        if not isinstance(gate, tuple):
            assert cover == 0
            continue
        if cover == 8:
            assert gate == shape
            continue
        covered = [size if cover >> index & 1 else 1 for index, size in enumerate(sizes)]
        by_plan = np.broadcast_to(np.arange(np.prod(gate)).reshape(covered), sizes).ravel()
        ranked = [1] * len(shape)
        if gate == shape:
            ranked = list(shape)
        elif np.prod(gate) != 1:
            ranked[axis] = gate[1] if len(gate) > 1 else gate[0]
            ranked[0] = gate[0] if len(gate) > 1 else 1
        by_numpy = np.broadcast_to(np.arange(np.prod(gate)).reshape(ranked), shape).transpose(order).ravel()
        np.testing.assert_array_equal(by_plan, by_numpy)


def run_python(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return result.stdout.strip()


def test_the_variable_turns_the_library_off() -> None:
    code = "from acon_core import kernels; print(kernels.library(), kernels.status())"
    assert run_python(code, ACON_KERNELS="0") == "None operations of the framework: turned off by ACON_KERNELS=0"


def test_another_interface_is_refused(tmp_path: Any) -> None:
    (tmp_path / "acon_kernels").mkdir()
    (tmp_path / "acon_kernels" / "__init__.py").write_text("INTERFACE, __version__ = 99, '9.9'\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from acon_core import kernels; print(kernels.status())"
    assert "acon-kernels 9.9 has interface 99, expected 1" in run_python(code, ACON_KERNELS="1")


def test_the_command_line_lists_the_path_of_each_backend() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "acon_core.cli", "list", "backends"], capture_output=True, text=True, check=True
    )
    lines = dict(line.split(maxsplit=1) for line in listed.stdout.splitlines())
    assert lines["numpy"] == "the reference, in NumPy"
    for name in ("torch", "jax", "paddle", "megengine"):
        installed = has_framework(name)
        assert lines[name].startswith(kernels.status() if installed else "not installed"), name
