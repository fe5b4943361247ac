"""The stubs are what `nox -s stubs` writes, and every package is marked as typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_stubs_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools/stubs.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["acon_core", *(f"backends/acon_{n}" for n in ("torch", "jax", "paddle", "megengine"))])
def test_every_package_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").read_text() == ""
