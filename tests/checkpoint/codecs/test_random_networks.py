"""Random networks survive every format bit for bit, and frameworks compute with the files."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import numpy as np
import pytest
from checkpoint_samples import assert_same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import FLOATS, INPUT, any_name, any_state, network, plain_name, trained_state

from acon_core import reference
from acon_core.backends import Backend
from acon_core.checkpoint.formats import format_named, formats
from acon_core.conformance.tolerances import TOLERANCES
from acon_core.spec import named_params

EXAMPLES = int(os.environ.get("ACON_RANDOM_NETWORKS", "300"))
SAMPLE = 25
READ_ONLY = {"orbax"}
# What each format has no place for.
WITHOUT = {"megengine": ("bfloat16", "float64"), "npz": ("bfloat16",)}


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False), seed=st.integers(0, 1 << 32))
def test_round_trip(tmp_path: Path, random: Random, seed: int) -> None:
    node = network(random, any_name)
    for name, format in formats().items():
        if name in READ_ONLY:
            continue
        kinds = tuple(kind for kind in FLOATS if kind not in WITHOUT.get(name, ()))
        expected = any_state(node, seed, kinds)
        format.codec.write(tmp_path / "a", format.layout.to_native(node, expected), {})
        found, made = format.layout.to_canonical(node, format.codec.read(tmp_path / "a").tensors)
        assert {named_params(node)[path].kind for path in made} <= {"counter", "derived"}
        for path in made:
            if named_params(node)[path].kind == "counter":
                expected[path] = np.zeros((), np.int64)
        assert_same(found, expected)


@pytest.mark.parametrize("seed", range(SAMPLE))
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.backend(name)) for name in ("torch", "jax", "paddle", "megengine")]
)
def test_framework_output(tmp_path: Path, backend: Backend, name: str, seed: int) -> None:
    node = network(Random(seed), plain_name)
    state = trained_state(node, seed)
    image = np.random.default_rng(seed).normal(0.3, 1, INPUT).astype(np.float32)
    format = format_named(name)
    format.codec.write(tmp_path / "a", format.layout.to_native(node, state), {})
    model = backend.build(node)
    model.load_file(tmp_path / "a")
    (expected,) = reference.forward(node, state, [image.astype(np.float64)], False).values
    error = np.abs(model(image).y.astype(np.float64) - expected).max() / np.abs(expected).max()
    assert error <= TOLERANCES["network", "y", "float32"].bound
