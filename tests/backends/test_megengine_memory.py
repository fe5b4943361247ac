"""The kernel library in MegEngine's memory. MegEngine computes asynchronously, the library at once.

The tests are about who waits for whom, whose memory is written, and when it is freed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from megengine_calls import (
    ACON,
    BOTH,
    IMAGE,
    ONE,
    Shape,
    acon,
    assert_close,
    by_formula,
    numbers,
    refused,
    tensors,
    value_and_gradients,
)

from acon_core import kernels
from acon_core.kernels import Plan
from acon_core.numerics import scaled_error

needs_library = pytest.mark.skipif(kernels.library() is None, reason=f"the kernel library: {kernels.status()}")
pytestmark = [pytest.mark.backend("megengine"), needs_library]

CALLS_IN_A_ROW = 1000


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
