"""Every activation in a backend: random inputs against the reference, and initial values."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from descriptors import DESCRIPTORS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acon_core import backends, spec
from acon_core.backends import Backend
from acon_core.conformance.cases import Case, load_cases
from acon_core.conformance.tolerances import TOLERANCES
from acon_core.numerics import scaled_error
from acon_core.reference import forward

EVERY = [(name, options) for name, each in DESCRIPTORS.items() for options in each.options]
PARAMETRIC = [(name, options) for name, options in EVERY if DESCRIPTORS[name].public]


def label(value: object) -> str:
    return value if isinstance(value, str) else "-".join(map(str, value.values())) if isinstance(value, dict) else str(value)


def test_descriptor_table_is_complete() -> None:
    assert set(DESCRIPTORS) == set(spec.ACTIVATIONS)
    public = {each.public for each in DESCRIPTORS.values()} - {""}
    assert public == {kind.__name__ for kind in spec.ACTIVATIONS.values() if issubclass(kind, spec.Activation)}


def test_every_activation_has_golden_cases() -> None:
    held = {type(part) for case in load_cases() for _, part in spec.walk(case.build())}
    assert set(spec.ACTIVATIONS.values()) <= held


@st.composite
def inputs(draw: st.DrawFn, ranks: tuple[int, ...], batch: int) -> tuple[tuple[int, ...], int, int]:
    """Draw a shape whose sizes above 1 all differ, a channel axis, and a seed."""
    rank = draw(st.sampled_from(ranks))
    # At least four channels: normalising two has a gradient of almost zero, all cancellation.
    sizes = [draw(st.sampled_from([4, 5, 6, 7])), *draw(st.permutations([2, 3, 8, 9]))]
    axis = draw(st.sampled_from([1, -1]))
    space = [draw(st.sampled_from([1, size])) for size in sizes[1 : rank - 1]]
    shape = [batch + draw(st.integers(0, 2)), *space]
    shape.insert(axis if axis == 1 else len(shape), sizes[0])
    return tuple(shape), axis, draw(st.integers(0, 2**32))


@pytest.mark.parametrize(("name", "options"), EVERY, ids=label)
def test_random_shapes_match_the_reference(backend: Backend, name: str, options: dict[str, Any]) -> None:
    # XLA compiles every operation again for every shape.
    examples = 3 if backend.name == "jax" else 15

    @given(drawn=inputs(DESCRIPTORS[name].ranks, 1))
    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def hold(drawn: tuple[tuple[int, ...], int, int]) -> None:
        shape, axis, key = drawn
        node = spec.activation(name, shape[axis], channel_axis=axis, **options)
        case = Case(f"property/{name}/{key}", {}, (shape,), "", low=-4.0, high=4.0, rows=1.0)
        state = {
            path: values.astype(np.float32) if values.dtype != np.int64 else values for path, values in case.state(node).items()
        }
        x = case.x(0)
        exact = forward(node, state, [x])
        cotangent = case.cotangent(0, exact.values[0].shape)
        gradients = exact.vjp((cotangent.astype(np.float64),))
        model = backend.build(node)
        model.load(state)
        back = model.vjp(x, cotangent)

        def within(quantity: str, found: np.ndarray, golden: np.ndarray, scale: np.ndarray) -> None:
            bound = TOLERANCES["layer", quantity, "float32"].bound  # type: ignore[index]
            error = scaled_error(found, golden, float(np.abs(scale).max(initial=0.0)))
            assert error <= bound, f"{quantity}: {error:.1e} of scale for {node} on {shape}"

        within("y", back.y, exact.values[0], exact.values[0])
        within("dx", back.dx, gradients.inputs[0], gradients.input_scales[0])
        assert set(back.dparams) == set(gradients.params)
        for path, golden in gradients.params.items():
            within("dparams", back.dparams[path], golden, gradients.scales[path])

    hold()


def build_public(
    backend: Backend, name: str, channels: int, options: dict[str, Any], seed: int
) -> tuple[spec.Node, dict[str, np.ndarray]]:
    """Return an activation built through the public interface, and its canonical state."""
    package = import_module(backends.packages()[backend.name])
    modules = import_module(f"{backends.packages()[backend.name]}.surgery").modules
    keywords = {"rngs": import_module("flax.nnx").Rngs(seed)} if backend.name == "jax" else {}
    module = package.activation(name, channels, **keywords, **options)
    node = modules.node(module)
    return node, modules.state(module, node)


@pytest.mark.parametrize(("name", "options"), PARAMETRIC, ids=label)
def test_initial_values_follow_the_spec(backend: Backend, name: str, options: dict[str, Any]) -> None:
    """Mean, spread and support of every parameter; instances differ where the rule is random."""
    (node, first), (_, second) = (build_public(backend, name, 240, options, seed) for seed in (3, 4))
    table = spec.named_params(node)
    assert set(first) == set(table)
    for path, param in table.items():
        values, rule = first[path].astype(np.float64), param.init
        assert values.shape == param.shape
        if isinstance(rule, spec.Constant | spec.Values):
            np.testing.assert_array_equal(values, rule.draw(param.shape, None).astype(np.float32), err_msg=path)  # type: ignore[arg-type]
            continue
        spread = rule.std if isinstance(rule, spec.Normal) else 1 / np.sqrt(3 * rule.fan)
        sure = 5 / np.sqrt(values.size)  # five standard deviations of the mean and, approximately, of the spread
        assert abs(values.mean()) <= sure * spread, path
        assert abs(values.std() / spread - 1) <= sure, path
        if isinstance(rule, spec.UniformPerFan):
            bound = 1 / np.sqrt(rule.fan)
            assert np.abs(values).max() <= bound * (1 + 1e-6), path
            assert np.abs(values).max() >= bound * (1 - 20 / values.size), path
        else:
            assert np.abs(values).max() > 2 * spread, path
        assert (second[path] != first[path]).mean() > 0.99, path
