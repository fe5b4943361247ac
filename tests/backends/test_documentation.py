"""What the pages show runs, and they leave no activation out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from acon_core import spec

PAGE = Path(__file__).parents[2] / "docs" / "activations.md"


@pytest.mark.backend("torch")
def test_the_snippets_of_the_page_on_activations_run(capsys: pytest.CaptureFixture[str]) -> None:
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(snippet, {})
    printed = capsys.readouterr().out
    assert "torch.Size([2, 64, 7, 5]) torch.Size([2, 9, 64])" in printed
    assert "3 replaced, 0 not" in printed
    assert "healthy" in printed


@pytest.mark.backend("torch")
def test_the_page_names_every_activation_and_every_alias_that_it_claims() -> None:
    text = PAGE.read_text()
    for name in spec.ACTIVATIONS:
        assert f"`{name}" in text, name
    for name in ("ACONC", "DYReLU", "LReLU", "RepAct_Origin", "RepAct_Softmax", "RepAct_BN"):
        assert f"`{name}`" in text
        spec.activation(name, 8)
