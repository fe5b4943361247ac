"""Files of Orbax are read without Orbax, bit for bit, under the names of the msgpack tree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acon_jax.checkpoint import orbax
from checkpoint_samples import DTYPES, assert_same, bits, module
from flax_networks import flat, linen_net, net
from orbax_trees import LAYOUTS

from acon_core.errors import CheckpointError

pytestmark = pytest.mark.backend("jax")


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

        state = nnx.state(net())
        pure = nnx.to_pure_dict(state)
        pure["drop"]["rngs"]["key"] = jax.random.key_data(pure["drop"]["rngs"]["key"])
        notes = self.same(tmp_path, state, pure)
        assert notes == ["ignored random streams: 'drop.rngs'", "left out the last step of every path, value"]

    def test_linens_train_state(self, tmp_path: Path) -> None:
        import jax
        import optax
        from flax.training.train_state import TrainState

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
