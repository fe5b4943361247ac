"""A user's network for `--network own_networks:small`; it imports `acon_core` only."""

from __future__ import annotations

from acon_core import spec


def small() -> spec.Graph:
    return spec.sequential(stem=spec.sequential(spec.Conv2d(3, 4, (1, 3), groups=1), spec.BatchNorm(4), spec.AconC(4)))


def square() -> spec.Graph:
    """Make a layer of which some frameworks store the transpose, of the same shape."""
    return spec.sequential(layer=spec.Linear(3, 3, bias=False))


def not_a_network() -> int:
    return 3
