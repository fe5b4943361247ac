"""Select the backend under test with `--backend NAME`. It is an error if it cannot be imported."""

from __future__ import annotations

import os

import pytest

from acon_core import backends
from acon_core.backends import Backend


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", choices=list(backends.packages()), help="the backend that this environment has")


def pytest_configure() -> None:
    """Pin each worker of pytest-xdist to one core if there are as many workers as cores.

    Otherwise the thread pools of frameworks and compilers compete for all cores, which costs 10 %
    of the time.
    """
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if workers >= len(cores):
            os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.fixture(scope="session")
def backend(pytestconfig: pytest.Config) -> Backend:
    """Import the backend under test."""
    name = pytestconfig.getoption("--backend")
    if name is None:
        raise pytest.UsageError("--backend NAME says which backend is tested here")
    return backends.get(name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of other environments, and run slow tests first.

    A test that is marked with a backend runs only in the environment of that backend. The tests of
    checkpoints need no framework and run only in the core environment. Slow tests come first, so
    that none starts when the other worker has nothing left.
    """
    chosen = config.getoption("--backend")
    here, elsewhere = [], []
    for item in items:
        mark = item.get_closest_marker("backend")
        wanted = mark.args[0] if mark else None
        free = wanted is None and "checkpoint" in item.path.parts
        (elsewhere if (wanted not in (None, chosen)) or (free and chosen != "numpy") else here).append(item)
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
    items[:] = sorted(here, key=lambda item: item.get_closest_marker("slow") is None)
