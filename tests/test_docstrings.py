"""The examples in the docstrings of acon_core run and print what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import acon_core

# The docstrings of the frontend are templates, which each backend fills in.
MODULES = [
    info.name
    for info in pkgutil.walk_packages(acon_core.__path__, "acon_core.")
    if not info.name.startswith(("acon_core.frontend", "acon_core.cli.__main__"))
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where examples write their files
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0
