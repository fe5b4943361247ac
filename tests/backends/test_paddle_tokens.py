"""Token and window layers in Paddle: shapes, dynamic and empty batches, drop path, indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from acon_core import spec
from acon_core.backends import Backend
from acon_core.errors import SpecError

pytestmark = pytest.mark.backend("paddle")


def build(node: spec.Node) -> Any:
    from acon_paddle.build import BuildContext, make

    layer = make(node, BuildContext("float32"))
    layer.eval()
    return layer


def inputs(*shapes: tuple[int, ...]) -> list[Any]:
    import paddle

    random = np.random.default_rng(2)
    return [paddle.to_tensor(random.normal(size=shape).astype("float32")) for shape in shapes]


WINDOWS = (spec.WindowPartition(3, 1), spec.WindowAttention(3, 1, heads=2), spec.WindowReverse(3, 1))

# A node, shapes that it takes, and shapes that Paddle would silently broadcast or reshape.
SHAPES: list[tuple[spec.Node, list[tuple[int, ...]], list[tuple[int, ...]]]] = [
    (spec.Add(), [(2, 5, 4, 3), (2, 5, 4, 3)], [(2, 5, 4, 3), (2, 5, 1, 1)]),
    (spec.ChannelScale(), [(2, 5, 4, 3), (2, 5, 1, 1)], [(2, 5, 4, 3), (1, 5, 1, 1)]),
    (spec.ImageSize(4, 6), [(2, 3, 4, 6)], [(2, 3, 6, 4)]),
    (spec.PadToMultiple(4), [(2, 3, 6, 9)], [(2, 3, 6)]),
    (spec.FlattenSpace(), [(2, 5, 3, 4)], [(2, 5, 3, 4, 6)]),
    (spec.PrependToken(), [(3, 5, 4), (1, 1, 5)], [(3, 5, 4), (1, 1, 1)]),
    (spec.AddPosition(), [(3, 5, 4), (1, 4, 5)], [(3, 5, 4), (1, 1, 5)]),
    (spec.SelectToken(1), [(3, 5, 4)], [(3, 5, 4, 2)]),
    (spec.SpaceToDepth(), [(2, 3, 5, 7)], [(2, 3, 5)]),
    (spec.Attention(2), [(3, 18, 5)], [(3, 18, 5, 1)]),
    (WINDOWS[0], [(2, 4, 5, 7)], [(2, 4, 5)]),
    (WINDOWS[1], [(12, 18, 9), (25, 2), (2, 4, 5, 7)], [(12, 18, 9), (25, 1), (2, 4, 5, 7)]),
    (WINDOWS[2], [(12, 6, 9), (2, 4, 5, 7)], [(24, 6, 9), (2, 4, 5, 7)]),
]


@pytest.mark.parametrize(("node", "right", "wrong"), SHAPES, ids=lambda each: type(each).__name__)
def test_output_shapes_and_refused_inputs(node: spec.Node, right: list[tuple[int, ...]], wrong: list[tuple[int, ...]]) -> None:
    layer = build(node)
    assert layer(*inputs(*right)).shape == list(node.out_shapes(*right)[0])
    with pytest.raises(SpecError, match=f"{type(node).__name__}: expected"):
        layer(*inputs(*wrong))


def tokens_of(side: int) -> spec.Graph:
    """Build attended windows of an image, then tokens with a class token and positions."""
    return spec.graph(
        "x",
        [
            "windows = partition(x)", "qkv = to_qkv(windows)", "mixed = attend(qkv, table, x)", "image = merge(mixed, x)",
            "merged = fourfold(image)", "padded = pad(merged)", "tokens = flatten(padded)", "longer = prepend(tokens, token)",
            "placed = add(longer, position)", "y = select(placed)",
        ],
        "y",
        {
            "partition": WINDOWS[0], "to_qkv": spec.Linear(4, 12), "attend": WINDOWS[1], "merge": WINDOWS[2],
            "fourfold": spec.SpaceToDepth(), "pad": spec.PadToMultiple(3), "flatten": spec.FlattenSpace(),
            "prepend": spec.PrependToken(), "add": spec.AddPosition(), "select": spec.SelectToken(0),
        },
        {
            "table": spec.Param((25, 2), spec.Normal(1.0)), "token": spec.Param((1, 1, 16), spec.Normal(1.0)),
            "position": spec.Param((1, 1 + side, 16), spec.Normal(1.0)),
        },
    )  # fmt: skip


def test_dynamic_batch_size(backend: Backend) -> None:
    import paddle
    from paddle.static import InputSpec

    layer = backend.build(tokens_of(18)).native
    layer.eval()

    def run(x: Any) -> Any:
        return layer(x)

    open_batch = paddle.jit.to_static(run, full_graph=True, input_spec=[InputSpec([None, 4, 5, 11], "float32")])
    for count in (1, 3):
        (x,) = inputs((count, 4, 5, 11))
        np.testing.assert_allclose(open_batch(x).numpy(), layer(x).numpy(), rtol=1e-6, atol=1e-6)
    open_space = paddle.jit.to_static(run, full_graph=True, input_spec=[InputSpec([2, 4, None, None], "float32")])
    with pytest.raises(SpecError, match="WindowPartition: expected an image of known height and width"):
        open_space(*inputs((2, 4, 5, 11)))


def test_image_size_check_with_dynamic_batch(backend: Backend) -> None:
    import paddle
    from paddle.static import InputSpec

    layer = backend.build(spec.sequential(spec.ImageSize(4, 6), spec.FlattenSpace())).native

    def run(x: Any) -> Any:
        return layer(x)

    open_space = paddle.jit.to_static(run, full_graph=True, input_spec=[InputSpec([None, 3, None, 6], "float32")])
    assert open_space(*inputs((2, 3, 4, 6))).shape == [2, 3, 24]
    open_batch = paddle.jit.to_static(run, full_graph=True, input_spec=[InputSpec([None, 3, 6, 4], "float32")])
    with pytest.raises(SpecError, match="ImageSize: expected"):
        open_batch(*inputs((2, 3, 6, 4)))


def test_empty_batch(backend: Backend) -> None:
    layer = backend.build(tokens_of(18)).native
    layer.eval()
    assert layer(*inputs((0, 4, 5, 11))).shape == [0, 16]


@pytest.mark.parametrize("compiled", [False, True])
def test_drop_path_in_training(backend: Backend, compiled: bool) -> None:
    """Each sample is 0 with probability `rate`, else x / (1 - rate); in evaluation it is x."""
    import paddle

    paddle.seed(5)
    model = backend.build(spec.DropPath(0.25), compiled=compiled)
    x = np.random.default_rng(3).uniform(1, 2, (400, 3, 2)).astype(np.float32)
    np.testing.assert_array_equal(model(x).y, x)
    y = model(x, train=True).y
    kept = (y != 0).any((1, 2))
    np.testing.assert_allclose(y, kept[:, None, None] * x / np.float32(0.75), rtol=1e-6)
    assert abs((1 - kept.mean()) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / len(x))
    assert (model(x, train=True).y != y).any()
    assert (backend.build(spec.DropPath(0.0))(x, train=True).y == x).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_derived_integers_are_buffers(backend: Backend, dtype: str) -> None:
    index = spec.Param((2, 3), spec.Values((5.0, 0.0, 3.0, 1.0, 4.0, 2.0)), kind="derived", dtype="int64")
    node = spec.graph("x", ["y = conv(x)"], "y", {"conv": spec.Conv2d(3, 2, 1)}, {"index": index})
    model = backend.build(node, dtype=dtype)
    expected = np.array([[5, 0, 3], [1, 4, 2]])
    assert model.state()["index"].dtype == np.int64
    np.testing.assert_array_equal(model.state()["index"], expected)
    assert [name for name, _ in model.native.named_parameters()] == ["conv.weight", "conv.bias"]
    model.load(model.state())
    np.testing.assert_array_equal(model.native.state_dict()["index"].numpy(), expected)
    assert model(np.ones((1, 3, 2, 4), dtype)).y.shape == (1, 2, 2, 4)
