"""What `benchmarks/speed.py` times in JAX, under jit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from acon_jax import acon
from acon_jax.functional import dynamic_maximum, maximum, prelu, repact
from jax import Array
from speed import SHAPES, Group, Subject

VERSION = jax.__version__


def published(x: Array, p1: Array, p2: Array, beta: Array) -> Array:
    """Compute ACON-C as in nmaac/acon, acon.py."""
    return (p1 * x - p2 * x) * jax.nn.sigmoid(beta * (p1 * x - p2 * x)) + p2 * x


def training(function: Callable[..., Array], *inputs: Array) -> Subject:
    """Return a call that runs forward and backward, with the gradients of all inputs."""
    g = jnp.asarray(np.random.default_rng(1).standard_normal(inputs[0].shape), inputs[0].dtype)

    @jax.jit
    def step(g: Array, *inputs: Array) -> tuple[Array, ...]:
        y, pull = jax.vjp(function, *inputs)
        return y, *pull(g)

    return lambda: jax.block_until_ready(step(g, *inputs))


def groups(threads: int) -> Iterator[Group]:
    """Yield the groups; channels are last."""
    rng = np.random.default_rng(0)

    def random(*shape: int) -> Array:
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    for name, shape in SHAPES.items():
        shape = shape if len(shape) == 3 else (shape[0], *shape[2:], shape[1])
        x, gates = random(*shape), [random(shape[-1]) for _ in range(3)]
        yield Group(
            f"forward and backward, {name}",
            "SiLU",
            lambda: {
                "SiLU": training(jax.nn.silu, x),
                "AconC": training(acon, x, *gates),
                "published formula": training(published, x, *gates),
            },
        )
    x, factors = random(32, 28, 28, 128), [random(1) for _ in range(3)]
    lambdas, init_v = jnp.asarray([1.0, 1.0, 0.5, 0.5]), jnp.asarray([1.0, 0.0, 0.0, 0.0])
    yield Group(
        "other activations, forward and backward, [32,128,28,28]",
        "SiLU",
        lambda: {
            "SiLU": training(jax.nn.silu, x),
            "acon with beta per sample and channel": training(acon, x, random(128), random(128), random(32, 1, 1, 128)),
            "PReLU": training(prelu, x, random(128)),
            "RepAct I": training(repact, x, *factors),
            "DyReLU's function": training(lambda x, theta: dynamic_maximum(x, theta, lambdas, init_v), x, random(32, 512)),
            "FReLU's maximum": training(maximum, x, random(*x.shape)),
            "AconC, bfloat16": training(acon, x.astype(jnp.bfloat16), *(random(128) for _ in range(3))),
            "SiLU, bfloat16": training(jax.nn.silu, x.astype(jnp.bfloat16)),
        },
    )
    small = random(1, 4, 4, 64)
    yield Group(
        "1,024 elements, forward and backward",
        "SiLU",
        lambda: {"SiLU": training(jax.nn.silu, small), "AconC": training(acon, small, *(random(64) for _ in range(3)))},
    )
