"""fuse, fold, param_groups, doctor and gradient_bounds, in every backend."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from acon_core import backends, spec
from acon_core.backends import Backend
from acon_core.errors import AconError
from acon_core.networks import create
from acon_core.random import Stream
from acon_core.reference import forward
from acon_core.spec import Acon, Constant, Param


def package(backend: Backend) -> Any:
    return import_module(backends.packages()[backend.name])


def interface(backend: Backend) -> Any:
    return import_module(f"{backends.packages()[backend.name]}.surgery").modules


def native(backend: Backend, x: np.ndarray) -> np.ndarray:
    """Convert (N, C, ...) to the framework's own layout."""
    return np.moveaxis(x, 1, -1).copy() if backend.name == "jax" else x


def perturbed_state(node: spec.Node) -> dict[str, np.ndarray]:
    """Return a state in which no norm has its initial values."""
    return {
        path: value if value.dtype == np.int64 else (value + Stream(path).uniform(value.shape, 0.05, 0.3)).astype(np.float32)
        for path, value in spec.initial_state(node, 2).items()
    }


@pytest.mark.parametrize(("verb", "act"), [("fuse", "repact(variant=1)"), ("fuse", "repact(variant=3)"), ("fold", "meta_acon")])
def test_fuse_and_fold_preserve_outputs(backend: Backend, verb: str, act: str) -> None:
    graph = create("acon/shufflenet_v2_x0_5", act, 5, repeats=(2, 1, 1)).graph
    model = backend.build(graph, seed=None)
    model.load(perturbed_state(graph))
    x = Stream("surgery").uniform((2, 3, 32, 40), -1.0, 1.0).astype(np.float32)
    before = model(x).y
    simple = getattr(package(backend), verb)(model.native)
    after = interface(backend).run(simple, native(backend, x))
    np.testing.assert_allclose(after, before, rtol=0, atol=2e-5 * np.abs(before).max())
    expected, small = getattr(spec, verb)(graph, model.state())
    found = interface(backend).state(simple, expected)
    for path, value in small.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-6, atol=1e-7, err_msg=path)
    with pytest.raises(AconError, match=f"{verb}: nothing to do"):
        getattr(package(backend), verb)(simple)


@pytest.mark.parametrize(("verb", "name"), [("fuse", "RepAct_BN"), ("fold", "MetaAconC"), ("fold", "MyBeacon")])
def test_fuse_and_fold_name_classes_that_are_not_ours(backend: Backend, verb: str, name: str) -> None:
    bases = {
        "torch": "torch.nn.Module",
        "jax": "flax.nnx.Module",
        "paddle": "paddle.nn.Layer",
        "megengine": "megengine.module.Module",
    }
    module, _, base = bases[backend.name].rpartition(".")
    names = {"__module__": "models.common", "forward": lambda self, x: x}
    theirs = type(name, (getattr(import_module(module), base),), names)()
    with pytest.raises(AconError) as raised:
        getattr(package(backend), verb)(theirs)
    said = f"the model is a models.common.{name}, whose state may have other names: put the class of this package in its place"
    assert (said in str(raised.value)) == (name != "MyBeacon")


def test_weight_decay_follows_the_spec(backend: Backend) -> None:
    """The 1.7M of nmaac/acon's README counts convolution and linear weights: 1,657,616."""
    module = package(backend).create("acon/shufflenet_v2_x0_5", act="meta_acon")
    from acon_core.surgery import decays

    chosen = decays(interface(backend), module)
    sizes = {path: int(np.prod(tuple(parameter.shape))) for path, parameter, _ in interface(backend).parameters(module)}
    assert set(sizes) == set(chosen)
    assert sum(sizes.values()) == 1_686_620
    assert sum(size for path, size in sizes.items() if chosen[path]) == 1_657_616
    assert not any(chosen[path] for path in chosen if path.rpartition(".")[2] in ("p1", "p2", "beta", "bias"))


def test_gradient_bounds(backend: Backend) -> None:
    graph = spec.sequential(spec.Conv2d(3, 6, 1), spec.AconC(6), spec.MetaAconC(6, reduction=2), spec.AconA(6), spec.ReLU())
    model = backend.build(graph)
    model.load(perturbed_state(graph))
    found = package(backend).gradient_bounds(model.native)
    assert list(found) == ["1", "2", "3"]
    state = model.state()
    x = Stream("bounds").uniform((4, 6, 9, 8), -20.0, 20.0)
    own = {name: state[f"1.{name}"] for name in ("p1", "p2", "beta")}
    slopes = forward(spec.AconC(6), own, [x]).vjp((np.ones_like(x),)).inputs[0]
    assert (slopes.min((0, 2, 3)) >= found["1"].low - 1e-9).all()
    assert (slopes.max((0, 2, 3)) <= found["1"].high + 1e-9).all()
    assert found["2"].beta is None
    np.testing.assert_allclose(found["3"].beta, state["3.beta"].reshape(-1))


def gates(channels: int) -> dict[str, Param]:
    return {name: Param((1, channels, 1, 1), Constant(value)) for name, value in {"p1": 1.0, "p2": 0.5, "beta": 2.0}.items()}


WRONG = {
    "relu afterwards": (["a = acon(x, p1, p2, beta)", "y = last(a)"], {"last": spec.ReLU()}),
    "half of x": (["a = first(x)", "y = acon(a, p1, p2, beta)"], {"first": spec.LeakyReLU(slope=0.5)}),
    "beta through a sigmoid, as in Meta-ACON": (["b = gate(beta)", "y = acon(x, p1, p2, b)"], {"gate": spec.Sigmoid()}),
    "p1 taken for p2": (["q = same(p1)", "p = other(p2)", "b = third(beta)", "y = acon(x, p1, q, b)"],
                        {"same": spec.Identity(), "other": spec.Identity(), "third": spec.Identity()}),
}  # fmt: skip


def test_doctor_accepts_acon_and_restores_parameters(backend: Backend) -> None:
    model = backend.build(spec.AconC(5))
    model.load(perturbed_state(spec.AconC(5)))
    before = model.state()
    found = package(backend).doctor(model.native)
    assert found.healthy, str(found)
    assert len(found.findings) == 15
    for path, value in model.state().items():
        np.testing.assert_array_equal(value, before[path])


@pytest.mark.parametrize("what", WRONG)
def test_doctor_reports_failed_identities(backend: Backend, what: str) -> None:
    program, children = WRONG[what]
    model = backend.build(spec.graph("x", program, "y", {**children, "acon": Acon()}, gates(5)))
    found = package(backend).doctor(model.native)
    assert not found.healthy
    assert "FAILS" in str(found)
    assert "not ACON-C" in str(found)


def test_doctor_refuses_modules_without_gates(backend: Backend) -> None:
    model = backend.build(spec.AconA(5))
    with pytest.raises(AconError, match="doctor: AconA has no 'p1'"):
        package(backend).doctor(model.native)
