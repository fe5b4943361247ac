"""The Orbax folders stored in orbax_samples/, and the tree that they hold."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint_samples import bits

SAMPLES = Path(__file__).parent / "orbax_samples"
CUT = ("cut", "cut_half")  # these are saved in several chunks
LAYOUTS = {
    f"{'ocdbt' if ocdbt else 'files'}_zarr{3 if zarr3 else 2}": {"use_ocdbt": ocdbt, "use_zarr3": zarr3}
    for ocdbt in (False, True)
    for zarr3 in (False, True)
}
HOSTS = {f"hosts_{name}": LAYOUTS[name] for name in ("files_zarr2", "ocdbt_zarr2", "ocdbt_zarr3")}  # saved by two hosts
STORED = (*LAYOUTS, "tall")  # each holds `tree()`
KINDS = ["float16", "float64", "int8", "int64", "uint16", "bool", "complex64", "bfloat16", "float8_e4m3fn", "float8_e8m0fnu"]
if sys.version_info < (3, 11):
    KINDS.remove("float8_e8m0fnu")  # TensorStore for Python 3.10 lacks it; `unpacked` leaves it out


def unpacked(name: str, folder: Path) -> Path:
    """Unpack a stored folder into a new folder of that name."""
    with zipfile.ZipFile(SAMPLES / f"{name}.zip") as archive:
        archive.extractall(folder / name)
    if name in STORED and sys.version_info < (3, 11):
        metadata = json.loads((folder / name / "_METADATA").read_text())
        del metadata["tree_metadata"]["('kinds', 'float8_e8m0fnu')"]
        (folder / name / "_METADATA").write_text(json.dumps(metadata))
    return folder / name


def arrays() -> dict[str, np.ndarray]:
    """Return the arrays by name; one is larger than an OCDBT node even after compression."""
    return {
        "block.conv.kernel": bits("float32", (3, 2, 4, 5), 1),
        "block.list.0": bits("int32", (4,), 2),
        "block.list.1": bits("float32", (), 3),
        "cut": bits("float32", (6, 10), 4),
        "cut_half": bits("bfloat16", (4, 6, 2), 5),
    } | {f"kinds.{kind}": bits(kind, (3, 2), seed) for seed, kind in enumerate(KINDS, 6)}


def shared_arrays() -> dict[str, np.ndarray]:
    """Arrays that two hosts cut between them; each of HOSTS holds these."""
    return {
        "columns": bits("bfloat16", (5, 6), 21),
        "grid": bits("float32", (4, 9), 22),
        "rows": bits("float16", (2, 7), 23),
        "whole": bits("int32", (3,), 24),
    }


def tree() -> dict[str, Any]:
    """Return the arrays as a tree with a list in it, and leaves that are not arrays."""
    found = arrays()
    return {
        "block": {
            "conv": {"kernel": found["block.conv.kernel"]},
            "list": [found["block.list.0"], found["block.list.1"]],
            "none": None,
            "nothing": {},
        },
        **{name: found[name] for name in CUT},
        "kinds": {kind: found[f"kinds.{kind}"] for kind in KINDS},
        "epoch": 7,
    }
