"""ACON-C element by element, in units of the last place: no backend may lose digits anywhere in seven regions."""

from __future__ import annotations

import pytest
from activation_accuracy import BOUNDS, REGIONS, measure, reduced

from acon_core.backends import Backend


@pytest.mark.parametrize("region", REGIONS)
def test_every_term_is_within_a_few_units_of_the_last_place(backend: Backend, region: str) -> None:
    for quantity, error in measure(backend, region).items():
        assert error <= BOUNDS[quantity], quantity


def test_summed_gradients_are_within_a_few_units_of_the_sum_of_terms(backend: Backend) -> None:
    assert reduced(backend) <= BOUNDS["reduced"]
