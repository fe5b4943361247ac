"""Which backend a run is about: `--backend NAME`. One that cannot be imported is an error; nothing is skipped."""

from __future__ import annotations

import os

import pytest

from acon_core import backends
from acon_core.backends import Backend


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", choices=list(backends.packages()), help="the backend that this environment has")


def pytest_configure() -> None:
    """Where there are as many workers of pytest-xdist as cores, each keeps to its own: the pools of threads that frameworks and
    compilers start would take turns on all of them, which costs a tenth of the time."""
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if workers >= len(cores):
            os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.fixture(scope="session")
def backend(pytestconfig: pytest.Config) -> Backend:
    """The backend under test, imported."""
    name = pytestconfig.getoption("--backend")
    if name is None:
        raise pytest.UsageError("--backend NAME says which backend is tested here")
    return backends.get(name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that name a backend run in its environment alone, and are counted as deselected elsewhere; in a framework's
    environment the framework-free tests of checkpoints are deselected, since the core environment runs them. Slow tests come
    first: else one of a minute starts when the other worker has nothing left."""
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
