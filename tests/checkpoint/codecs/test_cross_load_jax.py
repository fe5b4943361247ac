"""Flax reads our files, and we read Flax's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import assert_same, module, state
from flax_networks import flat, linen_net, net

from acon_core.errors import CheckpointError

pytestmark = pytest.mark.backend("jax")


def variables(model):
    from flax import nnx

    return nnx.merge_state(*(nnx.state(model, kind) for kind in (nnx.Param, nnx.BatchStat)))


def test_flax_reads_ours(tmp_path: Path) -> None:
    from flax import serialization

    expected = state("jax")
    module("jax").write(tmp_path / "a.msgpack", expected)
    assert_same(flat(serialization.msgpack_restore((tmp_path / "a.msgpack").read_bytes())), expected, order=False)


def test_same_bytes_as_flax(tmp_path: Path) -> None:
    from flax import serialization

    tree = {
        "a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "c": np.float16([1])},
        "d": np.array(3),
        "e" * 40: np.eye(200),
    }
    module("jax").write(
        tmp_path / "a.msgpack", {"a.b": tree["a"]["b"], "a.c": tree["a"]["c"], "d": tree["d"], "e" * 40: tree["e" * 40]}
    )
    assert (tmp_path / "a.msgpack").read_bytes() == serialization.msgpack_serialize(tree)


def test_nnx_state(tmp_path: Path) -> None:
    import jax
    from flax import nnx, serialization

    model = net()
    pure = nnx.to_pure_dict(variables(model))
    (tmp_path / "a.msgpack").write_bytes(serialization.to_bytes(pure))
    assert module("jax").sniff(tmp_path / "a.msgpack")
    found = module("jax").read(tmp_path / "a.msgpack").tensors
    assert_same(found, flat(pure), order=False)
    assert "layers.0.kernel" in found

    module("jax").write(tmp_path / "b.msgpack", {k: v + np.float32(1) for k, v in found.items()})
    restored = serialization.from_bytes(pure, (tmp_path / "b.msgpack").read_bytes())
    assert jax.tree_util.tree_structure(restored) == jax.tree_util.tree_structure(pure)
    nnx.replace_by_pure_dict(target := variables(model), restored)
    nnx.update(model, target)
    assert_same(flat(nnx.to_pure_dict(variables(model))), {k: v + np.float32(1) for k, v in found.items()}, order=False)


def test_random_streams(tmp_path: Path) -> None:
    import jax
    from flax import serialization

    stream = {"count": np.uint32(0), "key": np.asarray(jax.random.key_data(jax.random.key(0)))}
    tree = {"w": np.ones(2, np.float32), "drop": {"rngs": stream}, "name": "x", "seen": 3, "z": 1 + 2j}
    (tmp_path / "a.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    found = module("jax").read(tmp_path / "a.msgpack")
    assert list(found.tensors) == ["w"]
    assert found.notes == ["ignored random streams: 'drop.rngs'", "ignored what is not an array: 'name', 'seen', 'z'"]


def test_linen_variables(tmp_path: Path) -> None:
    import jax
    from flax import serialization

    tree = linen_net().init(jax.random.key(0), np.ones((1, 2), np.float32))
    (tmp_path / "a.msgpack").write_bytes(serialization.to_bytes(tree | {"step": 4}))
    found = module("jax").read(tmp_path / "a.msgpack")
    assert_same(found.tensors, flat(tree["params"]) | flat(tree["batch_stats"]), order=False)
    assert found.notes == ["merged params and batch_stats; ignored 'step'"]


def test_network_beside_optimizer(tmp_path: Path) -> None:
    from flax import serialization

    net, other = {"a": {"w": np.ones(2, np.float32)}}, {"a": {"w": np.zeros(2, np.float32)}}
    for tree, key, names in [
        ({"model": net, "opt": {"0": other}, "step": 3}, "", ["a.w"]),
        ({"model": {"params": net, "batch_stats": {"m": np.ones(1)}}}, "", ["a.w", "m"]),
        ({"model": net, "critic": other}, "", ["model.a.w", "critic.a.w"]),
        ({"student": net, "teacher": {"x": net}}, "teacher.x", ["a.w"]),
        ({"model": {"model": net, "opt": other}, "opt": other}, "", ["a.w"]),
    ]:
        (tmp_path / "a.msgpack").write_bytes(serialization.msgpack_serialize(tree))
        found = module("jax").read(tmp_path / "a.msgpack", key)
        assert sorted(found.tensors) == sorted(names)
        assert found.tensors[names[0]].all()
    with pytest.raises(CheckpointError, match="--key y: no such part of the tree; found 'model', 'opt'"):
        module("jax").read(tmp_path / "a.msgpack", "y")


@pytest.mark.parametrize("wrapped", [True, False])
def test_value_step(tmp_path: Path, wrapped: bool) -> None:
    from flax import serialization

    other = {"value": np.ones(3)} if wrapped else np.ones(3)
    (tmp_path / "a.msgpack").write_bytes(serialization.msgpack_serialize({"a": {"b": {"value": np.ones(2)}}, "c": other}))
    assert set(module("jax").read(tmp_path / "a.msgpack").tensors) == ({"a.b", "c"} if wrapped else {"a.b.value", "c"})


def test_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from acon_jax.checkpoint import msgpack
    from flax import serialization

    monkeypatch.setattr(msgpack, "CHUNK_BYTES", 40)
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 40)
    expected = state("jax")
    module("jax").write(tmp_path / "a.msgpack", expected)
    data = (tmp_path / "a.msgpack").read_bytes()
    assert b"__msgpack_chunked_array__" in data
    assert_same(flat(serialization.msgpack_restore(data)), expected, order=False)
    tree = {"a": np.arange(60, dtype=np.float32).reshape(5, 12)}
    (tmp_path / "b.msgpack").write_bytes(serialization.msgpack_serialize(dict(tree)))
    assert_same(module("jax").read(tmp_path / "b.msgpack").tensors, tree)
    assert_same(module("jax").read(tmp_path / "a.msgpack").tensors, expected, order=False)


def test_leaves(tmp_path: Path) -> None:
    from flax import serialization

    tree = {
        "scalar": np.float32(1.5),
        "word": np.int16(-3),
        "flag": np.bool_(True),
        "complex": np.array([1 + 2j, 3 - 4j], np.complex64),
        "empty": np.zeros((0, 3), np.float16),
        "layers": {0: {"w": np.arange(3)}, 1: {"w": np.arange(4)}, 10: {"w": np.arange(5)}},
        "python": {"int": 3, "complex": 1 - 2j, "none": None, "text": "x", "bytes": b"x"},
    }
    (tmp_path / "a.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    found = module("jax").read(tmp_path / "a.msgpack")
    restored = flat(serialization.msgpack_restore((tmp_path / "a.msgpack").read_bytes()))
    expected = {name: leaf for name, leaf in restored.items() if not name.startswith("python.")}
    assert_same(found.tensors, expected)
    assert found.tensors["layers.10.w"].tolist() == [0, 1, 2, 3, 4]
    names = ", ".join(repr(f"python.{name}") for name in sorted(tree["python"]))
    assert found.notes == [f"ignored what is not an array: {names}"]


def test_train_state(tmp_path: Path) -> None:
    import jax
    import optax
    from flax import serialization
    from flax.training.train_state import TrainState

    model = linen_net()
    variables = model.init(jax.random.key(0), np.ones((1, 2), np.float32))

    class State(TrainState):
        batch_stats: object

    state = State.create(apply_fn=model.apply, tx=optax.adam(1e-3), **variables)
    (tmp_path / "a.msgpack").write_bytes(serialization.to_bytes(state))
    found = module("jax").read(tmp_path / "a.msgpack")
    assert_same(found.tensors, flat(variables["params"]) | flat(variables["batch_stats"]), order=False)
    assert found.notes == ["merged params and batch_stats; ignored 'step', 'opt_state'"]


def test_int4_is_refused(tmp_path: Path) -> None:
    import ml_dtypes
    from flax import serialization

    (tmp_path / "a.msgpack").write_bytes(serialization.msgpack_serialize({"w": np.arange(3).astype(ml_dtypes.int4)}))
    with pytest.raises(CheckpointError, match="'int4'") as caught:
        module("jax").read(tmp_path / "a.msgpack")
    assert caught.value.kind == "unsupported"
