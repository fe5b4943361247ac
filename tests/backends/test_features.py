"""Backbones: the stages of a network are returned as a tuple, also after surgery."""

from __future__ import annotations

import numpy as np
import pytest
from native_modules import run

from acon_core import backends
from acon_core.backends import Backend
from acon_core.networks import create


@pytest.mark.parametrize("stages", [("stage2",), ("stage4", "stem")])
def test_stages_are_a_tuple_before_and_after_surgery(backend: Backend, stages: tuple[str, ...]) -> None:
    package = __import__(backends.packages()[backend.name])
    x = np.random.default_rng(0).uniform(size=(2, 3, 32, 64)).astype(np.float32)
    module = package.create("repact/mobilenet_v3_small", "repact_1", 3, features=stages)
    graph = create("repact/mobilenet_v3_small", "repact_1", 3).features(stages).graph
    shapes = [shape if backend.name != "jax" else (shape[0], *shape[2:], shape[1]) for shape in graph.out_shapes(x.shape)]
    if backend.name == "jax":
        module.eval()
    for changed in (module, package.fuse(module)):
        values = run(backend, changed, x)
        assert isinstance(values, tuple)
        assert [tuple(value.shape) for value in values] == shapes
