"""Each cell of docs/transformations.md, by the function that the page is made with."""

from __future__ import annotations

from typing import Any

import pytest
import transformations
from repository import ROOT


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" in metafunc.fixturenames:
        backend = metafunc.config.getoption("--backend")
        cells = list(transformations.cells(backend)) if backend in transformations.TITLES else []
        names = [f"{row.check.__name__}-{subject.title.replace(' ', '')}" for row, subject in cells]
        metafunc.parametrize(("row", "subject"), cells, ids=names)


def test_cell(row: transformations.Transformation, subject: transformations.Subject) -> None:
    row.verify(subject)


def test_the_page_is_current(request: pytest.FixtureRequest) -> None:
    backend: Any = request.config.getoption("--backend")
    page = (ROOT / "docs" / "transformations.md").read_text()
    assert transformations.replaced(page, backend) == page, "run `python -m nox -s transformations`"
