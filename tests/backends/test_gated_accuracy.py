"""Errors of the other gated functions against exact values, element by element."""

from __future__ import annotations

import pytest
from gated_accuracy import BOUNDS, FUNCTIONS, REGIONS, measure

from acon_core.backends import Backend


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("region", REGIONS)
def test_elementwise_errors_within_bounds(backend: Backend, name: str, region: str) -> None:
    for quantity, error in measure(backend, name, region).items():
        assert error <= BOUNDS[quantity], quantity
