"""JAX's own switches and tools, of every activation: rank promotion, pickles, copies, meshes."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import transformations

pytestmark = pytest.mark.backend("jax")

ACTIVATIONS = [
    "acon_a", "acon_b", "acon_c", "meta_acon", "meta_acon(norm=none, level=pixel)", "meta_acon(level=layer)", "frelu",
    "acon_frelu", "dyrelu", "dyrelu(variant=A)", "prelu", "prelu(shared=false)", "arelu", "swish", "repact",
    "repact(variant=2)", "repact(variant=3)", "relu", "silu", "gelu", "softplus", "hardswish",
]  # fmt: skip


def made(name):  # type: ignore[no-untyped-def]
    import acon_jax
    from flax import nnx

    return acon_jax.activation(name, 8, rngs=nnx.Rngs(0))


def images():  # type: ignore[no-untyped-def]
    import jax.numpy as jnp

    return jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 2, 8)), "float32")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_promote_no_ranks(name: str) -> None:
    import jax
    from flax import nnx

    module, x = made(name), images()
    for mode in ("train", "eval"):
        getattr(module, mode)()
        graphdef, state = nnx.split(module)

        def loss(state, x, graphdef=graphdef):  # type: ignore[no-untyped-def]
            return (nnx.merge(graphdef, state)(x) ** 2).sum()

        with jax.numpy_rank_promotion("raise"):
            jax.eval_shape(jax.grad(loss, argnums=(0, 1)), state, x)


@pytest.mark.parametrize("title", ["Swin", "ViT"])
def test_networks_are_traced_on_meshes_and_without_promotion(title: str) -> None:
    import acon_jax
    import jax
    from flax import nnx

    (network,) = (each for each in transformations.NETWORKS if each.title == title)
    model = acon_jax.create(network.name, network.act, 7, **network.options)
    graphdef, state = nnx.split(pickle.loads(pickle.dumps(model)))
    jax.tree.map(np.testing.assert_array_equal, state, nnx.state(model))
    x = jax.ShapeDtypeStruct((4, *network.size, 3), "float32")

    def loss(state, x):  # type: ignore[no-untyped-def]
        y = nnx.merge(graphdef, state)(x, rngs=nnx.Rngs(0))
        return (y**2).mean()

    with jax.numpy_rank_promotion("raise"):
        jax.eval_shape(jax.grad(loss), state, x)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
    divided = jax.shard_map(
        lambda state, x: jax.lax.pmean(loss(state, x), "data"), mesh=mesh, in_specs=(whole, split), out_specs=whole
    )
    jax.eval_shape(jax.grad(divided), state, x)
    explicit = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(explicit):
        state = jax.device_put(state, jax.NamedSharding(explicit, whole))
        gradient = jax.eval_shape(
            jax.grad(loss), state, jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.NamedSharding(explicit, split))
        )
    assert jax.tree.structure(gradient) == jax.tree.structure(state)


def test_functions_promote_no_ranks() -> None:
    import jax
    from acon_jax import functional

    x, y = images(), images()[::-1]
    with jax.numpy_rank_promotion("raise"):
        for function in (functional.smooth_maximum, functional.maximum):
            jax.eval_shape(jax.grad(lambda x, y, function=function: (function(x, y) ** 2).sum(), argnums=(0, 1)), x, y)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_pickles_and_copies_compute_the_same(name: str) -> None:
    module, x = made(name), images()
    module.eval()
    for again in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        np.testing.assert_array_equal(again(x), module(x))


def test_a_pickle_of_another_process(tmp_path: Path) -> None:
    path = tmp_path / "module.pickle"
    program = (
        "import pickle, pathlib, sys; from flax import nnx; import acon_jax;"
        "pathlib.Path(sys.argv[1]).write_bytes(pickle.dumps(acon_jax.MetaAconC(8, rngs=nnx.Rngs(0))))"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
    module, own = pickle.loads(path.read_bytes()), made("meta_acon")
    for each in (module, own):
        each.eval()
    np.testing.assert_array_equal(module(images()), own(images()))
