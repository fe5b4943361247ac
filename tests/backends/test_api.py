"""The public interface is the same in every backend: names, signatures, defaults, rules."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from descriptors import DESCRIPTORS, FRAMEWORK_OPTIONS, SIGNATURES
from native_modules import run

from acon_core import backends, kernels, spec
from acon_core.backends import Backend
from acon_core.checkpoint import metadata
from acon_core.checkpoint.formats import format_named
from acon_core.conformance.cases import NODE_TYPES
from acon_core.errors import SpecError, StateError
from acon_core.networks import create
from acon_core.spec.primitives import Primitive

CLASSES = {each.public: each.signature for each in DESCRIPTORS.values() if each.public}


def package(backend: Backend) -> object:
    return import_module(backends.packages()[backend.name])


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(backend: Backend, name: str) -> None:
    """Names, order and defaults are equal; `channel_axis=None` means the framework's axis."""
    parameters = inspect.signature(getattr(package(backend), name)).parameters.values()
    shared = [
        p.replace(annotation=p.empty) for p in parameters if p.kind is not p.KEYWORD_ONLY or p.name not in FRAMEWORK_OPTIONS
    ]
    if name in CLASSES:
        channelwise = issubclass(getattr(spec, name), spec.ChannelwiseActivation)
        axes = [p for p in shared if p.name == "channel_axis"]
        assert [str(p) for p in axes] == (["channel_axis=None"] if channelwise else [])
        shared = [p for p in shared if p not in axes]
    assert str(inspect.Signature(shared)) == SIGNATURES[name].replace("AXIS", "-1" if backend.name == "jax" else "1")


def test_public_names_are_the_same(backend: Backend) -> None:
    own = {"torch": ["lazy"]}.get(backend.name, [])
    assert sorted(package(backend).__all__) == sorted([*SIGNATURES, *own])  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package(backend).nothing  # type: ignore[attr-defined]  # noqa: B018


def test_every_type_has_a_rule(backend: Backend) -> None:
    build = import_module(f"{backends.packages()[backend.name]}.build").build
    layout = import_module(f"{backends.packages()[backend.name]}.checkpoint.layout").layout
    for kind in NODE_TYPES.values():
        if issubclass(kind, Primitive):
            assert kind in build, kind.__name__
    for node in (spec.Conv2d(2, 3, 1), spec.Linear(2, 3), spec.BatchNorm(2)):
        assert set(layout.slots(node)) == set(node.params)


def test_type_without_a_rule_is_refused(backend: Backend) -> None:
    class Unheard(Primitive):
        pass

    with pytest.raises(SpecError, match=rf"acon_{backend.name}.*Unheard"):
        backend.build(spec.sequential(Unheard()))


def test_loading_is_strict(backend: Backend) -> None:
    graph = spec.sequential(spec.Conv2d(3, 5, (3, 2)), spec.BatchNorm(5), spec.AconC(5))
    state = spec.initial_state(graph)
    model = backend.build(graph)
    wrong = {
        "0.weight": state["0.weight"].swapaxes(2, 3),
        "1.running_var": state["1.running_var"].astype(np.float16),
        "2.p1": state["2.p1"].reshape(5),
    }
    for path, array in wrong.items():
        with pytest.raises(StateError, match=re.escape(path)):
            model.load(state | {path: array})
    with pytest.raises(StateError, match=r"'2\.beta' is missing"):
        model.load({path: array for path, array in state.items() if path != "2.beta"})
    with pytest.raises(StateError, match="'more' is unexpected"):
        model.load(state | {"more": np.ones(2, np.float32)})
    for path, array in model.state().items():
        np.testing.assert_array_equal(array, state[path], err_msg=f"{path} changed by a load that failed")


def test_dropout_in_training(backend: Backend) -> None:
    """Inverted dropout: an element is 0 with probability `rate`, else x / (1 - rate).

    In evaluation the output is x.
    """
    model = backend.build(spec.Dropout(0.2))
    x = np.random.default_rng(3).uniform(1, 2, (4, 50, 8, 6)).astype(np.float32)
    np.testing.assert_array_equal(model(x).y, x)
    y = model(x, train=True).y
    kept = y != 0
    np.testing.assert_allclose(y[kept], (x / 0.8)[kept], rtol=1e-6)
    assert abs((1 - kept.mean()) - 0.2) < 5 * np.sqrt(0.2 * 0.8 / x.size)
    assert (model(x, train=True).y != y).any()


@pytest.mark.parametrize("format", ["torch", "safetensors"])
def test_load_with_network_options(backend: Backend, tmp_path: Path, format: str) -> None:
    """Dilation changes no tensor, so it comes from the metadata or from the caller."""
    options = {"replace_stride_with_dilation": (False, False, True)}
    network = create("acon/resnet50", "acon_c", 3, **options)
    state = spec.initial_state(network.graph, 5)
    path, made = tmp_path / "a", format_named(format)
    made.codec.write(path, made.layout.to_native(network.graph, state), metadata(network))
    load = package(backend).load  # type: ignore[attr-defined]
    x = np.random.default_rng(3).uniform(-1, 1, (2, 3, 64, 96)).astype(np.float32)
    features = replace(network.features(["stage4"]).graph, single_output=True)  # one value instead of a tuple of one
    model = backend.build(features, seed=None)
    model.load({name: state[name] for name in spec.named_params(features)})
    expected = model(x).y
    assert expected.shape == (2, 2048, 4, 6)
    (wide,) = run(backend, load(path, features=("stage4",), **(options if format == "torch" else {})), x)
    wide = np.moveaxis(np.asarray(wide), -1, 1) if backend.name == "jax" else wide.detach().numpy()
    np.testing.assert_array_equal(wide, expected)
    with pytest.raises(SpecError, match="'dilation' is not an option"):
        load(path, dilation=2)


def test_list_backends_says_the_path(backend: Backend) -> None:
    listed = subprocess.run([sys.executable, "-m", "acon_core", "list", "backends"], capture_output=True, text=True, check=True)
    lines = dict(line.split(maxsplit=1) for line in listed.stdout.splitlines())
    assert lines[backend.name] == kernels.status()
