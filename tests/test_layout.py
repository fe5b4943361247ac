"""The layouts of all frameworks: exact inverses, correct shapes, and as documented upstream."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_core import spec
from acon_core.checkpoint import formats
from acon_core.checkpoint.formats import format_named
from acon_core.conformance.cases import NODE_TYPES
from acon_core.layout import contiguous

COUNTERS = "num_batches_tracked"


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()


ints = st.integers(1, 6)


@st.composite
def nodes(draw: st.DrawFn) -> spec.Graph:
    """Make a chain of random layers of unequal widths."""
    channels, layers = draw(ints), []
    for _ in range(draw(st.integers(1, 4))):
        groups = draw(st.sampled_from([1, channels]))
        outputs = groups * draw(ints)
        kernel = (draw(ints), draw(ints))
        layers += [spec.Conv2d(channels, outputs, kernel, groups=groups, bias=draw(st.booleans())), spec.BatchNorm(outputs)]
        layers.append(draw(st.sampled_from([spec.ReLU(), spec.AconC(outputs), spec.MetaAconC(outputs, reduction=draw(ints))])))
        channels = outputs
    return spec.sequential(body=spec.sequential(*layers), head=spec.Linear(channels, draw(ints)))


@given(graph=nodes(), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_layouts_round_trip(graph: spec.Graph, seed: int) -> None:
    state = spec.initial_state(graph, seed)
    for format in formats().values():
        native = format.layout.to_native(graph, state)
        assert {name: array.shape for name, array in native.items()} == format.layout.native_shapes(graph)
        assert sum(array.size for array in native.values()) == sum(
            array.size
            for path, array in state.items()
            if not (path.endswith(COUNTERS) and format.backend not in (None, "torch"))
        )
        again, _ = format.layout.to_canonical(graph, native)
        assert list(again) == list(state)
        assert all(same_bits(again[path], array) for path, array in state.items())


def test_layouts_by_hand() -> None:
    """Compare with arrays made from the documentation of each framework, not from our code."""
    conv, linear = spec.Conv2d(4, 6, (2, 3), groups=2), spec.Linear(2, 3)
    weight = np.arange(6 * 2 * 2 * 3).reshape(6, 2, 2, 3)
    bias = np.arange(6)
    matrix = np.arange(6).reshape(3, 2)
    mge = format_named("megengine").layout.to_native(conv, {"weight": weight, "bias": bias})
    assert mge["weight"].shape == (2, 3, 2, 2, 3)
    assert mge["weight"][1, 2, 0, 1, 2] == weight[5, 0, 1, 2]
    assert mge["bias"].shape == (1, 6, 1, 1)
    assert mge["bias"][0, 4, 0, 0] == 4
    flax = format_named("jax").layout.to_native(conv, {"weight": weight, "bias": bias})
    assert flax["kernel"].shape == (2, 3, 2, 6)
    assert flax["kernel"][1, 2, 0, 5] == weight[5, 0, 1, 2]
    for name, key in (("paddle", "weight"), ("jax", "kernel")):
        native = format_named(name).layout.to_native(linear, {"weight": matrix, "bias": bias[:3]})
        assert native[key].shape == (2, 3)
        assert native[key][1, 2] == matrix[2, 1]
    norm = {name: np.arange(4) for name in ("weight", "bias", "running_mean", "running_var")} | {COUNTERS: np.array(3)}
    assert list(format_named("paddle").layout.to_native(spec.BatchNorm(4), norm)) == ["weight", "bias", "_mean", "_variance"]
    assert list(format_named("jax").layout.to_native(spec.BatchNorm(4), norm)) == ["scale", "bias", "mean", "var"]
    assert list(format_named("megengine").layout.to_native(spec.BatchNorm(4), norm)) == [*list(norm)[:4]]


def test_every_type_has_a_layout() -> None:
    examples = {"Conv2d": spec.Conv2d(2, 3, 1), "Linear": spec.Linear(2, 3), "BatchNorm": spec.BatchNorm(2)}
    examples |= {"LayerNorm": spec.LayerNorm(4)}
    examples |= {type(node).__name__: node for node in (spec.activation(name, 3) for name in spec.ACTIVATIONS) if node.params}
    with_params = {
        name for name, kind in NODE_TYPES.items() if name in examples or getattr(kind, "params", None) is not spec.Node.params
    }
    # A layer without parameters of its own needs no layout.
    assert with_params - {"FReLU", "AconFReLU"} == set(examples), "a new type with parameters needs an example here"
    for format in formats().values():
        for node in examples.values():
            assert set(format.layout.slots(node)) == set(node.params), (format.name, node)


@given(shape=st.lists(st.integers(0, 7), max_size=3), length=st.integers(0, 300), turn=st.randoms(use_true_random=False))
def test_contiguous(shape: list[int], length: int, turn: Random) -> None:
    shape = [*shape, length]
    axes = turn.sample(range(len(shape)), len(shape))
    array = np.random.default_rng(length).integers(0, 1 << 32, shape, np.uint32).view(np.float32).transpose(axes)[..., ::-1]
    found = contiguous(array)
    assert found.flags.c_contiguous
    assert same_bits(found, array)
