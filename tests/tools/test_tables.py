"""The scripts that make tables exit with 1 when a number is outside of its bound."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from activation_accuracy import BOUNDS, REGIONS
from repository import DATA, ROOT

from acon_core.conformance import curves


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "tools" / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_demo_agreement(tmp_path: Path) -> None:
    expected = DATA / "tfnet_0.5.out.npz"
    logits = np.load(expected)["logits"]
    largest = np.abs(logits).max()
    for error, status in ((0.5e-9, 0), (2e-9, 1), (np.nan, 1)):
        changed = logits.copy()
        changed[1, 3] += error * largest
        np.savez(tmp_path / "logits.npz", logits=changed)
        done = run("demo_agreement.py", expected, f"numpy={tmp_path / 'logits.npz'}")
        assert done.returncode == status, (error, done.stdout, done.stderr)
        assert "numpy" in done.stdout
    assert run("demo_agreement.py", expected, "no pair").returncode == 2


def test_activation_accuracy(tmp_path: Path) -> None:
    path = tmp_path / "errors.json"
    errors = {region: dict.fromkeys(("f", "dx", "dp1", "dp2", "dbeta"), 2.5) for region in REGIONS}
    errors["reduced"] = {"reduced": 0.25}
    path.write_text(json.dumps({"mine": errors}))
    done = run("activation_accuracy.py", "table", path)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert "| A: \\|x\\| < 10 | 2.5 / 2.5 / 2.5 / 2 |" in done.stdout
    errors[REGIONS[2]]["dp2"] = BOUNDS["dp2"] + 0.5
    path.write_text(json.dumps({"mine": errors}))
    done = run("activation_accuracy.py", "table", path)
    assert (done.returncode, done.stderr.strip()) == (1, f"mine: {REGIONS[2]}: dp2 8.5 u, allowed 8")


def test_training_curves(tmp_path: Path) -> None:
    path = tmp_path / "losses.json"
    losses = {name: list(values) for name, values in curves.stored().items()}
    path.write_text(json.dumps({"mine": losses}))
    done = run("training_curves.py", "table", path)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert "| acon/dcn acon_c | 0e+00 / 0e+00 / 0e+00 |" in done.stdout
    losses["acon/dcn acon_c"][20] += 1e-5
    path.write_text(json.dumps({"mine": losses}))
    done = run("training_curves.py", "table", path)
    assert done.returncode == 1
    assert done.stderr.startswith("mine: acon/dcn acon_c: (0.0, 0.0, ")
