"""What Orbax and TensorStore write is read here, to the bit and by the names that the same tree has in msgpack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acon_jax.checkpoint import ocdbt, orbax
from acon_jax.checkpoint.folder import Folder
from checkpoint_samples import DTYPES, assert_same, bits, module
from orbax_trees import LAYOUTS

from acon_core.errors import CheckpointError

pytestmark = pytest.mark.backend("jax")


def flat(tree: Any, above: str = "") -> dict[str, np.ndarray]:
    if not isinstance(tree, dict):
        return {above: np.asarray(tree)}
    return {k: v for step, inner in tree.items() for k, v in flat(inner, f"{above}.{step}" if above else str(step)).items()}


def save(path: Path, tree: dict[str, Any], cut: int | None = None, **options: bool) -> None:
    import jax
    import orbax.checkpoint as ocp

    args = jax.tree.map(lambda leaf: ocp.SaveArgs(chunk_byte_size=cut), tree)
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)).save(path, args=ocp.args.PyTreeSave(tree, save_args=args))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_dtype_to_the_bit(tmp_path: Path, layout: str) -> None:
    import orbax.checkpoint as ocp

    tree = {
        "every": {kind: bits(kind, (3, 2), seed) for seed, kind in enumerate(DTYPES["jax"])},
        "scalar": {kind: bits(kind, (), seed) for seed, kind in enumerate(DTYPES["jax"])},
        "large": {"cut": bits("float32", (24, 500), 1), "high": bits("bfloat16", (2, 3, 4, 5, 6), 2)},
        "haiku": {"net/~/linear_0": {"w": bits("float16", (5,), 3)}},
        "zeros": np.zeros((7, 3), np.float32),
    }
    save(tmp_path / "a", tree, 4800, **LAYOUTS[layout])
    found = orbax.read(tmp_path / "a").tensors
    restored = ocp.PyTreeCheckpointer().restore(tmp_path / "a")
    assert_same(found, flat(restored), order=False)
    assert_same(found, flat(tree), order=False)


def test_several_devices_save_several_chunks(tmp_path: Path) -> None:
    script = """
import sys, jax, numpy as np, orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
mesh = Mesh(np.array(jax.devices()).reshape(2, 3), ("x", "y"))
w = jax.device_put(np.arange(240, dtype=np.float32).reshape(8, 30), NamedSharding(mesh, PartitionSpec("x", "y")))
v = jax.device_put(np.arange(18, dtype=np.int32).reshape(9, 2), NamedSharding(mesh, PartitionSpec("y", None)))
for zarr3 in (False, True):
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=zarr3, use_zarr3=zarr3)
    ocp.Checkpointer(handler).save(f"{sys.argv[1]}/{zarr3}", {"w": w, "v": v})
"""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=6", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True, capture_output=True)
    assert {"0.0", "0.1", "0.2", "1.0", "1.1", "1.2"} <= {file.name for file in (tmp_path / "False/w").iterdir()}
    expected = {"v": np.arange(18, dtype=np.int32).reshape(9, 2), "w": np.arange(240, dtype=np.float32).reshape(8, 30)}
    for name in ("False", "True"):
        assert_same(orbax.read(tmp_path / name).tensors, expected)


class TestNames:
    """The same tree in msgpack and in Orbax's folder: the same names, arrays and notes."""

    def same(self, tmp_path: Path, tree: Any, pure: Any) -> list[str]:
        import orbax.checkpoint as ocp
        from flax import serialization

        (tmp_path / "a.msgpack").write_bytes(serialization.to_bytes(pure))
        with ocp.StandardCheckpointer() as saver:
            saver.save(tmp_path / "a", tree)
        expected, found = module("jax").read(tmp_path / "a.msgpack"), orbax.read(tmp_path / "a")
        assert_same(found.tensors, expected.tensors, order=False)
        return found.notes

    def test_nnx(self, tmp_path: Path) -> None:
        import jax
        from flax import nnx
        from test_cross_load_jax import net

        state = nnx.state(net())
        pure = nnx.to_pure_dict(state)
        pure["drop"]["rngs"]["key"] = jax.random.key_data(pure["drop"]["rngs"]["key"])
        notes = self.same(tmp_path, state, pure)
        assert notes == ["ignored random streams: 'drop.rngs'", "left out the last step of every path, value"]

    def test_linens_train_state(self, tmp_path: Path) -> None:
        import jax
        import optax
        from flax.training.train_state import TrainState
        from test_cross_load_jax import linen_net

        model = linen_net()
        variables = model.init(jax.random.key(0), np.ones((1, 2), np.float32))

        class State(TrainState):
            batch_stats: Any

        state = State.create(apply_fn=model.apply, tx=optax.adam(1e-3), **variables)
        notes = self.same(tmp_path, state, state)
        assert notes == ["merged params and batch_stats; ignored 'step', 'opt_state'"]

    def test_lists_are_numbered(self, tmp_path: Path) -> None:
        tree = {"layers": [{"w": np.arange(index + 1.0)} for index in range(12)]}
        self.same(tmp_path, tree, tree)
        assert orbax.read(tmp_path / "a").tensors["layers.11.w"].shape == (12,)


def test_steps_of_a_manager(tmp_path: Path) -> None:
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(tmp_path / "runs") as manager:
        for step in (5, 40):
            manager.save(step, args=ocp.args.StandardSave({"w": np.full((2, 3), step, np.float32)}))
        manager.wait_until_finished()
    with pytest.raises(CheckpointError, match="'5/default', '40/default'; give the folder of one"):
        orbax.read(tmp_path / "runs")
    assert_same(orbax.read(tmp_path / "runs/40").tensors, {"w": np.full((2, 3), 40, np.float32)})
    with ocp.CheckpointManager(tmp_path / "two", item_names=("state", "other")) as manager:
        items = {name: ocp.args.StandardSave({name: np.arange(3)}) for name in ("state", "other")}
        manager.save(1, args=ocp.args.Composite(**items))
        manager.wait_until_finished()
    with pytest.raises(CheckpointError, match="'1/other', '1/state'; give the folder of one"):
        orbax.read(tmp_path / "two/1/..")
    assert list(orbax.read(tmp_path / "two/1/state").tensors) == ["state"]


@pytest.mark.parametrize("packed", [None, {"id": "zstd", "level": 3}])
@pytest.mark.parametrize(("largest", "inline"), [(200, 0), (200, 16), (1500, 100), (8_000_000, 100)])
def test_every_tree_of_nodes_is_gone_through(tmp_path: Path, packed: dict[str, Any] | None, largest: int, inline: int) -> None:
    import tensorstore

    draw = np.random.default_rng(largest)
    expected = {
        f"a.{'b' * int(draw.integers(0, 9))}.{i}/0.{i % 7}": bits("uint8", (int(draw.integers(0, 60)),), i) for i in range(90)
    }
    config = {"max_decoded_node_bytes": largest, "max_inline_value_bytes": inline, "compression": packed}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{tmp_path}/", "config": config}).result()
    for write in [store.write(key, value.tobytes()) for key, value in expected.items()]:
        write.result()
    for key in list(expected)[::10]:  # a version more
        store.write(key, b"").result()
        expected[key] = np.zeros(0, np.uint8)
    folder = Folder(tmp_path)
    found = ocdbt.entries(folder)
    assert list(found) == sorted(expected)
    assert {key: bytes(folder.fetch(value)) for key, value in found.items()} == {k: v.tobytes() for k, v in expected.items()}


ARRAYS = {
    "zarr 2, edges": {"driver": "zarr", "metadata": {"chunks": [3, 4], "compressor": {"id": "zstd", "level": 1}}},
    "zarr 2, plain": {"driver": "zarr", "metadata": {"chunks": [3, 4], "compressor": None, "dimension_separator": "/"}},
    "zarr 2, one large chunk": {"driver": "zarr", "metadata": {"chunks": [30, 40], "compressor": {"id": "zstd", "level": 1}}},
    "zarr 3, plain": {
        "driver": "zarr3",
        "metadata": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3, 4]}}},
    },
    "zarr 3, zstd": {
        "driver": "zarr3",
        "metadata": {
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3, 4]}},
            "codecs": [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 1}}],
        },
    },
    **{
        f"zarr 3, shards, index at the {place}": {
            "driver": "zarr3",
            "metadata": {
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 6]}},
                "codecs": [
                    {
                        "name": "sharding_indexed",
                        "configuration": {
                            "chunk_shape": [2, 3],
                            "codecs": [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 1}}],
                            "index_location": place,
                        },
                    }
                ],
            },
        }
        for place in ("start", "end")
    },
}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", ARRAYS)
def test_every_way_to_cut_an_array(tmp_path: Path, name: str, whole: bool) -> None:
    import tensorstore

    expected = np.arange(1, 71, dtype=np.float32).reshape(10, 7)
    if not whole:
        expected[:6] = 0  # these chunks are left out, as they were by older versions of Orbax
    spec = ARRAYS[name] | {"kvstore": f"file://{tmp_path}/w/", "store_data_equal_to_fill_value": whole}
    spec["metadata"] = spec["metadata"] | {"shape": [10, 7], ("dtype" if spec["driver"] == "zarr" else "data_type"): "<f4"}
    if spec["driver"] == "zarr3":
        spec["metadata"]["data_type"] = "float32"
    store = tensorstore.open(spec, create=True).result()
    store.write(expected).result()
    tree = '{"tree_metadata": {"w": {"key_metadata": [{"key": "w"}], "value_metadata": {"value_type": "jax.Array"}}}'
    (tmp_path / "_METADATA").write_text(tree + (', "store_array_data_equal_to_fill_value": true}' if whole else "}"))
    assert_same(orbax.read(tmp_path).tensors, {"w": expected})
    assert whole or len(list((tmp_path / "w").rglob("*"))) < 14
