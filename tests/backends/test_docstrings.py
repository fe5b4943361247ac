"""Docstrings of the public packages: numpydoc sections, parameters, and examples that run."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest
from descriptors import SIGNATURES
from numpydoc_check import problems

from acon_core import backends
from acon_core.backends import Backend
from acon_core.conformance.cases import DATA


@pytest.mark.parametrize("name", SIGNATURES)
def test_docstring(backend: Backend, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    thing = getattr(import_module(backends.packages()[backend.name]), name)
    assert list(problems(name, thing, examples=True)) == []
    monkeypatch.chdir(DATA)  # where `load` finds the published checkpoint
    runner = doctest.DocTestRunner()
    (found,) = doctest.DocTestFinder(recurse=False).find(thing, name, globs={name: thing})
    runner.run(found)
    assert runner.tries > 0
    assert runner.failures == 0
