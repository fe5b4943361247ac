"""Token and window layers in JAX: shapes, empty batches, dropout, and int64 indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from acon_core import spec
from acon_core.backends import Backend
from acon_core.errors import SpecError

pytestmark = pytest.mark.backend("jax")

WINDOWS = (spec.WindowPartition(3, 1), spec.WindowAttention(3, 1, heads=2), spec.WindowReverse(3, 1))

# A node, shapes that it takes, and shapes that JAX would silently broadcast or reshape. A graph's
# own arrays (class token, positions, table) have the shapes of the spec; everything else has its
# channels last.
SHAPES: list[tuple[spec.Node, list[tuple[int, ...]], list[tuple[int, ...]], tuple[int, ...]]] = [
    (spec.Add(), [(2, 4, 3, 5), (2, 4, 3, 5)], [(2, 4, 3, 5), (2, 1, 1, 5)], (2, 4, 3, 5)),
    (spec.ChannelScale(), [(2, 4, 3, 5), (2, 1, 1, 5)], [(2, 4, 3, 5), (1, 1, 1, 5)], (2, 4, 3, 5)),
    (spec.ImageSize(4, 6), [(2, 4, 6, 3)], [(2, 6, 4, 3)], (2, 4, 6, 3)),
    (spec.PadToMultiple(4), [(2, 6, 9, 3)], [(2, 6, 3)], (2, 8, 12, 3)),
    (spec.FlattenSpace(), [(2, 3, 4, 5)], [(2, 3, 4, 6, 5)], (2, 12, 5)),
    (spec.PrependToken(), [(3, 4, 5), (1, 1, 5)], [(3, 4, 5), (1, 1, 1)], (3, 5, 5)),
    (spec.AddPosition(), [(3, 4, 5), (1, 4, 5)], [(3, 4, 5), (1, 1, 5)], (3, 4, 5)),
    (spec.SelectToken(1), [(3, 4, 5)], [(3, 1, 5)], (3, 5)),
    (spec.SpaceToDepth(), [(2, 5, 7, 3)], [(2, 5, 3)], (2, 3, 4, 12)),
    (spec.Attention(2), [(3, 5, 18)], [(3, 1, 5, 18)], (3, 5, 6)),
    (WINDOWS[0], [(2, 5, 7, 4)], [(2, 5, 4)], (12, 9, 4)),
    (WINDOWS[1], [(12, 9, 18), (25, 2), (2, 5, 7, 4)], [(12, 9, 18), (25, 1), (2, 5, 7, 4)], (12, 9, 6)),
    (WINDOWS[2], [(12, 9, 6), (2, 5, 7, 4)], [(24, 9, 6), (2, 5, 7, 4)], (2, 5, 7, 6)),
]


def build(node: spec.Node) -> Any:
    from acon_jax.build import BuildContext, make

    return make(node, BuildContext("float32"))


@pytest.mark.parametrize(("node", "right", "wrong", "shape"), SHAPES, ids=lambda each: type(each).__name__)
def test_output_shapes_and_refused_inputs(
    node: spec.Node, right: list[tuple[int, ...]], wrong: list[tuple[int, ...]], shape: tuple[int, ...]
) -> None:
    module = build(node)
    assert module(*(np.ones(each, np.float32) for each in right)).shape == shape
    with pytest.raises(SpecError, match=f"{type(node).__name__}: expected"):
        module(*(np.ones(each, np.float32) for each in wrong))


@pytest.mark.parametrize(("node", "count"), [(spec.PrependToken(), 1), (spec.AddPosition(), 4)])
def test_tokens_keep_their_dtype(node: spec.Node, count: int) -> None:
    import jax.numpy as jnp

    x, own = jnp.ones((3, 4, 5), jnp.bfloat16), jnp.ones((1, count, 5), jnp.float32)
    assert build(node)(x, own).dtype == jnp.bfloat16


EMPTY = [
    (spec.PadToMultiple(4), (0, 3, 5, 6)), (spec.FlattenSpace(), (0, 3, 5, 6)), (spec.SelectToken(1), (0, 3, 5)),
    (spec.SpaceToDepth(), (0, 3, 5, 6)), (spec.Attention(2), (0, 12, 5)), (spec.DropPath(0.3), (0, 3, 5)),
    (spec.Linear(3, 4), (0, 3, 5)), (WINDOWS[0], (0, 3, 5, 7)),
]  # fmt: skip


@pytest.mark.parametrize(("node", "shape"), EMPTY, ids=lambda value: type(value).__name__)
def test_empty_batch(backend: Backend, node: spec.Node, shape: tuple[int, ...]) -> None:
    (expected,) = node.out_shapes(shape)
    back = backend.build(node).vjp(np.zeros(shape, np.float32), np.zeros(expected, np.float32), train=True)
    assert (back.y.shape, back.dx.shape) == (expected, shape)


@pytest.mark.parametrize("node", [spec.Dropout(0.25), spec.DropPath(0.25)], ids=lambda node: type(node).__name__)
def test_dropout_and_drop_path_in_training(backend: Backend, node: spec.Node) -> None:
    x = np.random.default_rng(0).uniform(1.0, 2.0, (2000, 3, 2, 5)).astype(np.float32)
    x[:, 0, 0, 0] = np.inf  # a dropped value is 0 even if it was infinite
    model = backend.build(node, seed=4)
    back = model.vjp(x, np.ones_like(x), train=True)
    kept = back.y != 0
    np.testing.assert_allclose(back.y[kept], x[kept] / np.float32(0.75), rtol=2e-7)
    np.testing.assert_allclose(back.dx, kept / np.float32(0.75), rtol=2e-7)
    draws = kept
    if isinstance(node, spec.DropPath):
        draws = kept.any((1, 2, 3))
        assert (kept.all((1, 2, 3)) == draws).all()
    # Five standard deviations of the mean of this many draws.
    assert abs(draws.mean() - 0.75) < 5 * np.sqrt(0.25 * 0.75 / draws.size)
    np.testing.assert_array_equal(backend.build(node, seed=4).vjp(x, np.ones_like(x), train=True).y, back.y)
    assert (model(x, train=True).y != back.y).any()
    np.testing.assert_array_equal(model(x).y, x)


def test_int64_index_is_regenerated_from_the_spec(backend: Backend) -> None:
    values = (3, 1, 2, 0, 1, 0)
    index = spec.Param((3, 2), spec.Values(values), kind="derived", dtype="int64")
    node = spec.graph("x", ["y = linear(x)"], "y", {"linear": spec.Linear(5, 3)}, {"index": index})
    model = backend.build(node)
    expected = spec.initial_state(node, seed=7)
    model.load(expected)
    found = model.state()
    assert list(found) == ["index", "linear.weight", "linear.bias"]
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array)
        assert found[path].dtype == array.dtype
    assert "index" not in vars(model.native)
    used = spec.graph("x", ["y, z = pair(x, index)"], "z", {"pair": spec.Concat()}, {"index": index})
    taken = build(used)
    taken.pair = lambda x, index: (x, index)
    np.testing.assert_array_equal(taken(np.zeros(2, np.float32)), np.reshape(values, (3, 2)))
