"""The docstrings of acon_core: numpydoc sections of public names, and examples that run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from numpydoc_check import problems, public

import acon_core

# The docstrings of the frontend are templates, which each backend fills in.
MODULES = [
    info.name
    for info in pkgutil.walk_packages(acon_core.__path__, "acon_core.")
    if not info.name.startswith(("acon_core.frontend", "acon_core.cli.__main__"))
]

# The one place that says what is public. Packages of frameworks are tested in tests/backends.
PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text().partition("## Public surface")[2]
PUBLIC = re.findall(r"`(acon_core\.\w+)`", PAGE)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_numpydoc_sections(name: str) -> None:
    names = public(importlib.import_module(name))
    assert names
    assert [text for each, thing in names.items() for text in problems(each, thing, examples=False)] == []


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where examples write their files
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0
