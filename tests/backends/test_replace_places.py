"""replace_activations in Paddle, MegEngine and JAX: several calls, functions, axes."""

from __future__ import annotations

import copy
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from acon_core import backends
from acon_core.backends import Backend
from acon_core.errors import AconError

X = np.random.default_rng(0).standard_normal((2, 8, 7, 3), np.float32)


@pytest.fixture
def kit(backend: Backend) -> Any:
    """Return the constructors of the framework that the models below need."""
    if backend.name == "paddle":
        import paddle
        from paddle import nn
        from paddle.nn import functional as F

        class Kit:
            module, array = nn.Layer, staticmethod(lambda x: paddle.to_tensor(np.moveaxis(x, -1, 1).copy()))
            conv, linear = staticmethod(lambda a, b: nn.Conv2D(a, b, 1)), nn.Linear
            relu, silu, sigmoid, silu_module = F.relu, F.silu, F.sigmoid, nn.Silu
            to_numpy, axis = staticmethod(lambda y: y.numpy()), 1
            tokens = staticmethod(lambda x: x.flatten(2).transpose([0, 2, 1]))
    elif backend.name == "megengine":
        import megengine
        import megengine.functional as F
        import megengine.module as M

        class Kit:  # type: ignore[no-redef]
            module, array = M.Module, staticmethod(lambda x: megengine.tensor(np.moveaxis(x, -1, 1).copy()))
            conv, linear = staticmethod(lambda a, b: M.Conv2d(a, b, 1)), M.Linear
            relu, silu, sigmoid, silu_module = F.relu, F.silu, F.sigmoid, M.SiLU
            to_numpy, axis = staticmethod(lambda y: y.numpy()), 1
            tokens = staticmethod(lambda x: F.flatten(x, 2).transpose(0, 2, 1))
    elif backend.name == "jax":
        import jax.numpy as jnp
        from flax import nnx

        class Kit:  # type: ignore[no-redef]
            module, array = nnx.Module, jnp.asarray
            conv = staticmethod(lambda a, b: nnx.Conv(a, b, (1, 1), rngs=nnx.Rngs(a)))
            linear = staticmethod(lambda a, b: nnx.Linear(a, b, rngs=nnx.Rngs(b)))
            relu, silu, sigmoid, silu_module = nnx.relu, nnx.silu, nnx.sigmoid, staticmethod(lambda: nnx.silu)
            to_numpy, axis = staticmethod(np.asarray), -1
            tokens = staticmethod(lambda x: x.reshape(x.shape[0], -1, x.shape[-1]))
    else:
        pytest.skip("PyTorch has tests of its own")
    Kit.package = import_module(backends.packages()[backend.name])
    Kit.method = "__call__" if backend.name == "jax" else "forward"
    return Kit


def made(kit: Any, init: Any, forward: Any) -> Any:
    """Return a model of these two functions."""

    def construct(self: Any) -> None:
        super(kind, self).__init__()
        init(self)

    kind = type("Model", (kit.module,), {"__init__": construct, kit.method: forward, "__module__": __name__})
    model = kind()
    model.eval()
    return model


def test_one_module_called_with_two_widths(kit: Any) -> None:
    def init(self: Any) -> None:
        self.c1, self.c2, self.act = kit.conv(3, 5), kit.conv(5, 6), kit.silu_module()

    def forward(self: Any, x: Any) -> Any:
        return self.act(self.c2(self.act(self.c1(x))))

    model, x = made(kit, init, forward), kit.array(X)
    before = kit.to_numpy(model(x))
    done = kit.package.replace_activations(model, {"swish": "acon_c"}, x)  # what most code calls SiLU
    assert [(site.path, site.channels, site.calls) for site in done.replaced] == [("act", 5, 1), ("act_2", 6, 1)]
    assert (done.kept, done.functional, done.warnings) == ((), (), ())
    assert done.change is not None
    assert done.change < 1e-5
    np.testing.assert_allclose(kit.to_numpy(model(x)), before, atol=1e-5)
    np.testing.assert_array_equal(kit.to_numpy(copy.deepcopy(model)(x)), kit.to_numpy(model(x)))


def test_functions_become_modules_each_with_its_axis(kit: Any) -> None:
    def init(self: Any) -> None:
        self.c, self.head = kit.conv(3, 5), kit.linear(5, 4)

    def forward(self: Any, x: Any) -> Any:
        tokens = kit.tokens(kit.relu(self.c(x)))
        return kit.relu(self.head(tokens)) * kit.sigmoid(tokens[..., :4])

    model, x = made(kit, init, forward), kit.array(X)
    # A function that is reached through a class attribute is still the framework's.
    before = kit.to_numpy(model(x))
    done = kit.package.replace_activations(model, {"relu": "acon_c"}, x)
    if kit.package.__name__ == "acon_megengine":  # which sees functions by attributes of its own modules alone
        assert not done.sites
        return
    assert [(site.path, site.channels, site.axis) for site in done.replaced] == [("relu", 5, kit.axis), ("relu_2", 4, -1)]
    assert not done.functional  # nobody asked for sigmoid
    assert np.abs(kit.to_numpy(model(x)) - before).max() < 0.02


def test_scale_chooses_beta(kit: Any) -> None:
    def init(self: Any) -> None:
        self.c, self.other = kit.conv(3, 5), kit.conv(5, 4)

    def forward(self: Any, x: Any) -> Any:
        return self.other(kit.relu(self.c(x * 1e-4)))

    model, x = made(kit, init, forward), kit.array(X)
    done = kit.package.replace_activations(model, {"relu": "acon_c"}, x)
    if kit.package.__name__ != "acon_megengine":
        (site,) = done.replaced
        assert site.bound < 1e-6
        assert done.change < 0.01


def test_keyword_examples_and_factories(kit: Any) -> None:
    def init(self: Any) -> None:
        self.c, self.act = kit.conv(3, 5), kit.silu_module()

    def forward(self: Any, pixels: Any, labels: Any = None) -> Any:
        return self.act(self.c(pixels))

    model, x = made(kit, init, forward), kit.array(X)
    widths = []

    def factory(channels: int) -> str:
        widths.append(channels)
        return "acon_c"

    done = kit.package.replace_activations(model, {"silu": factory}, {"pixels": x}, where="a*")
    assert widths == [5]
    assert [site.path for site in done.replaced] == ["act"]
    missed = kit.package.replace_activations(model, {"gelu": "acon_c"}, {"pixels": x})
    assert missed.unmet == ("'gelu'",)


def test_unknown_axis_is_asked_for(kit: Any) -> None:
    if kit.package.__name__ == "acon_jax":  # whose channels are last
        return

    def init(self: Any) -> None:
        self.act = kit.silu_module()

    def forward(self: Any, x: Any) -> Any:
        return self.act(x)

    model, x = made(kit, init, forward), kit.array(X)
    with pytest.raises(AconError, match=r"channel axis is not known of act with inputs such as \(2, 3, 8, 7\)"):
        kit.package.replace_activations(model, {"silu": "acon_c"}, x)
    done = kit.package.replace_activations(model, {"silu": "acon_c"}, x, channel_axis={"act": -1})
    assert [(site.channels, site.axis) for site in done.replaced] == [(7, -1)]


def test_mode_that_nothing_tells_is_named(kit: Any) -> None:
    if kit.package.__name__ != "acon_jax":
        return
    from flax import nnx

    def init(self: Any) -> None:
        self.c, self.act = kit.conv(3, 5), kit.silu_module()

    def forward(self: Any, x: Any) -> Any:
        return self.act(self.c(x))

    done = kit.package.replace_activations(made(kit, init, forward), {"silu": "meta_acon"}, kit.array(X))
    assert done.replaced[0].note == (
        "in training mode, since nothing in the model says which; call model.eval() or model.train()"
    )

    def normed(self: Any) -> None:
        init(self)
        self.norm = nnx.BatchNorm(5, rngs=nnx.Rngs(0))

    model = made(kit, normed, forward)
    (site,) = kit.package.replace_activations(model, {"silu": "meta_acon"}, kit.array(X)).replaced
    assert site.note == ""
