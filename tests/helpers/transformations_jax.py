"""The rows of JAX's tables in docs/transformations.md."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import acon_jax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from transformations import ACTIVATIONS, CHANNELS, NETWORKS, Refusal, Subject, Transformation


def make(subject: Subject) -> nnx.Module:
    """Make the subject in evaluation mode, with its parameters off their initial values."""
    if subject.act:
        module = acon_jax.create(subject.name, subject.act, 7, **subject.options)
    else:
        module = acon_jax.activation(subject.name, CHANNELS, rngs=nnx.Rngs(7))
    rng = np.random.default_rng(7)
    moved = jax.tree.map(lambda each: each + (0.05 * rng.random(each.shape)).astype("float32"), nnx.state(module))
    nnx.update(module, moved)
    module.eval()
    return module


def images(subject: Subject, batch: int = 4) -> Array:
    """Return inputs, channels last."""
    values = np.random.default_rng(batch).uniform(-2, 2, (batch, *subject.size, 3 if subject.act else CHANNELS))
    return jnp.asarray(values, "float32")


def loss_of(graphdef: Any) -> Callable[[nnx.State, Array], Array]:
    """Return the mean of the weighted output, a function of state and input."""

    def loss(state: nnx.State, x: Array) -> Array:
        y = nnx.merge(graphdef, state)(x)
        return (y * jnp.cos(y)).mean()

    return loss


def agree(found: Any, expected: Any) -> None:
    """Compare trees of arrays: 2e-5 of the largest element."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        bound = 2e-5 * max(float(np.abs(other).max()), 1e-3)
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=0, atol=bound)


def derived(subject: Subject) -> tuple[Any, nnx.State, Array, Any]:
    """Return the graphdef, the state, an input, and the gradients of both."""
    graphdef, state = nnx.split(make(subject))
    x = images(subject)
    return graphdef, state, x, jax.jit(jax.grad(loss_of(graphdef), argnums=(0, 1)))(state, x)


def remat(subject: Subject) -> None:
    graphdef, state, x, expected = derived(subject)
    agree(jax.jit(jax.grad(jax.remat(loss_of(graphdef)), argnums=(0, 1)))(state, x), expected)


def shard_map(subject: Subject) -> None:
    graphdef, state, x, expected = derived(subject)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = jax.P("data"), jax.P()

    def loss(state: nnx.State, x: Array) -> Array:
        return jax.lax.pmean(loss_of(graphdef)(state, x), "data")

    divided = jax.shard_map(loss, mesh=mesh, in_specs=(whole, split), out_specs=whole)
    agree(jax.jit(jax.grad(divided, argnums=(0, 1)))(state, x), expected)


def explicit_sharding(subject: Subject) -> None:
    graphdef, state, x, expected = derived(subject)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        everywhere = jax.device_put(state, jax.NamedSharding(mesh, jax.P()))
        divided = jax.device_put(x, jax.NamedSharding(mesh, jax.P("data")))
        agree(jax.jit(jax.grad(loss_of(graphdef), argnums=(0, 1)))(everywhere, divided), expected)


def vmap(subject: Subject) -> None:
    graphdef, state = nnx.split(make(subject))
    x = images(subject)
    alone = jax.jit(jax.vmap(lambda row: nnx.merge(graphdef, state)(row[None])[0]))(x)
    agree(alone, nnx.merge(graphdef, state)(x))


def scan(subject: Subject) -> None:
    graphdef, state = nnx.split(make(subject))
    x = images(subject)
    stacked = jax.tree.map(lambda each: jnp.stack([each, 1.1 * each]), state)
    step = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    expected = x
    for layer in (state, jax.tree.map(lambda each: 1.1 * each, state)):
        expected = nnx.merge(graphdef, layer)(expected)
    agree(step(x, nnx.merge(graphdef, stacked)), expected)


def second_derivative(subject: Subject) -> None:
    graphdef, state, x, _ = derived(subject)
    direction = jnp.asarray(np.random.default_rng(1).normal(size=x.shape), "float32")

    def slope(x: Array) -> Array:
        return (jax.grad(loss_of(graphdef), argnums=1)(state, x) * direction).sum()

    # The two orders of differentiation agree: along u then v, and along v then u.
    other = jnp.asarray(np.random.default_rng(2).normal(size=x.shape), "float32")

    def slope_along_other(x: Array) -> Array:
        return (jax.grad(loss_of(graphdef), argnums=1)(state, x) * other).sum()

    one = (jax.jit(jax.grad(slope))(x) * other).sum()
    two = (jax.jit(jax.grad(slope_along_other))(x) * direction).sum()
    np.testing.assert_allclose(one, two, rtol=2e-4, atol=1e-7)


def forward_mode(subject: Subject) -> None:
    graphdef, state, x, (_, to_x) = derived(subject)
    direction = jnp.ones_like(x)
    _, slope = jax.jvp(lambda x: loss_of(graphdef)(state, x), (x,), (direction,))
    np.testing.assert_allclose(slope, (to_x * direction).sum(), rtol=1e-4)


def export_open_batch(subject: Subject) -> None:
    graphdef, state = nnx.split(make(subject))
    (batch,) = jax.export.symbolic_shape("batch")
    opened = jax.ShapeDtypeStruct((batch, *images(subject).shape[1:]), "float32")
    program = jax.export.export(jax.jit(lambda x: nnx.merge(graphdef, state)(x)))(opened)
    loaded = jax.export.deserialize(program.serialize())
    for count in (CHANNELS, 3):
        x = images(subject, count)
        agree(loaded.call(x), nnx.merge(graphdef, state)(x))


def pickled(subject: Subject) -> None:
    module = make(subject)
    again = pickle.loads(pickle.dumps(module))
    agree(nnx.state(again), nnx.state(module))
    if not subject.act:
        agree(again(images(subject)), module(images(subject)))


_NO_FORWARD_MODE = Refusal(
    "JAX has no forward mode for functions with hand-written gradients (`jax.custom_vjp`).", "can't apply forward-mode"
)
_ONE_OF_EACH_KIND = tuple(
    subject for subject in ACTIVATIONS if subject.title in ("PReLU", "DyReLU", "FReLU", "AconC", "MetaAconC", "RepAct")
)

TRANSFORMATIONS = (
    Transformation("`jax.remat`", "gradients of input and parameters, under `jax.jit`", remat, on=_ONE_OF_EACH_KIND),
    Transformation(
        "`jax.shard_map`",
        "the same with the batch divided, parameters replicated and `check_vma` on",
        shard_map,
        on=ACTIVATIONS,
    ),
    Transformation(
        "Explicit sharding", "the same with arrays on a mesh of explicit axes", explicit_sharding, on=_ONE_OF_EACH_KIND
    ),
    Transformation("`jax.vmap`", "values, image by image", vmap, on=_ONE_OF_EACH_KIND),
    Transformation("`nnx.scan`", "values of two stacked layers", scan, on=_ONE_OF_EACH_KIND),
    Transformation(
        "`jax.grad` of `jax.grad`", "the second derivative, which is symmetric", second_derivative, on=_ONE_OF_EACH_KIND
    ),
    Transformation(
        "`jax.jvp`",
        "the derivative in forward mode",
        forward_mode,
        dict.fromkeys(("PReLU", "DyReLU", "AconC", "MetaAconC", "RepAct"), _NO_FORWARD_MODE),
        on=_ONE_OF_EACH_KIND,
    ),
    Transformation("`jax.export`", "values with the batch left open, after serialisation", export_open_batch, on=ACTIVATIONS),
    Transformation("`pickle`", "values, or the state of a network, after loading", pickled, on=(*ACTIVATIONS, *NETWORKS[:1])),
)
