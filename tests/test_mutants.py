"""The table of breakages: each row still names one place in the code, and tests that exist."""

from __future__ import annotations

import shlex

import pytest
from mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_row_names_one_place_and_tests(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    paths = [word.partition("::")[0] for word in shlex.split(mutant.tests) if word.startswith("tests/")]
    assert paths
    assert all((ROOT / path).exists() for path in paths)
