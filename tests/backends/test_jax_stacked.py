"""Surgery on layers that are stacked for nnx.scan and nnx.vmap, or called under nnx.jit."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.backend("jax")


def model(activation, how, layers=(3,)):  # type: ignore[no-untyped-def]
    """Build blocks, stacked along the axes `layers`, and a model that runs them in turn."""
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.linear = nnx.Linear(5, 5, rngs=rngs)
            self.act = activation()

        def __call__(self, x):  # type: ignore[no-untyped-def]
            return self.act(self.linear(x))

    class Model(nnx.Module):
        def __init__(self) -> None:
            make = Block
            for size in layers if how in ("scan", "vmap") else ():
                make = nnx.split_rngs(splits=size)(nnx.vmap(make, in_axes=(0,), out_axes=0))
            self.blocks = make(nnx.Rngs(0))

        def __call__(self, x):  # type: ignore[no-untyped-def]
            if how == "vmap":
                return nnx.vmap(lambda block, x: block(x), in_axes=(0, None))(self.blocks, x)
            if how in ("jit", "remat"):
                return getattr(nnx, how)(lambda block, x: block(x))(self.blocks, x)

            def run(x, block):  # type: ignore[no-untyped-def]
                return block(x)

            for _ in layers:
                run = nnx.scan(run, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
            return run(x, self.blocks)

    return Model()


@pytest.mark.parametrize("how", ["jit", "remat", "scan", "vmap"])
@pytest.mark.parametrize("old", ["relu", "prelu", "swish"])
def test_replaced_module_is_stacked_as_its_layer_is(how: str, old: str) -> None:
    import acon_jax
    from flax import nnx

    kind = {"relu": lambda: nnx.relu, "prelu": nnx.PReLU, "swish": lambda: acon_jax.Swish(rngs=nnx.Rngs(0))}[old]
    net = model(kind, how)
    own = {"prelu": "negative_slope", "swish": "weight"}.get(old)
    if own:  # a value of its own for each layer, and a slope above 1
        variable = getattr(net.blocks.act, own)
        variable[...] = np.linspace(0.3, 1.4, variable.size).reshape(variable.shape).astype("float32")
    x = np.random.default_rng(0).normal(size=(2, 5)).astype("float32")
    before = net(x)
    (site,) = acon_jax.replace_activations(net, {old: "acon_c"}, x, beta=1e4).replaced
    assert site.bound == (0.0 if old == "swish" else pytest.approx(2.78e-5, rel=1e-2))
    assert net.blocks.act.beta.shape == ((3, 5) if how in ("scan", "vmap") else (5,))
    np.testing.assert_allclose(net(x), before, atol=1e-4, rtol=0)


def test_two_stacked_axes_and_random_initial_values() -> None:
    import acon_jax
    from flax import nnx

    net = model(lambda: nnx.relu, "scan", (3, 2))
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    acon_jax.replace_activations(net, {"relu": "meta_acon(norm=none, reduction=2)"}, x)
    shapes = {".".join(map(str, path)): each.shape for path, each in nnx.to_flat_state(nnx.state(net.blocks, nnx.Param))}
    assert all(shape[:2] == (2, 3) for shape in shapes.values())
    assert shapes["act.p1"] == (2, 3, 5)
    weights = np.asarray(net.blocks.act.p1[...]).reshape(6, 5)
    assert len(np.unique(weights)) == weights.size  # each layer has values of its own
    assert np.isfinite(net(x)).all()


def test_layers_stacked_along_another_axis_are_refused() -> None:
    import acon_jax
    from flax import nnx

    from acon_core.errors import AconError

    @nnx.split_rngs(splits=3)
    @nnx.vmap(in_axes=(0,), out_axes=1)
    def layers(rngs: nnx.Rngs) -> nnx.Linear:
        return nnx.Linear(5, 4, rngs=rngs)

    class Model(nnx.Module):
        def __init__(self, inside: bool) -> None:
            self.linear, self.inside, self.act = layers(nnx.Rngs(0)), inside, nnx.relu
            self.linear.act = nnx.relu

        def __call__(self, x):  # type: ignore[no-untyped-def]
            def run(layer, x):  # type: ignore[no-untyped-def]
                y = layer(x)
                return layer.act(y) if self.inside else y

            return self.act(nnx.vmap(run, in_axes=(1, None))(self.linear, x))

    x = np.ones((2, 5), "float32")
    with pytest.raises(AconError, match=r"linear.act: expected layers that are stacked along the first axis"):
        acon_jax.replace_activations(Model(inside=True), {"relu": "acon_c"}, x)
    net = Model(inside=False)
    del net.linear.act
    assert acon_jax.replace_activations(net, {"relu": "acon_c"}, x).replaced[0].path == "act"
