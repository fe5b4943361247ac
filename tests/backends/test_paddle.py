"""What Paddle's users rely on: frozen inputs, to_static, finite SiLU gradients, parameters that are parameters."""

from __future__ import annotations

import numpy as np
import pytest

from acon_core.errors import OneValuePerChannelError
from acon_core.networks import create
from acon_core.spec import named_params

pytestmark = pytest.mark.backend("paddle")


def values(stop: tuple[int, ...] = (), dtype: str = "float64"):  # type: ignore[no-untyped-def]
    import paddle

    random = np.random.default_rng(0)
    shapes = [(3, 5, 4, 2), (1, 5, 1, 1), (1, 5, 1, 1), (3, 5, 1, 1)]
    return [paddle.to_tensor(random.normal(size=s).astype(dtype), stop_gradient=i in stop) for i, s in enumerate(shapes)]


@pytest.mark.parametrize("frozen", [(), (0,), (1,), (3,), (0, 2), (1, 2, 3)])
def test_gradients_are_paddle_s_own_with_any_input_frozen(frozen: tuple[int, ...]) -> None:
    import paddle
    from acon_paddle import acon

    found, expected = values(frozen), values(frozen)
    acon(*found).sum().backward()
    x, p1, p2, beta = expected
    ((p1 - p2) * x * paddle.nn.functional.sigmoid(beta * (p1 - p2) * x) + p2 * x).sum().backward()
    for index, (first, second) in enumerate(zip(found, expected, strict=True)):
        if index in frozen:
            assert first.grad is None
        else:
            assert first.grad.shape == second.grad.shape
            np.testing.assert_allclose(first.grad.numpy(), second.grad.numpy(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_silu_has_a_finite_gradient_everywhere(dtype: str) -> None:
    import paddle
    from acon_paddle.modules import SiLU

    points = [-3e38, -1e4, -720.0, -100.0, -89.0, -88.0, -85.0, 0.0, 100.0, 1e4, 3e38]
    x = paddle.to_tensor(np.resize(np.array(points, dtype), 64), stop_gradient=False)
    SiLU()(x).sum().backward()
    gradient = x.grad.numpy()[: len(points)]
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[[0, 1, 7, 8, 9, 10]], [0, 0, 0.5, 1, 1, 1], atol=1e-6)


def test_statistics_are_buffers_and_no_parameters() -> None:
    import acon_paddle

    network = create("acon/shufflenet_v2_x0_5", "meta_acon")
    model = acon_paddle.create("acon/shufflenet_v2_x0_5", act="meta_acon")
    weights = [path for path, param in named_params(network.graph).items() if param.kind == "weight"]
    assert [name for name, _ in model.named_parameters()] == weights
    assert all(not parameter.stop_gradient for parameter in model.parameters())


def test_one_value_per_channel_names_the_layer_also_under_to_static() -> None:
    import acon_paddle
    import paddle

    module = acon_paddle.MetaAconC(8, reduction=4)
    module.train()
    one = paddle.ones([1, 8, 3, 4])
    for run in (module, paddle.jit.to_static(module)):
        with pytest.raises(OneValuePerChannelError, match=r"bn1: training needs more than one value"):
            run(one)


def test_paddle_s_own_save_and_load_both_ways(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import acon_paddle
    import paddle

    from acon_core.checkpoint import read_network

    model = acon_paddle.create("acon/shufflenet_v2_x0_5", act="meta_acon", seed=3)
    paddle.save(model.state_dict(), str(tmp_path / "a.pdparams"))
    checkpoint = read_network(tmp_path / "a.pdparams")
    assert checkpoint.network.name == "acon/shufflenet_v2_x0_5"
    again = acon_paddle.load(tmp_path / "a.pdparams")
    loaded = again.state_dict()
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(loaded[name].numpy(), tensor.numpy(), err_msg=name)
