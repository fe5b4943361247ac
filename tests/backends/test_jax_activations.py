"""Every function on JAX arrays: values and gradients at kinks and extremes, memory, jit."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

pytestmark = pytest.mark.backend("jax")


def values(dtype="float32"):  # type: ignore[no-untyped-def]
    import jax.numpy as jnp

    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(3, 4, 2, 5)), dtype)
    return x, [jnp.asarray(random.normal(size=5), dtype) for _ in range(3)]


def plain(x, p1, p2, beta):  # type: ignore[no-untyped-def]
    """Compute the formula, which JAX differentiates."""
    import jax

    return (p1 - p2) * x * jax.nn.sigmoid(beta * (p1 - p2) * x) + p2 * x


def close(found, expected, tolerance: float) -> None:  # type: ignore[no-untyped-def]
    expected = np.asarray(expected, np.float64)
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=0, atol=tolerance * np.abs(expected).max())


# Value and gradient at chosen points, from the formulas of the spec: exact, or by mpmath to 30
# digits.
E = float(np.exp(-1.0))
POINTS: dict[str, tuple[dict[str, object], list[tuple[float, float, float]]]] = {
    "relu": ({}, [(0.0, 0.0, 0.0), (-0.0, 0.0, 0.0), (2.0, 2.0, 1.0), (-2.0, 0.0, 0.0), (1e30, 1e30, 1.0)]),
    "relu6": ({}, [(0.0, 0.0, 0.0), (6.0, 6.0, 0.0), (3.0, 3.0, 1.0), (1e30, 6.0, 0.0), (-1e30, 0.0, 0.0)]),
    "leaky_relu": ({"slope": 0.25}, [(0.0, 0.0, 0.25), (-0.0, 0.0, 0.25), (2.0, 2.0, 1.0), (-2.0, -0.5, 0.25)]),
    "elu": ({"alpha": 1.5}, [(0.0, 0.0, 1.5), (2.0, 2.0, 1.0), (-1.0, 1.5 * (E - 1), 1.5 * E), (-1e30, -1.5, 0.0)]),
    "selu": ({}, [(0.0, 0.0, 1.7580993408473768), (2.0, 2.101401974710961, 1.05070098735548), (-9e9, -1.758099340847377, 0)]),
    "celu": ({"alpha": 2.0}, [(0.0, 0.0, 1.0), (3.0, 3.0, 1.0), (-2.0, 2 * (E - 1), E), (-1e30, -2.0, 0.0)]),
    "gelu": ({}, [(0.0, 0.0, 0.5), (1.0, 0.841344746068542949, 1.08331547058768623), (1e30, 1e30, 1.0), (-1e30, 0.0, 0.0)]),
    "gelu_tanh": ({}, [(0.0, 0.0, 0.5), (1.0, 0.8411919906082767, 1.0829640838457826), (1e30, 1e30, 1.0), (-1e30, 0.0, 0.0)]),
    "silu": ({}, [(0.0, 0.0, 0.5), (1.0, 0.731058578630004879, 0.927670511871486732), (1e30, 1e30, 1.0), (-1e30, 0.0, 0.0)]),
    "mish": ({}, [(0.0, 0.0, 0.6), (1.0, 0.865098388267310346, 1.04903622009979216), (1e30, 1e30, 1.0), (-1e30, 0.0, 0.0)]),
    "softplus": ({"beta": 2.0}, [(0.0, np.log(2) / 2, 0.5), (3e38, 3e38, 1.0), (-3e38, 0.0, 0.0), (25.0, 25.0, 1.0)]),
    "hardswish": ({}, [(-3.0, 0.0, 0.0), (3.0, 3.0, 1.0), (0.0, 0.0, 0.5), (3e38, 3e38, 1.0), (-3e38, 0.0, 0.0)]),
    "hardsigmoid": ({}, [(-3.0, 0.0, 0.0), (3.0, 1.0, 0.0), (0.0, 0.5, 1 / 6), (3e38, 1.0, 0.0), (1.5, 0.75, 1 / 6)]),
    "sigmoid": ({}, [(0.0, 0.5, 0.25), (1.0, 0.731058578630004879, 0.196611933241481852), (1e30, 1.0, 0.0), (-1e30, 0.0, 0.0)]),
    "identity": ({}, [(0.0, 0.0, 1.0), (3e38, 3e38, 1.0)]),
}  # fmt: skip


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pointwise_kinks_and_extremes(name: str, dtype: str) -> None:
    import jax
    import jax.numpy as jnp
    from acon_jax import pointwise

    options, points = POINTS[name]
    function = (
        partial(pointwise.gelu, approximate="tanh") if name == "gelu_tanh" else partial(getattr(pointwise, name), **options)
    )
    with jax.enable_x64(dtype == "float64"):
        x, y, dy = (jnp.array(column, dtype) for column in zip(*points, strict=True))
        found, back = jax.vjp(function, x)
        assert found.dtype == x.dtype
        tolerance = {"float32": 4e-7, "float64": 1e-15}[dtype]
        np.testing.assert_allclose(found, y, rtol=tolerance, atol=1e-30)
        np.testing.assert_allclose(back(jnp.ones_like(x))[0], dy, rtol=tolerance, atol=1e-30)
        np.testing.assert_allclose(jax.jvp(function, (x,), (jnp.ones_like(x),))[1], dy, rtol=tolerance, atol=1e-30)


def test_hardswish_gradient_near_its_knot() -> None:
    """In float32, x + 3 already rounds to 6 one step below 3, where the slope is still 1.5."""
    import jax
    from acon_jax.pointwise import hardswish

    before = np.nextafter(np.float32(3), np.float32(0))
    assert abs(float(jax.grad(hardswish)(before)) - 1.5) < 1e-6


def gates(*shapes):  # type: ignore[no-untyped-def]
    import jax.numpy as jnp

    random = np.random.default_rng(1)
    return [jnp.asarray(random.uniform(-1.5, 1.5, shape)) for shape in shapes]


def relu_hardswish(x):  # type: ignore[no-untyped-def]
    """Compute relu + hardswish away from the kinks, for JAX to differentiate."""
    import jax.numpy as jnp

    return jnp.where(x > 0, x, 0.0), jnp.where(x >= 3, x, jnp.where(x <= -3, 0.0, x * (x + 3) / 6))


def formulas():  # type: ignore[no-untyped-def]
    """Return every gated function: ours, the plain formula, and the shapes of its gates."""
    import jax
    import jax.numpy as jnp
    from acon_jax import acon, smooth_maximum
    from acon_jax import functional as F

    s = jax.nn.sigmoid
    per_sample, pixel = (3, 1, 1, 5), (3, 4, 2, 5)

    def dynamic(x, theta, channels):  # type: ignore[no-untyped-def]
        a, b, c, d = jnp.moveaxis((2 * s(theta) - 1).reshape(3, 1, 1, channels, 4) * 0.5 + 0.25, -1, 0)
        return jnp.where(a * x + c > b * x + d, a * x + c, b * x + d)

    constants = jnp.full(4, 0.5), jnp.full(4, 0.25)
    return {
        "acon_a": (lambda x, k: acon(x, 1.0, 0.0, k), lambda x, k: x * s(k * x), [(5,)]),
        "acon_b": (lambda x, p, k: acon(x, 1.0, p, k), lambda x, p, k: plain(x, 1.0, p, k), [(1,), (5,)]),
        "acon_per_sample": (acon, plain, [(5,), (1, 1, 1, 5), per_sample]),
        "acon_one_a_sample": (acon, lambda x, a, b, k: plain(x, a, b, k), [(5,), (5,), (3, 1, 1, 1)]),
        "acon_pixel": (acon, plain, [(5,), (5,), pixel]),
        "prelu": (F.prelu, lambda x, a: jnp.where(x > 0, x, a * x), [(5,)]),
        "attention": (
            lambda x, a, b: F.arelu(x, 0.4 + a / 10, b),
            lambda x, a, b: jnp.where(x > 0, (1 + s(b)) * x, (0.4 + a / 10) * x), [(1,), (1,)],
        ),
        "repact": (
            F.repact, lambda x, a, b, h, c: a * x + b * relu_hardswish(x)[0] + h * relu_hardswish(x)[1] + c, [(1,)] * 4,
        ),
        "dynamic_a": (lambda x, t: F.dynamic_maximum(x, t, *constants), lambda x, t: dynamic(x, t, 1), [(3, 4)]),
        "dynamic_b": (lambda x, t: F.dynamic_maximum(x, t, *constants), lambda x, t: dynamic(x, t, 5), [(3, 20)]),
        "smooth_maximum": (
            lambda x, v, w, k: smooth_maximum(x, v, w, beta=k),
            # An offset from x, because a difference of large values would be all rounding.
            lambda x, v, w, k: x + (jax.nn.softmax(k * jnp.stack([x, v, w]), 0)[1:] * jnp.stack([v - x, w - x])).sum(0),
            [pixel, pixel, (1,)],
        ),
    }  # fmt: skip


GATED = ["acon_a", "acon_b", "acon_per_sample", "acon_one_a_sample", "acon_pixel", "prelu", "attention", "repact",
         "dynamic_a", "dynamic_b", "smooth_maximum"]  # fmt: skip


@pytest.mark.parametrize("name", GATED)
def test_gated_gradients_under_jit_and_second_order(name: str) -> None:
    """Value, all gradients, and second-order gradients, against JAX on the plain formula."""
    import jax

    with jax.enable_x64(True):
        ours, formula, shapes = formulas()[name]
        arguments = [3 * values("float64")[0], *gates(*shapes)]
        every = tuple(range(len(arguments)))

        def first(f, *a):  # type: ignore[no-untyped-def]
            return jax.grad(lambda *a: (f(*a) ** 2).sum(), every)(*a)

        def all_of(f, *a):  # type: ignore[no-untyped-def]
            return f(*a), first(f, *a), jax.grad(lambda *a: sum((each**2).sum() for each in first(f, *a)), every)(*a)

        found, expected = (jax.jit(partial(all_of, f))(*arguments) for f in (ours, formula))
        jax.tree.map(lambda a, b: close(a, b, 1e-13), found, expected)


@pytest.mark.parametrize("name", GATED)
def test_gated_functions_save_only_their_inputs(name: str) -> None:
    import jax

    ours, _, shapes = formulas()[name]
    arguments = [values()[0], *gates(*shapes)]
    _, back = jax.vjp(ours, *arguments)
    kept = sum(leaf.size for leaf in jax.tree.leaves(back))
    small = sum(each.size for each in arguments if each.size < arguments[0].size)
    assert kept <= sum(each.size for each in arguments) + 2 * small + 4  # and what is computed from the gates alone


@pytest.mark.parametrize("kind", ["AconA", "AconB", "AconC", "Swish", "PReLU", "AReLU", "RepAct", "FusedRepAct"])
def test_modules_save_only_input_and_parameters(kind: str) -> None:
    import acon_jax
    import jax
    from flax import nnx

    channels = {} if kind in ("Swish", "AReLU", "RepAct", "FusedRepAct") else {"channels": 5}
    graphdef, state = nnx.split(getattr(acon_jax, kind)(**channels, rngs=nnx.Rngs(0)))
    x, _ = values()
    _, back = jax.vjp(lambda state, x: nnx.merge(graphdef, state)(x), state, x)
    assert sum(leaf.size for leaf in jax.tree.leaves(back)) <= x.size + 40


def test_gated_kinks() -> None:
    import jax
    import jax.numpy as jnp
    from acon_jax import functional as F

    def slope(f, *a):  # type: ignore[no-untyped-def]
        return [np.asarray(g).ravel().tolist() for g in jax.grad(lambda *a: f(*a).sum(), tuple(range(len(a))))(*a)]

    zero, one = jnp.zeros((1, 1)), jnp.ones(1)
    assert slope(F.prelu, zero, 0.25 * one) == [[0.25], [0.0]]
    assert slope(lambda x, a: F.arelu(x, a, 0 * a), zero, 0.5 * one) == [[0.5], [0.0]]
    for alpha, expected in ((0.01, -2.0), (0.99, -2.0), (0.0099, 0.0), (0.9901, 0.0)):  # the bounds belong to the interior
        assert slope(lambda x, a: F.arelu(x, a, 0 * a), zero - 2, alpha * one)[1] == [expected]
    for x, expected in ((0.0, 1.5), (-3.0, 1.0), (3.0, 4.0)):
        assert slope(lambda x: F.repact(x, 1.0, 2.0, 1.0), zero + x) == [[expected]]
    assert slope(F.maximum, zero, zero) == [[0.5], [0.5]]
    theta, constants = jnp.zeros((1, 4)), (jnp.array([1.0, 1, 0.5, 0.5]), jnp.array([1.0, 0, 0, 0]))
    assert slope(lambda x: F.dynamic_maximum(x, theta, *constants), zero) == [[0.5]]


def test_smooth_maximum_of_extreme_values_is_finite() -> None:
    import jax
    import jax.numpy as jnp
    from acon_jax import smooth_maximum

    top = np.finfo(np.float32).max
    a, b = (jnp.array(each, "float32") for each in ([top, -top, top, 1.0, 1e30], [-top, top, top, -1.0, 3.0]))
    np.testing.assert_allclose(smooth_maximum(a, b), [top, top, top, np.tanh(1.0), 1e30], rtol=1e-6)
    np.testing.assert_array_equal(smooth_maximum(a, b, beta=0.0)[:3], [0.0, 0.0, top])
    np.testing.assert_array_equal(smooth_maximum(a, b, beta=-1.0)[:3], [-top, -top, top])
    for beta in (1.0, 0.0, -1.0, 1e30):
        assert all(
            np.isfinite(g).all() for g in jax.grad(lambda a, b, k: smooth_maximum(a, b, beta=k).sum(), (0, 1))(a, b, beta)
        )


def test_empty_batch_and_half_precision() -> None:
    import acon_jax
    import jax.numpy as jnp
    from flax import nnx

    names = ("acon_a", "acon_b", "meta_acon(norm=none)", "dyrelu", "repact", "fused_repact", "arelu", "prelu", "swish", "gelu")
    for name in names:
        for shape in ((2, 3, 4, 5), (0, 3, 4, 5)):

            def run(x, name=name):  # type: ignore[no-untyped-def]
                return acon_jax.activation(name, 5, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)(x)

            made = nnx.eval_shape(run, jnp.zeros(shape, jnp.bfloat16))
            assert (made.shape, made.dtype) == (shape, jnp.bfloat16)


LAYERS = [
    "meta_acon(norm=batch)", "meta_acon(norm=layer)", "meta_acon(norm=none)", "meta_acon(level=layer,reduce=mean)",
    "meta_acon(level=pixel)", "frelu", "acon_frelu", "dyrelu(variant=A)", "dyrelu(variant=B)", "repact(variant=2)",
    "repact(variant=3)",
]  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_layers_are_computed_in_float32(name: str, dtype: str) -> None:
    """The result is the float32 result of the same numbers, rounded once; so are all gradients."""
    import acon_jax
    import jax
    from flax import nnx

    module = acon_jax.activation(name, 5, dtype=dtype, rngs=nnx.Rngs(0))
    module.eval()
    graphdef, state = nnx.split(module)
    x, (g, *_) = values(dtype)

    def loss(state, x):  # type: ignore[no-untyped-def]
        y = nnx.merge(graphdef, state)(x)
        assert y.dtype == x.dtype
        return (y.astype("float32") * g.astype("float32")).sum(), y

    found = jax.grad(loss, (0, 1), has_aux=True)(state, x)
    wide = jax.grad(loss, (0, 1), has_aux=True)(*jax.tree.map(lambda a: a.astype("float32"), (state, x)))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wide), strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a, b.astype(dtype))


def test_meta_acon_gradient_does_not_overflow_in_float16() -> None:
    import acon_jax
    import jax
    import jax.numpy as jnp
    from flax import nnx

    module = acon_jax.MetaAconC(64, level="layer", reduce="mean", init="paper", dtype=jnp.float16, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 112, 112, 64)), jnp.float16)
    assert np.isfinite(jax.grad(lambda x: module(x).sum(dtype="float32"))(x)).all()


@pytest.mark.parametrize("variant", [1, 2])
def test_half_precision_repact_saves_half_precision(variant: int) -> None:
    import acon_jax
    import jax
    from flax import nnx

    x, _ = values("bfloat16")
    graphdef, state = nnx.split(acon_jax.RepAct(variant, rngs=nnx.Rngs(0)))
    _, back = jax.vjp(lambda state, x: nnx.merge(graphdef, state)(x), state, x)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(back)) <= x.nbytes + 4 * 40
