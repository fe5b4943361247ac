"""Thirty training steps with the framework's own optimizer, compared with float64."""

from __future__ import annotations

import pytest

from acon_core.backends import Backend
from acon_core.conformance import curves


@pytest.mark.slow
@pytest.mark.parametrize("run", curves.RUNS, ids=lambda run: run.name)
def test_losses_against_float64(backend: Backend, run: curves.Run) -> None:
    exact = curves.stored()[run.name]
    losses = curves.train(backend, run)
    found = curves.divergence(losses, exact)
    assert all(each <= bound for each, bound in zip(found, run.bounds, strict=True)), (found, run.bounds)
