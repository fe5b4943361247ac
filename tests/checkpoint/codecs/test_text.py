"""Text from a file is printed on one line, in bounded length, without control characters."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from acon_core import spec
from acon_core.checkpoint import formats, metadata
from acon_core.cli import main
from acon_core.networks import create

NETWORK, OPTIONS = "acon/shufflenet_v2_x0_5", {"repeats": (1, 1, 1)}
# A terminal title, a newline, right-to-left text, a C1 sequence, emoji and markup of Rich, 5 MB.
TEXTS = ["\x1b]0;x\x07", "one\ntwo", "\u202etxt", "\x9b31m", ":smile:", "[red]", "long" * 1_250_000]


@pytest.fixture
def acon(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., str]:
    """Run `acon`, and check every line that it prints."""

    def run(*arguments: object, status: int) -> str:
        monkeypatch.setattr(sys, "argv", ["acon", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        text = b"".join(capfdbinary.readouterr()).decode()
        assert (left.value.code or 0) == status, text[:2000]
        assert not [each for each in text if each != "\n" and unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
        assert max(map(len, text.split("\n"))) <= 1000
        return text

    return run


def hostile(path: Path, value: float, text: str = "".join(TEXTS[:-1])) -> Path:
    """Write a file of no network, with the text in names and metadata."""
    tensors = {f"{text} weight": np.float32([value, 2]), "w": np.float32([1, 2, 3])}
    formats()["safetensors"].codec.write(path, tensors, {text: text, "num_classes": text})
    return path


def trained(path: Path, changed: dict[str, str], *more: str) -> Path:
    """Write a network with other metadata, and with unexpected tensors of these names."""
    network = create(NETWORK, "acon_c", 3, **OPTIONS)
    known = formats()["safetensors"]
    native = known.layout.to_native(network.graph, spec.initial_state(network.graph, 5))
    known.codec.write(path, {**native, **{name: np.float32([2, 3]) for name in more}}, metadata(network) | changed)
    return path


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_names_and_metadata(acon: Callable[..., str], tmp_path: Path, text: str) -> None:
    first, second = (hostile(tmp_path / name, value, text[:90_000]) for name, value in (("a", 1.5), ("b", 2.5)))
    seen = acon("inspect", first, status=0)
    assert "not recognised" in seen
    assert "metadata: num_classes = " in seen
    assert "1 differ" in acon("diff", first, second, status=1)
    assert "no network has exactly these" in acon("convert", first, tmp_path / "c.msgpack", status=2)
    if text in (":smile:", "[red]"):
        seen = acon("inspect", first, "--tensors", status=0)
        assert re.search(rf"^{re.escape(text)} weight +float32 +\(2,\) +8 bytes$", seen, re.MULTILINE)


def test_json_is_ascii(acon: Callable[..., str], tmp_path: Path) -> None:
    first, second = (hostile(tmp_path / name, value) for name, value in (("a", 1.5), ("b", 2.5)))
    name = "".join(TEXTS[:-1])
    told = acon("inspect", first, "--json", status=0)
    assert told.isascii()
    assert f"{name} weight" in json.loads(told)["tensors"]
    told = acon("diff", first, second, "--json", status=1)
    assert told.isascii()
    assert json.loads(told)["differences"][0]["name"] == f"{name} weight"


CHANGED: dict[str, Callable[[str], str]] = {
    "activation": str,
    "dialect": str,
    "num_classes": str,
    "input": str,
    "options": lambda text: json.dumps({text: 1}),
}


@pytest.mark.parametrize("entry", CHANGED)
@pytest.mark.parametrize("text", ["".join(TEXTS[:-1]), TEXTS[-1]], ids=["controls", "long"])
def test_hostile_metadata(acon: Callable[..., str], tmp_path: Path, entry: str, text: str) -> None:
    path = trained(tmp_path / "a", {entry: CHANGED[entry](text)})
    told = acon("convert", path, tmp_path / "b.npz", status=2)
    assert told.startswith("acon: ")
    assert told.count("\n") == 1
    assert not (tmp_path / "b.npz").exists()


@pytest.mark.parametrize("text", ["".join(TEXTS[:-1]), TEXTS[-1][:90_000]], ids=["controls", "long"])
def test_hostile_tensor_names(acon: Callable[..., str], tmp_path: Path, text: str) -> None:
    for name, ending in ((text, "is unexpected"), (f"{text}.ActorAtn", "is not a name of the spec")):
        assert ending in acon("convert", trained(tmp_path / "a", {}, name), tmp_path / "b.npz", status=2)


def test_invalid_options(acon: Callable[..., str], tmp_path: Path) -> None:
    path = trained(tmp_path / "a", {"options": "".join(TEXTS)})
    assert "invalid metadata: options are " in acon("convert", path, tmp_path / "b.npz", status=2)


def test_invalid_input(acon: Callable[..., str], tmp_path: Path) -> None:
    path = trained(tmp_path / "a", {"input": json.dumps({TEXTS[0]: 1})})
    assert "invalid input " in acon("convert", path, tmp_path / "b.npz", status=2)
