"""Read a file as a network and its canonical state."""

from __future__ import annotations

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from repository import DATA
from small_checkpoints import (
    asymmetric_repact_state,
    write_state,
)

from acon_core import spec
from acon_core.checkpoint import NetworkQuery, convert, read_file, read_network
from acon_core.checkpoint.reading import FLOATS
from acon_core.errors import AconError, CheckpointError

CHECKPOINT = DATA / "shufflenetv2_acon_0.5x.pth.tar"


COUNTERS = "num_batches_tracked"


@pytest.mark.parametrize("dtype", FLOATS)
def test_cast_state(dtype: str) -> None:
    checkpoint = read_network(CHECKPOINT)
    state = checkpoint.cast(dtype)
    assert np.dtype(ml_dtypes.bfloat16).name == "bfloat16"
    assert {array.dtype.name for path, array in state.items() if not path.endswith(COUNTERS)} == {dtype}
    assert state["first_conv.1." + COUNTERS].dtype == np.int64
    assert state["first_conv.1." + COUNTERS] == checkpoint.state["first_conv.1." + COUNTERS]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", f"no/{os.sep}such", DATA / "no such file"])
def test_missing_file(name: str | Path) -> None:
    with pytest.raises(AconError, match="no such file"):
        read_file(name)


SMALL = "repact/mobilenet_v3_small"


def test_derived_buffers(tmp_path: Path) -> None:
    """Swin's index is regenerated for a format that cannot store it, and refused if it is wrong."""
    state = asymmetric_repact_state("repact/swin_tiny_patch4_window7_224", "gelu")
    path = write_state(tmp_path / "a.pth", state)
    done = convert(path, tmp_path / "b.pkl", "megengine", NetworkQuery(act="gelu"))
    assert done.notes == ()
    back = read_network(tmp_path / "b.pkl", act="gelu")
    assert not any("counters" in note for note in back.notes)
    name = "layers.0.blocks.0.attn.relative_position_index"
    np.testing.assert_array_equal(back.state[name], spec.relative_position_index(7))
    assert back.state[name].dtype == np.int64
    write_state(path, state | {name: state[name].T.copy()})
    with pytest.raises(CheckpointError, match=f"{name}: the network determines its values, but the file has other values"):
        read_network(path, act="gelu")
    state = asymmetric_repact_state(SMALL, "dyrelu")
    write_state(path, state | {"features.0.2.lambdas": np.ones(4, np.float32)})
    with pytest.raises(CheckpointError, match=r"features\.0\.2\.lambdas: the network determines its values"):
        read_network(path)
