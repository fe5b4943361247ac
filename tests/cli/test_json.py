"""`--json`: every command prints one object of docs/cli.schema.json, errors included."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import typer.main
from repository import ROOT
from small_checkpoints import write, write_smallest

from acon_core import spec
from acon_core.cli import app, main
from acon_core.networks import create

SCHEMA = json.loads((ROOT / "docs" / "cli.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[int, Any]:
    """Run `acon` in this process; return its exit status and the object that it printed."""
    monkeypatch.setattr(sys, "argv", ["acon", *map(str, arguments), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.isascii()
    document = json.loads(printed.out)
    VALIDATOR.validate(document)
    status = {"done": 0, "failed": 1, "error": 2}[document["status"]]
    assert ended.value.code == status
    return status, document


def commands(command: Any, words: str = "") -> Iterator[str]:
    """Yield the words of every command; a group that does something itself is one too."""
    if not hasattr(command, "commands") or (words and command.invoke_without_command):
        yield words
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{words} {name}".strip())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_smallest(folder / "a.safetensors")
    write_smallest(folder / "b.pth", "torch", "float64")
    repact = create("repact/shufflenet_v2_x0_5", "repact", 3, repeats=(1, 1, 1))
    write(folder / "r.pth", "torch", repact, spec.initial_state(repact.graph, 3))
    meta = create("acon/dcn", "meta_acon", 3)
    write(folder / "m.pth", "torch", meta, spec.initial_state(meta.graph, 3))
    np.savez(folder / "x.npz", x=np.linspace(0, 255, 3 * 40 * 48).reshape(1, 3, 40, 48))
    (folder / "cut.pth").write_bytes((folder / "b.pth").read_bytes()[:999])
    return folder


COMMANDS = {
    "inspect": ("inspect", "a.safetensors"),
    "check": ("check", "a.safetensors", "cut.pth"),
    "diff": ("diff", "a.safetensors", "b.pth"),
    "convert": ("convert", "a.safetensors", "c.npz"),
    "fuse": ("fuse", "r.pth", "f.pth"),
    "fold": ("fold", "m.pth", "g.pth"),
    "run": ("run", "a.safetensors", "--input", "x.npz", "--output", "y.npz"),
    "summary": ("summary", "acon/dcn", "--layers"),
    "list": ("list", "backends"),
    "conformance": ("conformance", "--case", "relu/kink", "--report", "report.json"),
    "report": ("report", "report.json"),
    "conformance golden make": ("conformance", "golden", "make", "g.safetensors", "acon_c/rank_2"),
    "conformance golden check": ("conformance", "golden", "check"),
}
# These compute every golden number; they print through the same function as `check` and `make`.
LONG = {"conformance golden compare", "conformance golden regenerate"}


def test_every_command_is_tested_here() -> None:
    found = set(commands(typer.main.get_command(app)))
    assert found == set(COMMANDS) | LONG


@pytest.mark.parametrize("command", COMMANDS)
def test_output_has_the_schema(
    command: str, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    if command == "report":
        (files / "report.json").write_text(json.dumps([REPORT]))
    status, document = run(capsys, monkeypatch, *COMMANDS[command])
    assert document["command"] == command
    assert status == (command in ("check", "diff", "report"))


REPORT = {
    "backend": "mine",
    "compiled": False,
    "environment": {"python": "3.11.7"},
    "results": [{"case": "a", "dtype": "float32", "status": "fail", "worst": {"y": float("inf")}, "message": "y/0"}],
}


def test_fields(files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    _, found = run(capsys, monkeypatch, "inspect", "a.safetensors")
    assert (found["network"], found["activation"], found["classes"]) == ("acon/shufflenet_v2_x0_5", "acon_c", 3)
    assert found["options"] == {"repeats": [1, 1, 1]}
    assert (found["input"]["order"], found["input"]["range"], found["input"]["size"]) == ("BGR", [0.0, 255.0], 224)
    assert found["tensors"]["classifier.0.weight"] == {"shape": [3, 1024], "dtype": "float32", "bytes": 12_288}
    _, listed = run(capsys, monkeypatch, "list")
    assert "acon/dcn" in listed["networks"]
    (files / "report.json").write_text(json.dumps([REPORT]))
    _, report = run(capsys, monkeypatch, "report", "report.json")
    assert report["backends"][0]["results"][0]["worst"] == {"y": None}  # JSON has no infinity


@pytest.mark.parametrize(
    ("arguments", "command", "kind", "part"),
    [
        (("inspect", "cut.pth"), "inspect", "CheckpointError: corrupt", "cut.pth"),
        (("inspect", "gone.pth"), "inspect", "AconError", "no such file"),
        (("summary", "acon/dcm"), "summary", "SpecError", "did you mean acon/dcn"),
        (("summary", "acon/dcn", "--nothing"), "summary", "UsageError", "--nothing"),
        (("nothing",), "", "UsageError", "nothing"),
    ],
)
def test_errors_are_json_too(
    arguments: tuple[str, ...],
    command: str,
    kind: str,
    part: str,
    files: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files)
    status, document = run(capsys, monkeypatch, *arguments)
    assert (status, document["command"], document["error"]["kind"]) == (2, command, kind)
    assert part in document["error"]["message"]


def test_the_schema_refuses_what_it_does_not_say() -> None:
    good = {"schema": 1, "command": "list", "status": "done", "networks": []}
    VALIDATOR.validate(good)
    for bad in (good | {"activations": []}, good | {"schema": 2}, good | {"more": 1}, good | {"command": "lists"}):
        assert not VALIDATOR.is_valid(bad)
