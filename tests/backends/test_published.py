"""The published checkpoints, converted for every backend: logits, counts, initial values."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import pytest
from repository import DATA

from acon_core import backends, spec
from acon_core.backends import Backend
from acon_core.checkpoint import convert, read_network
from acon_core.networks import NETWORKS, create, keeps_activations

CHECKPOINT = DATA / "shufflenetv2_acon_0.5x.pth.tar"


@pytest.fixture(scope="module", params=["shufflenetv2_acon_0.5x", "tfnet_0.5"])
def published(request: pytest.FixtureRequest) -> Path:
    """Return the path of a published checkpoint; the logits of the published code lie beside it."""
    return DATA / f"{request.param}.pth.tar"


@pytest.fixture(scope="module")
def converted(backend: Backend, published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("converted") / "checkpoint"
    convert(published, path, backend.name)
    return path


def test_run_gives_the_published_logits(backend: Backend, published: Path, converted: Path, tmp_path: Path) -> None:
    arguments = [str(converted), "--input", str(DATA / "photos_bgr_224.npz"), "--output", str(tmp_path / "y.npz")]
    command = [sys.executable, "-m", "acon_core.cli", "run", *arguments, "--backend", backend.name]
    done = run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    logits = DATA / published.name.replace(".pth.tar", ".out.npz")
    with np.load(tmp_path / "y.npz") as found, np.load(logits) as expected:
        assert found["logits"].dtype == np.float32
        difference = np.abs(found["logits"].astype(np.float64) - expected["logits"]).max()
        assert difference <= 5e-6 * np.abs(expected["logits"]).max()


def test_native_loader_gives_the_same_bits(backend: Backend, published: Path, converted: Path) -> None:
    checkpoint = read_network(published)
    model = backend.build(checkpoint.network.graph, seed=None)
    model.load_file(converted)
    kept = {path for path, param in spec.named_params(checkpoint.network.graph).items() if not param.integer}
    for path, array in model.state().items():
        if path in kept or backend.name == "torch":
            np.testing.assert_array_equal(array, checkpoint.state[path], err_msg=path)


def test_load_from_every_framework(backend: Backend, tmp_path: Path) -> None:
    package = __import__(backends.packages()[backend.name])
    for format in ("torch", "megengine", "paddle", "jax", "safetensors"):
        convert(CHECKPOINT, tmp_path / format, format)
        assert package.load(tmp_path / format) is not None


def trainable(backend: Backend, native: Any) -> list[int]:
    """Return the sizes of the parameters that the framework's module reports as trainable."""
    if backend.name == "jax":
        import jax
        from flax import nnx

        return [leaf.size for leaf in jax.tree.leaves(nnx.state(native, nnx.Param))]
    return [math.prod(parameter.shape) for parameter in native.parameters()]


# In addition to the published activations: every kind of state that an activation can add.
OTHERS = [("acon/shufflenet_v2_x0_5", "meta_acon"), ("acon/resnet50", "meta_acon"), ("acon/dcn", "meta_acon")]
OTHERS += [("repact/mobilenet_v3_small", act) for act in ("repact_3", "dyrelu", "frelu", "prelu", "arelu")]


@pytest.mark.parametrize(("name", "act"), [*((name, None) for name in NETWORKS if not keeps_activations(name)), *OTHERS])
def test_native_parameter_count(backend: Backend, name: str, act: str | None) -> None:
    graph = create(name, act).graph
    counts = spec.count(graph)
    native = backend.build(graph, seed=None).native
    sizes = trainable(backend, native)
    weights = [param for param in spec.named_params(graph).values() if param.kind == "weight"]
    assert (sum(sizes), len(sizes)) == (counts.parameters, len(weights))
    if backend.name == "torch":  # its state is the published one, with counters and indices
        assert len(native.state_dict()) == counts.state_keys


@pytest.mark.parametrize("size", [(448, 448), (192, 192), (64, 97)])
def test_any_input_size(backend: Backend, size: tuple[int, int]) -> None:
    model = backend.build(create("acon/shufflenet_v2_x0_5", num_classes=7, repeats=(2, 1, 1)).graph)
    assert model(np.zeros((2, 3, *size), np.float32)).y.shape == (2, 7)


def test_initial_values_match_the_spec(backend: Backend) -> None:
    graph = create("acon/shufflenet_v2_x0_5", "meta_acon").graph
    expected = spec.initial_state(graph, seed=11)
    for path, array in backend.build(graph, seed=11).state().items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)
