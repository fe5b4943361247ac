"""The counts in the README and in docs/conformance.md are those of the cases."""

from __future__ import annotations

import re

from agreement import HOW, counts, rows
from repository import ROOT

from acon_core import backends
from acon_core.conformance.cases import load_cases


def test_the_table_of_agreement_counts_the_cases() -> None:
    table, expected = rows(), counts()
    assert {(row.backend, row.dtype) for row in table} == {(name, each) for name in backends.packages() for each in expected}
    for row in table:
        assert row.total == expected[row.dtype], f"{row}: {HOW}"
        assert row.failed == 0
        assert row.unsupported in (0, row.total)
    for row in table:
        if row.backend == "numpy":
            supported = row.dtype in backends.get("numpy").dtypes
            assert (row.passed, row.unsupported) == ((row.total, 0) if supported else (0, row.total))


def test_pages_say_how_many_cases_there_are() -> None:
    page = (ROOT / "docs" / "conformance.md").read_text()
    activations = sum("act/" in case.name for case in load_cases())
    assert f"These are the {activations} cases of the activations" in page
    readme = (ROOT / "README.md").read_text()
    assert f"the same {len(load_cases())} cases" in readme
    command = re.search(r"acon conformance --backend torch --case (\S+)\n```\n\n```\n(.*?)```", readme, re.DOTALL)
    assert command is not None
    assert re.search(rf"│ pass +│ {sum(counts(command[1]).values())} +│", command[2])


def test_groups_of_cases_exist() -> None:
    """Docs/conformance.md names groups of cases, for `--case`."""
    page = (ROOT / "docs" / "conformance.md").read_text()
    (paragraph,) = re.findall(r"The cases come in groups.*?networks\.", page, re.DOTALL)
    named = re.findall(r"`(?:--case )?([\w/]+)`", paragraph)
    assert len(named) > 10
    assert [group for group in named if not counts(group)] == []
    for name in ("batch_norm/one_value", "meta_acon/one_value", "act/repact_3/one_value", "empty_batch"):
        assert f"`{name}`" in page
        assert counts(name)
