"""Make the archives in this folder with Orbax itself, one per Orbax folder; needs JAX.

`python tests/helpers/orbax_samples/make.py`
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from flax import nnx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from hosts import save as save_from_hosts  # noqa: E402
from orbax_trees import CUT, LAYOUTS, arrays, tree  # noqa: E402


def save(path: Path, state: dict[str, Any], **options: bool) -> None:
    """One tree, those of its arrays that are in CUT in several chunks."""
    cut = {name: ocp.SaveArgs(chunk_byte_size=80 if name in CUT else None) for name in state}
    args = jax.tree.map(lambda leaf: ocp.SaveArgs(), state) | {name: cut[name] for name in CUT if name in state}
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)).save(path, args=ocp.args.PyTreeSave(state, save_args=args))


class Net(nnx.Module):
    """Two layers, a norm and a stream of random numbers."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 4, rngs=rngs)])
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)


def tall(path: Path) -> None:
    """Save the first layout in small unpacked nodes, so that their tree has several levels."""
    base = path / "base"
    save(base, tree(), use_ocdbt=False, use_zarr3=False)
    small = {"max_decoded_node_bytes": 300, "max_inline_value_bytes": 16, "compression": None}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{path}/", "config": small}).result()
    for file in sorted(base.rglob("*")):
        if file.is_file() and file.parent != base:
            store.write(str(file.relative_to(base)), file.read_bytes()).result()
    shutil.copy(base / "_METADATA", path)
    shutil.rmtree(base)


def main() -> None:
    """Make them all."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        for name, options in LAYOUTS.items():
            save(made / name, tree(), **options)
        tall(made / "tall")
        save_from_hosts(made)
        linen = {"params": {"w": arrays()["cut"]}, "batch_stats": {"w_mean": arrays()["block.list.1"]}}
        with ocp.CheckpointManager(made / "manager") as manager:
            manager.save(12, args=ocp.args.StandardSave(linen | {"step": np.asarray(3)}))
            manager.wait_until_finished()
        with ocp.StandardCheckpointer() as saver:
            saver.save(made / "nnx", nnx.state(Net(nnx.Rngs(0))))
            saver.wait_until_finished()
        for each in made.iterdir():
            pack(each, HERE / f"{each.name}.zip")


def pack(folder: Path, target: Path) -> None:
    """Pack a folder's files, without the note that names the place where it was made."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.name != "commit_success.txt":
                archive.write(file, file.relative_to(folder))


if __name__ == "__main__":
    main()
