"""Surgery on users' Paddle models: nested containers, shared layers, function calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from acon_core import spec
from acon_core.errors import AconError

pytestmark = pytest.mark.backend("paddle")


def test_paddle_layers_map_to_specs() -> None:
    from acon_paddle.surgery import modules
    from paddle import nn

    known = [
        (nn.ReLU(), spec.ReLU()), (nn.ReLU6(), spec.ReLU6()), (nn.LeakyReLU(0.25), spec.LeakyReLU(0.25)),
        (nn.PReLU(), spec.PReLU()), (nn.PReLU(6), spec.PReLU(6, shared=False)),
        (nn.PReLU(6, data_format="NHWC"), spec.PReLU(6, shared=False, channel_axis=-1)),
        (nn.PReLU(6, data_format="NCL"), spec.PReLU(6, shared=False)),
        (nn.ELU(0.5), spec.ELU(0.5)), (nn.SELU(), spec.SELU()), (nn.SELU(scale=1.5), None), (nn.CELU(0.5), spec.CELU(0.5)),
        (nn.GELU(), spec.GELU()), (nn.GELU(approximate=True), spec.GELU("tanh")), (nn.Silu(), spec.SiLU()),
        (nn.Swish(), spec.SiLU()), (nn.Mish(), spec.Mish()), (nn.Softplus(2.0), spec.Softplus(2.0)),
        (nn.Softplus(1.0, 5.0), None), (nn.Hardswish(), spec.HardSwish()), (nn.Hardsigmoid(), spec.HardSigmoid()),
        (nn.Sigmoid(), spec.Sigmoid()), (nn.Identity(), spec.Identity()), (nn.Tanh(), None), (nn.Conv2D(3, 4, 1), None),
    ]  # fmt: skip
    for layer, node in known:
        assert modules.node(layer) == node, layer
    # Each layer computes the function of its spec.
    x = np.random.default_rng(0).normal(size=(3, 6, 6, 6)).astype("float32") * 4
    for layer, node in known:
        if node is not None:
            ours = modules.make(node, modules.state(layer, node), layer, layer)
            np.testing.assert_allclose(modules.run(ours, x), modules.run(layer, x), rtol=2e-6, atol=2e-6)


def users_model() -> Any:
    """Build a user's model: nested containers, one layer under two names, function calls."""
    import acon_paddle
    import paddle
    from paddle import nn
    from paddle.nn.functional import relu

    class Block(nn.Layer):
        def __init__(self, act: Any) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2D(6, 6, 3, padding=1), nn.BatchNorm2D(6), nn.Silu())
            self.act = act
            self.rep = acon_paddle.RepAct(3)

        def forward(self, x: Any) -> Any:
            return self.act(self.rep(self.body(x)) + paddle.nn.functional.silu(x).sigmoid())

    class Model(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2D(3, 6, 1)
            shared = nn.PReLU(6)
            self.blocks = nn.LayerList([Block(shared), Block(shared)])
            self.meta = acon_paddle.MetaAconC(6, reduction=2)
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(120, 7), nn.LayerNorm(7), nn.LeakyReLU(0.2))

        def forward(self, x: Any) -> Any:
            x = relu(self.stem(x))
            for block in self.blocks:
                x = block(x)
            return self.head(self.meta(x))

    return Model()


def test_replace_activations() -> None:
    import acon_paddle
    import paddle

    model = users_model()
    x = paddle.randn([2, 3, 4, 5])
    model.train()
    model.blocks[1].eval()
    before = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    modes = [layer.training for layer in model.sublayers()]
    done = acon_paddle.replace_activations(model, {"silu": "acon_c", "prelu": "acon_b", "leaky_relu": "acon_c"}, x, beta=1e5)
    assert modes[:5] == [layer.training for layer in model.sublayers()][:5]
    assert sorted(site.path for site in done.replaced) == [
        "blocks.0.act", "blocks.0.body.2", "blocks.0.silu", "blocks.1.act", "blocks.1.body.2", "blocks.1.silu", "head.3",
    ]  # fmt: skip
    assert not done.kept
    assert not done.functional  # silu(x) became a layer, and nobody asked for sigmoid
    assert isinstance(model.blocks[0].body[2], acon_paddle.AconC)
    assert model.blocks[0].act is not model.blocks[1].act
    assert model.head[3].p1.shape == [1, 7, 1, 1]
    for name, tensor in model.state_dict().items():
        if name in before:
            np.testing.assert_array_equal(tensor.numpy(), before[name], err_msg=name)
    y = users_model()
    y.set_state_dict({name: paddle.to_tensor(array) for name, array in before.items()})
    for each in (model, y):
        each.eval()
    np.testing.assert_allclose(model(x).numpy(), y(x).numpy(), atol=2e-4)
    with pytest.raises(AconError, match="itself an activation"):
        acon_paddle.replace_activations(paddle.nn.ReLU(), {"relu": "acon_c"}, x)


def test_fuse_and_fold_preserve_outputs() -> None:
    import acon_paddle
    import paddle

    model = users_model()
    model.train()
    for _ in range(2):  # move the statistics off their initial values
        model(paddle.randn([4, 3, 4, 5]) * 2 + 1)
    model.eval()
    x = paddle.randn([2, 3, 4, 5])
    y = model(x).numpy()
    assert acon_paddle.fold(acon_paddle.fuse(model)) is model
    assert isinstance(model.blocks[1].rep, acon_paddle.FusedRepAct)
    assert model.meta.spec.norm == "none"
    np.testing.assert_allclose(model(x).numpy(), y, rtol=1e-4, atol=1e-5)
    with pytest.raises(AconError, match="nothing to do"):
        acon_paddle.fuse(model)
    whole = acon_paddle.create("acon/shufflenet_v2_x0_5", act="meta_acon", num_classes=5)
    whole.eval()
    image = paddle.randn([1, 3, 32, 32])
    np.testing.assert_allclose(acon_paddle.fold(whole)(image).numpy(), whole(image).numpy(), rtol=1e-4, atol=1e-4)


def test_param_groups_in_optimizers() -> None:
    import acon_paddle
    import paddle

    model = users_model()
    decayed, free = acon_paddle.param_groups(model, 0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert sorted(names[id(parameter)] for parameter in decayed["params"]) == [
        "blocks.0.body.0.weight", "blocks.1.body.0.weight", "head.1.weight", "meta.fc1.weight", "meta.fc2.weight",
        "stem.weight",
    ]  # fmt: skip
    frozen = [parameter for parameter in model.parameters() if parameter.stop_gradient]
    assert len(decayed["params"]) + len(free["params"]) + len(frozen) == len(model.parameters())
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.5, 0.0)
    for make in (paddle.optimizer.AdamW, paddle.optimizer.Momentum):
        optimizer = make(learning_rate=0.1, parameters=acon_paddle.param_groups(model, 0.5))
        p1, weight = model.meta.p1.numpy().copy(), model.stem.weight.numpy().copy()
        (model(paddle.randn([2, 3, 4, 5])) * 0.0).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        np.testing.assert_array_equal(model.meta.p1.numpy(), p1)
        np.testing.assert_allclose(model.stem.weight.numpy(), weight * 0.95, rtol=1e-5)


def test_doctor_and_gradient_bounds() -> None:
    import acon_paddle
    import paddle
    from paddle import nn

    class Copied(nn.Layer):
        def __init__(self, wrong: float) -> None:
            super().__init__()
            for name in ("p1", "p2", "beta"):
                setattr(self, name, self.create_parameter([1, 6, 1, 1]))
            self.wrong = wrong

        def forward(self, x: Any) -> Any:
            d = (self.p1 - self.p2) * x
            return d * nn.functional.sigmoid(self.beta * d * self.wrong) + self.p2 * x

    good = Copied(1.0)
    before = good.p1.numpy().copy()
    assert acon_paddle.doctor(good).healthy
    np.testing.assert_array_equal(good.p1.numpy(), before)
    assert not acon_paddle.doctor(Copied(0.9)).healthy
    assert acon_paddle.doctor(acon_paddle.AconC(6, channel_axis=-1), channel_axis=-1).healthy
    model = nn.Sequential(acon_paddle.AconC(6, "paper"), nn.ReLU(), acon_paddle.MetaAconC(6))
    bounds = acon_paddle.gradient_bounds(model)
    assert list(bounds) == ["0", "2"]
    np.testing.assert_allclose(bounds["0"].high, 1.0998393, rtol=1e-6)
    assert bounds["2"].beta is None
    assert paddle.is_grad_enabled()


def test_new_layers_inherit_dtype_mode_and_frozen_state() -> None:
    """New layers take dtype, mode and frozen state from the old layer, else from the model."""
    import acon_paddle
    import paddle
    from paddle import nn

    double = nn.PReLU(6).to(dtype="float64")
    frozen, half = nn.PReLU(6), acon_paddle.MetaAconC(6, reduction=2)
    frozen._weight.stop_gradient = True
    frozen.eval()
    half.p1.stop_gradient = True
    model = nn.LayerList([nn.Linear(6, 6), double, frozen, nn.ReLU(), acon_paddle.RepAct(), acon_paddle.RepAct(), half])
    for parameter in model[4].parameters():
        parameter.stop_gradient = True
    model.forward = lambda x: [each(x.astype("float64") if at == 1 else x) for at, each in enumerate(model)]
    acon_paddle.replace_activations(model, {"prelu": "acon_c", "relu": "acon_b"}, paddle.ones([2, 6]))
    assert [str(model[index].beta.dtype) for index in (1, 2, 3)] == ["paddle.float64", "paddle.float32", "paddle.float32"]
    assert [model[index].training for index in (1, 2, 3)] == [True, False, True]
    assert [{each.stop_gradient for each in model[index].parameters()} for index in (1, 2, 3)] == [{False}, {True}, {False}]
    acon_paddle.fold(acon_paddle.fuse(model))
    assert [{each.stop_gradient for each in model[index].parameters()} for index in (4, 5)] == [{True}, {False}]
    assert [name for name, each in model[6].named_parameters() if each.stop_gradient] == ["p1"]


def test_user_subclass_is_not_recognised() -> None:
    import acon_paddle
    from acon_paddle.modules import Graph
    from acon_paddle.surgery import modules
    from paddle import nn

    class Doubled(acon_paddle.AconC):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * 2

    class Mine(Graph):
        pass

    def child(name: str, node: spec.Node) -> nn.Layer:
        return nn.Identity()

    layer = Doubled(6)
    assert layer.p1.shape == [1, 6, 1, 1]
    assert modules.node(acon_paddle.AconC(6)) == spec.AconC(6)
    assert modules.node(layer) is None
    assert modules.node(Mine(spec.graph("x", [], "x", {}), child, "float32")) is None
    assert not acon_paddle.gradient_bounds(nn.Sequential(layer))
    (free,) = acon_paddle.param_groups(layer, 0.5)
    assert (len(free["params"]), free["weight_decay"]) == (3, 0.0)


def test_keyword_and_multiple_inputs() -> None:
    import acon_paddle
    import paddle
    from paddle import nn

    class Model(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.other = nn.ReLU(), nn.ReLU()

        def forward(self, a: Any, b: Any) -> Any:
            try:
                self.other(None)
            except Exception:
                a = self.act(x=a)
            return self.act(a) + nn.functional.silu(b)

    call = nn.Layer.__call__
    model = Model()
    inputs = {"a": paddle.ones([2, 6, 3]), "b": paddle.ones([2, 6, 3])}
    with pytest.raises(AconError, match=r"the channel axis is not known of act with inputs such as \(2, 6, 3\)"):
        acon_paddle.replace_activations(model, {"relu": "acon_c"}, inputs)
    done = acon_paddle.replace_activations(model, {"relu": "acon_c"}, inputs, channel_axis=1)
    assert nn.Layer.__call__ is call
    assert [(site.path, site.channels, site.calls) for site in done.replaced] == [("act", 6, 1), ("act_2", 6, 1)]
    assert [site.path for site in done.kept] == ["other"]
    assert not done.functional  # nobody asked for silu


def test_weight_decay_default_rule() -> None:
    """In users' layers: by parameter name, by owning layer, and by number of axes."""
    import acon_paddle
    from paddle import nn

    class Copied(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            for name in ("p1", "p2", "beta", "theta"):
                setattr(self, name, self.create_parameter([1, 6, 1, 1]))
            self.bilinear, self.norm = nn.Bilinear(3, 4, 5), nn.LayerNorm([6, 4])
            self.norm.weight = self.norm.create_parameter([6, 4])

    model = nn.Sequential(Copied())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, free = acon_paddle.param_groups(model, 0.5)
    assert sorted(names[id(each)] for each in decayed["params"]) == ["0.bilinear.weight", "0.theta"]
    assert len(free["params"]) == len(names) - 2
