"""Contexts of modules and tables of functions, as every backend's `build.py` uses them."""

from __future__ import annotations

from types import ModuleType

import pytest

from acon_core import spec
from acon_core.building import BuildContext, functions
from acon_core.errors import SpecError


def namespace(name: str, **functions: object) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(functions)
    return module


def test_a_child_has_a_longer_path_and_the_same_dtype() -> None:
    child = BuildContext("float16").child("stage2").child("0")
    assert child == BuildContext("float16", "stage2.0")


def test_functions_are_found_by_name_in_the_first_namespace() -> None:
    every = {name: f"second {name}" for name in spec.PARAMETERLESS.values()}
    table = functions(spec.Rules("toy.build"), namespace("first", add="first add"), namespace("second", **every))
    assert set(table) == set(spec.PARAMETERLESS)
    assert table[spec.Add] == "first add"
    assert table[spec.ReLU6] == "second relu6"


def test_a_primitive_with_a_rule_needs_no_function() -> None:
    build: spec.Rules[str] = spec.Rules("toy.build")
    build.register(spec.Flatten)(lambda node: "a module")
    every = {name: name for name in spec.PARAMETERLESS.values() if name != "flatten"}
    assert spec.Flatten not in functions(build, namespace("toy", **every))


def test_a_missing_function_is_an_error_that_names_it() -> None:
    every = {name: name for name in spec.PARAMETERLESS.values() if name != "window_reverse"}
    with pytest.raises(SpecError, match=r"toy\.build: no function 'window_reverse' for WindowReverse in toy; define it"):
        functions(spec.Rules("toy.build"), namespace("toy", **every))
