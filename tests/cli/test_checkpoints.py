"""The commands for checkpoint files: `check` and `--option`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from small_checkpoints import (
    run_acon,
    write_smallest,
    write_state,
)

from acon_core import spec
from acon_core.networks import create


def test_check(tmp_path: Path) -> None:
    write_smallest(tmp_path / "a.pkl", "megengine", "float32")
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(X\x04\x00\x00\x00truetR.")
    (tmp_path / "cut.pkl").write_bytes((tmp_path / "a.pkl").read_bytes()[:5000])
    (tmp_path / "page.pth").write_bytes(b"<!DOCTYPE html>")
    np.savez_compressed(tmp_path / "late.npz", w=np.arange(4000.0))
    content = bytearray((tmp_path / "late.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "late.npz").write_bytes(content)
    late = run_acon("check", tmp_path / "late.npz")
    assert (late.returncode, late.stdout[:7]) == (1, "corrupt")
    assert "late.npz: w" in late.stdout
    good = run_acon("check", tmp_path / "a.pkl")
    assert (good.returncode, good.stderr) == (0, "")
    assert "a.pkl: safe, megengine" in good.stdout
    assert "numpy.core.multiarray._reconstruct" in good.stdout
    bad = run_acon("check", *(tmp_path / name for name in ("a.pkl", "cut.pkl", "page.pth")), "--json")
    assert bad.returncode == 1
    assert [each["verdict"] for each in json.loads(bad.stdout)["files"]] == ["safe", "corrupt", "unsupported"]
    evil = run_acon("check", tmp_path / "evil.pkl")
    assert evil.returncode == 1
    assert "evil.pkl" in evil.stdout


def test_option(tmp_path: Path) -> None:
    write_state(tmp_path / "a.pth", spec.initial_state(create("acon/shufflenet_v2_x0_5", "acon_c", 3, repeats=(2, 1, 3)).graph))
    named = ("--network", "acon/shufflenet_v2_x0_5", "--act", "acon_c", "--option", "repeats=[2,1,3]")
    done = run_acon("convert", tmp_path / "a.pth", tmp_path / "b.safetensors", *named, "--verify")
    assert done.returncode == 0, done.stderr
    told = run_acon("inspect", tmp_path / "b.safetensors")
    assert "network: acon/shufflenet_v2_x0_5 with acon_c, 3 classes, repeats=(2, 1, 3)" in told.stdout
    refused = run_acon("inspect", tmp_path / "a.pth", "--option", "repeats")
    assert refused.returncode == 2
    assert "--option repeats: expected NAME=JSON" in refused.stderr
