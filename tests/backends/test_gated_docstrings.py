"""Docstrings of the gated functions: documented parameters, and examples that run."""

from __future__ import annotations

import doctest
import inspect
import re
from importlib import import_module

import pytest

from acon_core import backends
from acon_core.backends import Backend
from acon_core.frontend.gated import _DOCSTRINGS


@pytest.mark.parametrize("name", _DOCSTRINGS)
def test_docstring_parameters_and_examples(backend: Backend, name: str) -> None:
    function = getattr(import_module(f"{backends.packages()[backend.name]}.functional"), name)
    section = function.__doc__.partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    heads = [re.sub(r" :.*", "", line).replace("*", "") for line in section.splitlines() if not line.startswith(" ")]
    assert ", ".join(heads).split(", ") == list(inspect.signature(function).parameters)
    runner = doctest.DocTestRunner()
    runner.run(doctest.DocTestParser().get_doctest(function.__doc__, {}, name, None, 0))
    assert runner.tries >= 3
    assert runner.failures == 0
