"""The Python snippets of the README and docs run; docs/activations.md lists every activation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from agreement import HOW, rows

from acon_core import spec
from acon_core.backends import Backend

ROOT = Path(__file__).parents[2]
ACTIVATIONS = ROOT / "docs" / "activations.md"


def snippets(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.backend("torch")
def test_activations_page_snippets(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(snippets(ACTIVATIONS)) == 2
    for snippet in snippets(ACTIVATIONS):
        exec(snippet, {})
    printed = capsys.readouterr().out
    assert "torch.Size([2, 64, 7, 5]) torch.Size([2, 9, 64])" in printed
    assert "3 replaced, 0 not" in printed
    assert "healthy" in printed


@pytest.mark.backend("torch")
def test_readme_snippet_output(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = snippets(ROOT / "README.md")
    exec(snippet, {})
    assert f"```\n{capsys.readouterr().out}```" in (ROOT / "README.md").read_text()


def test_usage_page_snippet(backend: Backend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    loading = [each for each in snippets(ROOT / "docs" / "usage.md") if "photos_bgr_224" in each]
    assert len(loading) == 4
    (snippet,) = (each for each in loading if f"import acon_{backend.name}," in each)
    exec(snippet, {})
    assert "511 636 511 511" in re.sub(r"[\s,]+", " ", capsys.readouterr().out)


@pytest.mark.backend("torch")
def test_activations_page_is_complete() -> None:
    text = ACTIVATIONS.read_text()
    for name in spec.ACTIVATIONS:
        assert f"`{name}" in text, name
    for name in ("ACONC", "DYReLU", "LReLU", "RepAct_Origin", "RepAct_Softmax", "RepAct_BN"):
        assert f"`{name}`" in text
        spec.activation(name, 8)


def test_the_table_of_agreement_has_the_dtypes_and_waivers(backend: Backend) -> None:
    waived = len({waiver.case for waiver in backend.waivers if "act/" in waiver.case})
    found = [row for row in rows() if row.backend == backend.name]
    assert len(found) == 4
    for row in found:
        supported = row.dtype in backend.dtypes
        assert (row.unsupported == 0) == supported, HOW
        assert row.waived == (waived if supported else 0), HOW
