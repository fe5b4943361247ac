"""The table of docs/conformance.md, and what its counts must be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from repository import ROOT

from acon_core.conformance.cases import load_cases

HOW = "make the table again: acon conformance --backend NAME --case act/ --report ...; acon report --markdown ..."


@dataclass(frozen=True)
class Row:
    """The counts of a backend in a dtype."""

    backend: str
    dtype: str
    passed: int
    failed: int
    waived: int
    unsupported: int

    @property
    def total(self) -> int:
        return self.passed + self.failed + self.waived + self.unsupported


def rows() -> list[Row]:
    """Return the rows of the table."""
    text = (ROOT / "docs" / "conformance.md").read_text()
    shown = text.partition("<!-- agreement: begin -->")[2].partition("<!-- agreement: end -->")[0]
    found = []
    for line in shown.strip().splitlines()[2:]:
        title, dtype, *_, passed, failed, waived, unsupported = (cell.strip() for cell in line.strip("|").split("|"))
        found.append(Row(title.split()[0], dtype, int(passed), int(failed), int(waived), int(unsupported)))
    return found


def counts(part: str = "act/") -> Counter[str]:
    """Return the number of cases in each dtype whose name contains this."""
    return Counter(dtype for case in load_cases() if part in case.name for dtype in case.dtypes)
