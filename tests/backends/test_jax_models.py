"""The activations in nnx models, and surgery on users' models."""

from __future__ import annotations

import inspect
from functools import partial

import numpy as np
import pytest

pytestmark = pytest.mark.backend("jax")


def values():  # type: ignore[no-untyped-def]
    import jax.numpy as jnp

    return jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 2, 5)), "float32")


def test_class_signatures_and_channel_axis() -> None:
    import acon_jax
    import jax.numpy as jnp
    from flax import nnx

    def positional(kind):  # type: ignore[no-untyped-def]
        return [p.name for p in inspect.signature(kind).parameters.values() if p.kind is not p.KEYWORD_ONLY]

    assert positional(acon_jax.MetaAconC) == ["channels", "reduction", "norm", "init", "level", "reduce", "generator"]
    assert positional(acon_jax.RepAct) == ["variant"]
    assert inspect.signature(acon_jax.PReLU).parameters["channels"].default is None
    assert inspect.signature(acon_jax.AconC).parameters["channel_axis"].default is None
    assert "channel_axis" not in inspect.signature(acon_jax.RepAct).parameters
    with pytest.raises(TypeError, match="variant"):
        acon_jax.AconC(5, variant=1, rngs=None)
    first, last = (acon_jax.AconC(5, channel_axis=axis, rngs=nnx.Rngs(0)) for axis in (1, -1))
    x = values()
    np.testing.assert_array_equal(jnp.moveaxis(first(jnp.moveaxis(x, -1, 1)), 1, -1), last(x))
    np.testing.assert_array_equal(acon_jax.AconC(5, rngs=nnx.Rngs(0))(x), last(x))  # None means -1 in JAX


def test_derived_arrays_are_not_parameters() -> None:
    import acon_jax
    from flax import nnx

    module = acon_jax.DyReLU(8, rngs=nnx.Rngs(0))
    assert set(nnx.state(module, nnx.Param)) == {"fc1", "fc2"}
    assert {"lambdas", "init_v"} < set(nnx.state(module))
    assert acon_jax.DyReLU(8, rngs=None).lambdas[...].tolist() == [1.0, 1.0, 0.5, 0.5]


def user_model():  # type: ignore[no-untyped-def]
    """Build a user's model: functions as attributes, in Sequential and partial, and called."""
    import acon_jax
    from flax import nnx
    from flax.nnx import relu as called

    class Block(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.norm = nnx.BatchNorm(5, rngs=rngs)
            self.act = nnx.relu
            self.gate = partial(nnx.gelu, approximate=False)

        def __call__(self, x):  # type: ignore[no-untyped-def]
            return self.gate(self.act(self.norm(x)))

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.block = Block(rngs)
            self.twin = nnx.List([self.block])
            self.tail = nnx.Sequential(nnx.Linear(5, 5, rngs=rngs), nnx.silu, nnx.PReLU(0.25))
            self.heads = nnx.LinearGeneral(5, (1, 5), rngs=rngs)  # its bias has two axes
            self.rep, self.meta = acon_jax.RepAct(rngs=rngs), acon_jax.MetaAconC(5, reduction=2, rngs=rngs)

        def __call__(self, x):  # type: ignore[no-untyped-def]
            return self.meta(self.rep(called(self.heads(self.tail(self.twin[0](x)))[..., 0, :])))

    model = Net(nnx.Rngs(0))
    model.eval()
    return model


def test_replace_activations() -> None:
    import acon_jax
    from flax import nnx

    model, x = user_model(), values()
    before, state = model(x), nnx.state(model)
    made = acon_jax.replace_activations(model, {"relu": "prelu", "silu": "acon_c", "prelu": "repact(variant=3)"}, x)
    assert [site.path for site in made.replaced] == ["block.act", "twin.0.act", "tail.layers.1", "tail.layers.2", "relu"]
    assert made.functional == ()
    assert isinstance(model.block.act, acon_jax.PReLU)
    assert model.tail.layers[2].norm.use_running_average
    np.testing.assert_allclose(model(x), before, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(model.block.norm.mean[...], state["block"]["norm"]["mean"][...])
    nnx.jit(lambda model, x: model(x))(model, x)  # still a valid nnx graph


def test_fuse_and_fold_preserve_outputs() -> None:
    import acon_jax

    model, x = user_model(), values()
    before = model(x)
    assert acon_jax.fold(acon_jax.fuse(model)) is model
    assert isinstance(model.rep, acon_jax.FusedRepAct)
    assert model.meta.spec.norm == "none"
    np.testing.assert_allclose(model(x), before, rtol=1e-5, atol=1e-6)


def test_weight_decay_in_optimizer() -> None:
    import acon_jax
    import jax
    import optax
    from flax import nnx

    model = user_model()
    nnx.update(model, jax.tree.map(lambda p: p + 1, nnx.state(model, nnx.Param)))  # decay of zeros would not show
    optimizer = nnx.Optimizer(model, optax.chain(acon_jax.param_groups(model, 0.5), optax.sgd(1.0)), wrt=nnx.Param)
    before = {path: np.array(each[...]) for path, each in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    optimizer.update(model, jax.tree.map(lambda p: 0 * p, nnx.state(model, nnx.Param)))
    after = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    decayed = {".".join(map(str, path)) for path, old in before.items() if (after[path][...] != old).any()}
    assert decayed == {"tail.layers.0.kernel", "heads.kernel", "meta.fc1.kernel", "meta.fc2.kernel"}


def test_doctor_and_gradient_bounds() -> None:
    import acon_jax
    import jax
    import jax.numpy as jnp
    from flax import nnx

    class Wrong(nnx.Module):
        def __init__(self) -> None:
            self.p1, self.p2, self.beta = (nnx.Param(jnp.ones(3)) for _ in range(3))

        def __call__(self, x):  # type: ignore[no-untyped-def]
            return x * (self.p2 + (self.p1 - self.p2) * jax.nn.sigmoid(self.beta * x))

    assert acon_jax.doctor(acon_jax.AconC(3, channel_axis=1, rngs=None), channel_axis=1).healthy
    wrong = Wrong()
    assert not acon_jax.doctor(wrong).healthy
    assert wrong.beta[...].tolist() == [1.0] * 3
    (bounds,) = acon_jax.gradient_bounds(acon_jax.AconA(3, rngs=nnx.Rngs(0))).values()
    np.testing.assert_allclose([bounds.low[0], bounds.high[0]], [-0.0998393, 1.0998393], rtol=1e-6)


def mixed_dtype_model(dtype: str):  # type: ignore[no-untyped-def]
    """Build a float32 model in training, with one activation in `dtype` and evaluation."""
    import acon_jax
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.head, self.norm = nnx.Linear(5, 5, rngs=rngs), nnx.BatchNorm(5, rngs=rngs)
            self.meta = acon_jax.MetaAconC(5, reduction=2, dtype=dtype, rngs=rngs)
            self.act = nnx.relu

        def __call__(self, x):  # type: ignore[no-untyped-def]
            return self.act(self.meta(self.norm(self.head(x)).astype(dtype)).astype("float32"))

    model = Net(nnx.Rngs(0))
    model.meta.eval()
    return model


def test_new_modules_inherit_dtype_mode_and_device() -> None:
    import acon_jax
    import jax
    from flax import nnx

    model = mixed_dtype_model("bfloat16")
    nnx.update(model, jax.device_put(nnx.state(model), jax.devices()[0]))
    made = acon_jax.replace_activations(model, {"meta_acon": "repact(variant=3)", "relu": "meta_acon"}, values())
    assert len(made.replaced) == 2
    for module, dtype, evaluates in ((model.meta.norm, "bfloat16", True), (model.act.bn1, "float32", False)):
        assert {each.dtype for each in jax.tree.leaves(nnx.state(module))} == {np.dtype(dtype)}
        assert module.use_running_average is evaluates
        assert all(each.committed for each in jax.tree.leaves(nnx.state(module)))
    loose = mixed_dtype_model("bfloat16")
    acon_jax.fold(loose)
    assert loose.meta.fc1.kernel.dtype == "bfloat16"
    assert not loose.meta.fc1.kernel[...].committed  # so that it may still move with the model


def test_replacement_keeps_channel_axis() -> None:
    import acon_jax
    import jax.numpy as jnp
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self) -> None:
            self.act = acon_jax.activation("prelu", 4, shared=False, channel_axis=1, rngs=nnx.Rngs(0))

        def __call__(self, x):  # type: ignore[no-untyped-def]
            return self.act(x)

    model, x = Net(), values()
    model.act.weight[...] = jnp.array([0.25, 0.5, 1.0, -0.25])
    before = model(x)
    acon_jax.replace_activations(model, {"prelu": "acon_c"}, x, beta=1e4)
    assert model.act.p1.shape == (4,)
    np.testing.assert_allclose(model(x), before, atol=1e-4)


def test_user_subclass_is_not_recognised() -> None:
    import acon_jax
    from flax import nnx

    class Doubled(acon_jax.AconC):
        def __call__(self, x, **more):  # type: ignore[no-untyped-def]
            return 2 * super().__call__(x, **more)

    class Shifted(nnx.PReLU):
        def __call__(self, x):  # type: ignore[no-untyped-def]
            return super().__call__(x) + 1

    model = nnx.Sequential(Doubled(5, rngs=nnx.Rngs(0)), Shifted(0.25), nnx.relu)
    made = acon_jax.replace_activations(model, {"acon_c": "relu", "prelu": "relu", "relu": "swish"}, values())
    assert [site.path for site in made.sites] == ["layers.2"]
    assert acon_jax.gradient_bounds(model) == {}


def test_keyword_and_multiple_inputs() -> None:
    import acon_jax
    import jax.numpy as jnp
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self) -> None:
            self.act, self.last = nnx.relu, acon_jax.Swish(rngs=nnx.Rngs(0))

        def __call__(self, x, scale, twice=False):  # type: ignore[no-untyped-def]
            y = self.last(x=self.act(x=x)) * scale
            return y @ jnp.ones((5, 7)) if twice else y

    for example in ((values(), jnp.ones(5)), (values(), jnp.ones(5), True)):
        model = Net()
        made = acon_jax.replace_activations(model, {"relu": "acon_c", "swish": "acon_a"}, example)
        assert [(site.channels, site.calls) for site in made.replaced] == [(5, 1), (5, 1)]


def test_weight_decay_spares_user_gates_and_norms() -> None:
    import jax.numpy as jnp
    from acon_jax.surgery import modules
    from flax import nnx

    from acon_core.surgery import decays

    class Written(nnx.Module):
        def __init__(self) -> None:
            for name in ("p1", "p2", "beta", "scale", "bias", "kernel"):
                setattr(self, name, nnx.Param(jnp.ones((1, 1, 1, 5))))

    rngs = nnx.Rngs(0)
    stacked = nnx.split_rngs(splits=3)(nnx.vmap(lambda rngs: nnx.RMSNorm(5, rngs=rngs)))(nnx.Rngs(0))  # as for a scan
    assert stacked.scale.shape == (3, 5)
    chosen = decays(modules, nnx.Sequential(Written(), nnx.RMSNorm(5, rngs=rngs), nnx.GroupNorm(5, 1, rngs=rngs), stacked))
    assert {path for path, decayed in chosen.items() if decayed} == {"layers.0.kernel"}
