"""Errors of ACON-C against exact values, element by element, in seven regions."""

from __future__ import annotations

import pytest
from activation_accuracy import BOUNDS, REGIONS, measure, reduced

from acon_core.backends import Backend


@pytest.mark.parametrize("region", REGIONS)
def test_elementwise_errors_within_bounds(backend: Backend, region: str) -> None:
    for quantity, error in measure(backend, region).items():
        assert error <= BOUNDS[quantity], quantity


def test_summed_gradients_within_bounds(backend: Backend) -> None:
    assert reduced(backend) <= BOUNDS["reduced"]
