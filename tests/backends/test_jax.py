"""ACON-C under JAX transforms: jit, vmap, second-order gradients, Hessian; Flax serialization."""

from __future__ import annotations

import numpy as np
import pytest
from repository import DATA

from acon_core.errors import OneValuePerChannelError

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


def test_second_order_gradients_and_hessian() -> None:
    import jax
    from acon_jax import acon

    with jax.enable_x64(True):
        x, gates = values("float64")
        for argument in range(4):

            def loss(f, *arguments):  # type: ignore[no-untyped-def]
                return (f(*arguments) ** 2).sum()

            def second(f, *arguments, argument=argument):  # type: ignore[no-untyped-def]
                return jax.grad(lambda *a: (jax.grad(lambda *b: loss(f, *b), argument)(*a) ** 2).sum(), 0)(*arguments)

            np.testing.assert_allclose(jax.jit(lambda *a: second(acon, *a))(x, *gates), second(plain, x, *gates), rtol=1e-9)
        hessian = jax.hessian(lambda x: acon(x, *gates).sum())(x[0, 0])
        np.testing.assert_allclose(hessian, jax.hessian(lambda x: plain(x, *gates).sum())(x[0, 0]), atol=1e-12)


def test_vmap_over_models_and_rows() -> None:
    import jax
    import jax.numpy as jnp
    from acon_jax import acon

    x, gates = values()
    rows = jax.vmap(lambda row: acon(row[None], *gates)[0])(x)
    np.testing.assert_allclose(rows, acon(x, *gates), rtol=1e-6)
    many = [jnp.stack([gate, 2 * gate]) for gate in gates]
    both = jax.vmap(lambda *g: jax.grad(lambda x: acon(x, *g).sum())(x))(*many)
    np.testing.assert_allclose(both[1], jax.grad(lambda x: plain(x, *(2 * g for g in gates)).sum())(x), atol=1e-5)


def test_backward_pass_saves_only_its_inputs() -> None:
    import jax
    from acon_jax import acon

    x, gates = values()
    _, back = jax.vjp(acon, x, *gates)
    kept = sum(leaf.size for leaf in jax.tree.leaves(back))
    assert kept <= x.size + sum(gate.size for gate in gates)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_computed_in_float32(dtype: str) -> None:
    import jax
    import jax.numpy as jnp
    from acon_jax import acon

    x, gates = values(dtype)
    wide = [value.astype("float32") for value in (x, *gates)]
    assert acon(x, *gates).dtype == x.dtype
    np.testing.assert_array_equal(acon(x, *gates), acon(*wide).astype(dtype))
    narrow = jax.grad(lambda *a: acon(*a).astype("float32").sum(), range(4))(x, *gates)
    for found, exact in zip(narrow, jax.grad(lambda *a: acon(*a).sum(), range(4))(*wide), strict=True):
        assert found.dtype == jnp.dtype(dtype)
        np.testing.assert_allclose(found.astype("float32"), exact, rtol=1e-2, atol=2e-2)


def test_channel_axis_is_explicit() -> None:
    import jax.numpy as jnp
    from acon_jax import acon

    x, gates = values()
    turned = jnp.moveaxis(x, -1, 1)
    np.testing.assert_array_equal(jnp.moveaxis(acon(turned, *gates, channel_axis=1), 1, -1), acon(x, *gates))


def test_one_value_per_channel_is_refused_while_tracing() -> None:
    from acon_jax import MetaAconC
    from flax import nnx

    module = MetaAconC(8, reduction=4, rngs=nnx.Rngs(0))
    module.train()
    with pytest.raises(OneValuePerChannelError, match=r"^bn1: "):
        nnx.jit(lambda module, x: module(x))(module, np.ones((1, 3, 4, 8), np.float32))
    with pytest.raises(OneValuePerChannelError, match=r"^bn1: "):
        nnx.eval_shape(lambda module, x: module(x), module, np.ones((1, 3, 4, 8), np.float32))


def test_flax_serialization_round_trip(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import acon_jax
    from flax import nnx, serialization

    from acon_core.checkpoint import convert, read_network

    convert(DATA / "shufflenetv2_acon_0.5x.pth.tar", tmp_path / "a.msgpack")
    model = acon_jax.load(tmp_path / "a.msgpack")
    tree = nnx.to_pure_dict(nnx.state(model))
    assert serialization.to_bytes(tree) == serialization.to_bytes(
        serialization.from_bytes(tree, (tmp_path / "a.msgpack").read_bytes())
    )
    (tmp_path / "b.msgpack").write_bytes(serialization.to_bytes(tree))
    first, second = read_network(tmp_path / "a.msgpack"), read_network(tmp_path / "b.msgpack")
    for path, array in first.state.items():
        np.testing.assert_array_equal(array, second.state[path], err_msg=path)


def test_import_leaves_jax_config_unchanged() -> None:
    import jax

    assert not jax.config.jax_enable_x64
