"""paddle.grad of the gated functions: of some arguments, and twice; parameters in groups."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

pytestmark = pytest.mark.backend("paddle")

X, C, ONE = (2, 3, 4, 5), (3,), (1,)
SHAPES = {
    "acon": (X, C, C, C), "smooth_maximum": (X, X), "three values": (X, X, X, ONE), "maximum": (X, X), "prelu": (X, C),
    "arelu": (X, ONE, ONE), "repact": (X, ONE, ONE, ONE), "dynamic_maximum": (X, (2, 12)),
}  # fmt: skip


def function(name):  # type: ignore[no-untyped-def]
    import paddle
    from acon_paddle import functional

    if name == "three values":
        return lambda a, b, c, beta: functional.smooth_maximum(a, b, c, beta=beta)
    if name == "dynamic_maximum":
        constants = [paddle.to_tensor(np.array(row, "float64")) for row in ([1.0, 0.9, 0.5, 0.4], [1.0, 0.2, 0.1, 0.0])]
        return lambda x, theta: functional.dynamic_maximum(x, theta, *constants)
    return getattr(functional, name)


def trainable(arrays):  # type: ignore[no-untyped-def]
    import paddle

    return [paddle.to_tensor(array, stop_gradient=False) for array in arrays]


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_of_some_arguments(name: str) -> None:
    import paddle

    rng = np.random.default_rng(0)
    leaves = trainable([rng.normal(size=shape) for shape in SHAPES[name]])
    for tensors in (leaves, [leaf * 1.0 for leaf in leaves]):  # leaves, and results of operations

        def loss(tensors=tensors):  # type: ignore[no-untyped-def]
            return function(name)(*tensors).square().sum()

        together = paddle.grad(loss(), tensors)
        for (i, tensor), create_graph in product(enumerate(tensors), (False, True)):
            (alone,) = paddle.grad(loss(), [tensor], create_graph=create_graph)
            np.testing.assert_allclose(alone.numpy(), together[i].numpy(), rtol=1e-12, atol=1e-12)
    assert all(leaf.grad is None for leaf in leaves)  # the others got nothing beside
    leaves[0].stop_gradient = True
    function(name)(*leaves).square().sum().backward()
    assert leaves[0].grad is None
    assert all(np.abs(leaf.grad.numpy()).sum() > 0 for leaf in leaves[1:])


@pytest.mark.parametrize("name", SHAPES)
def test_second_derivatives_match_finite_differences(name: str) -> None:
    import paddle

    rng = np.random.default_rng(1)
    arrays, weights, directions = ([rng.normal(size=shape) for shape in SHAPES[name]] for _ in range(3))

    def slope(arrays):  # type: ignore[no-untyped-def]
        tensors = trainable(arrays)
        gradients = paddle.grad(function(name)(*tensors).square().sum(), tensors, create_graph=True)
        pairs = zip(gradients, weights, strict=True)
        return tensors, sum((gradient * paddle.to_tensor(weight)).sum() for gradient, weight in pairs)

    tensors, value = slope(arrays)
    second = paddle.grad(value, tensors)
    for i, direction in enumerate(directions):
        ends = [[each + side * direction if k == i else each for k, each in enumerate(arrays)] for side in (1e-5, -1e-5)]
        above, below = (slope(end)[1].item() for end in ends)
        assert (second[i].numpy() * direction).sum() == pytest.approx((above - below) / 2e-5, rel=1e-6)


def test_a_group_without_parameters_is_left_out() -> None:
    import acon_paddle
    import paddle
    from paddle import nn

    model = nn.Sequential(nn.Conv2D(3, 8, 1), acon_paddle.AconC(8))
    assert [len(group["params"]) for group in acon_paddle.param_groups(model, 0.1)] == [1, 4]
    for parameter in model[0].parameters():
        parameter.stop_gradient = True
    (free,) = acon_paddle.param_groups(model, 0.1)
    assert (len(free["params"]), free["weight_decay"]) == (3, 0.0)
    before = model[1].p1.numpy()
    for kind in (paddle.optimizer.SGD, paddle.optimizer.Momentum, paddle.optimizer.AdamW):
        optimizer = kind(learning_rate=0.1, parameters=acon_paddle.param_groups(model, 0.1))
        model(paddle.ones([2, 3, 4, 4])).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
    assert (model[1].p1.numpy() != before).all()


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", ["meta_acon", "meta_acon(level=layer)", "frelu", "acon_frelu", "dyrelu", "repact(variant=3)"])
def test_empty_batches(name: str, mode: str) -> None:
    import acon_paddle
    import paddle

    layer = acon_paddle.activation(name, 8)
    getattr(layer, mode)()
    x = paddle.zeros([0, 8, 5, 6])
    x.stop_gradient = False
    y = layer(x)
    y.sum().backward()
    assert (y.shape, x.grad.shape) == ([0, 8, 5, 6], [0, 8, 5, 6])
