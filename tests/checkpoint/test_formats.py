"""The formats, their suffixes, and their content."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_checkpoints import write_smallest

from acon_core import backends
from acon_core.checkpoint import formats
from acon_core.checkpoint.formats import format_for, format_named, sniff
from acon_core.errors import AconError, CheckpointError

FORMATS = ["torch", "megengine", "paddle", "jax", "safetensors"]


def test_formats_without_frameworks() -> None:
    further = ["npz", "orbax", "safetensors_sharded", "torch_legacy"]
    assert sorted(formats()) == sorted([*FORMATS, *further])
    assert sorted(backends.packages()) == sorted(["numpy", *FORMATS[:-1]])


def test_suffixes() -> None:
    suffixes = {
        "torch": [".pth", ".pth.tar", ".pt"],
        "megengine": [".pkl"],
        "paddle": [".pdparams"],
        "jax": [".msgpack"],
        "npz": [".npz"],
        "safetensors": [".safetensors"],
        "safetensors_sharded": [".safetensors.index.json"],
    }
    for name, endings in suffixes.items():
        for suffix in endings:
            assert format_for(Path(f"a.b{suffix}")).name == name
    with pytest.raises(AconError, match=r"a\.xyz: unknown suffix; pass --to, or use one of .*\.pdparams \(paddle\)"):
        format_for(Path("a.xyz"))
    with pytest.raises(AconError, match="--to keras: no such format; expected one of jax, megengine"):
        format_named("keras")


@pytest.mark.parametrize("name", [*FORMATS, "npz", "safetensors_sharded", "torch_legacy"])
def test_content_decides_whatever_the_suffix(tmp_path: Path, name: str) -> None:
    path = write_smallest(tmp_path / "a.xyz", name)
    assert name in [format.name for format in sniff(path)]


def test_content_of_no_format(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_text("<!DOCTYPE html>")
    with pytest.raises(CheckpointError, match=r"a\.pth: not a checkpoint file of a known format; expected one of jax, meg"):
        sniff(tmp_path / "a.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty: not a checkpoint folder of a known format; expected one of orbax"):
        sniff(tmp_path / "empty")
