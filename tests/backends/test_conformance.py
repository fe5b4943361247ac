"""The conformance cases, one test each: eager in every dtype, compiled where a case asks for it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from acon_core.backends import Backend
from acon_core.conformance.cases import Case, load_cases
from acon_core.conformance.golden import Golden, of_cases
from acon_core.conformance.runner import run_case

CASES = load_cases()


@pytest.fixture(scope="session")
def goldens() -> Callable[[Case], Golden]:
    """Load golden numbers case by case, once: the reference needs seconds for a training step."""
    return functools.cache(lambda case: of_cases([case])[case.name])


def check_case(backend: Backend, case: Case, goldens: Callable[[Case], Golden], dtype: str, compiled: bool) -> None:
    """Pass or fail. Report a waiver as xfailed and an unsupported dtype as skipped."""
    golden = goldens(case) if dtype in backend.dtypes else {}  # the golden numbers of a network take seconds
    result = run_case(backend, case, golden, dtype, compiled)
    if result.status == "unsupported":
        assert dtype not in backend.dtypes, result.message
        pytest.skip(f"unsupported: {result.message}")
    if result.status == "waived":
        pytest.xfail(f"waived: {result.message}")
    assert result.status == "pass", result.message


@pytest.mark.parametrize(
    ("case", "dtype"), [(c, dtype) for c in CASES for dtype in c.dtypes], ids=lambda v: getattr(v, "name", v)
)
def test_eager(backend: Backend, goldens: Callable[[Case], Golden], case: Case, dtype: str) -> None:
    check_case(backend, case, goldens, dtype, compiled=False)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in reversed(CASES) if case.compiled], ids=lambda case: case.name)
def test_compiled(backend: Backend, goldens: Callable[[Case], Golden], case: Case) -> None:
    check_case(backend, case, goldens, "float32", compiled=True)
