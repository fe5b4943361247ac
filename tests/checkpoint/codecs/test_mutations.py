"""A valid file with some bytes changed is read or refused, and nothing else happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fuzz
import pytest
from audit import Watch
from fuzz import mutants, outcome, samples

from acon_core.checkpoint.formats import formats
from acon_core.errors import CheckpointError

SCRIPT = Path(fuzz.__file__)


def test_mutated_files(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), "--count", "2000", "--seed", "0", "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    told = {row["format"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert set(told) == set(formats())
    for format, row in told.items():
        assert row["corrupt"] > 20, format  # or the changes would be too small, or too large, to tell anything
        assert row["read"] > 0, format


def test_seed_is_deterministic() -> None:
    found = samples(formats())
    assert list(mutants(found, 50, 3)) == list(mutants(found, 50, 3))
    assert list(mutants(found, 50, 3)) != list(mutants(found, 50, 4))


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


def opens_another_file(path: Path) -> None:
    Path(os.devnull).read_bytes()
    raise CheckpointError("corrupt", f"{path}: x")


def runs_code(path: Path) -> None:
    exec("1")
    raise CheckpointError("unsafe", f"{path}: x")


def names_no_file(path: Path) -> None:
    raise CheckpointError("corrupt", "x")


def speaks_in_two_lines(path: Path) -> None:
    raise CheckpointError("corrupt", f"{path}: \n")


def leaks(path: Path) -> None:
    raise KeyError("w")


def lets_in_too_much(path: Path) -> Any:
    return SimpleNamespace(tensors={"w": SimpleNamespace(nbytes=1 << 40)})


@pytest.mark.parametrize(
    ("reader", "words"),
    [
        (opens_another_file, "open"),
        (runs_code, "exec"),
        (names_no_file, "message x"),
        (speaks_in_two_lines, "message"),
        (leaks, "KeyError"),
        (lets_in_too_much, "bytes of tensors"),
    ],
)
def test_bad_readers_are_reported(tmp_path: Path, watch: Watch, reader: Callable[[Path], Any], words: str) -> None:
    format: Any = SimpleNamespace(codec=SimpleNamespace(sniff=lambda path: True, read=reader))
    (tmp_path / "a").write_bytes(b"x")
    assert words in outcome(format, tmp_path / "a", tmp_path / "a", watch)[1]
