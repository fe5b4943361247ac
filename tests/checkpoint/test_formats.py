"""The formats, with or without the frameworks."""

from __future__ import annotations

from acon_core import backends
from acon_core.checkpoint import formats

FORMATS = ["torch", "megengine", "paddle", "jax", "safetensors"]


def test_formats_without_frameworks() -> None:
    further = ["npz", "orbax", "safetensors_sharded", "torch_legacy"]
    assert sorted(formats()) == sorted([*FORMATS, *further])
    assert sorted(backends.packages()) == sorted(["numpy", *FORMATS[:-1]])
