"""What `acon` writes where: pipes, terminals, locales, full disks; and how it names near misses."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_checkpoints import write_smallest, write_state

COMMAND = [sys.executable, "-m", "acon_core"]
PLAIN = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM")}


def acon(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=PLAIN | environment)


def on_a_terminal(*arguments: object, **environment: str) -> str:
    """Return what a command writes to a terminal of 80 columns."""
    parent, child = pty.openpty()
    command = [*COMMAND, *map(str, arguments)]
    with subprocess.Popen(command, stdout=child, stderr=child, env=PLAIN | {"TERM": "xterm", **environment}) as process:
        os.close(child)
        written = b""
        try:
            while block := os.read(parent, 1 << 16):
                written += block
        except OSError:  # on Linux, the end of a terminal
            pass
        finally:
            os.close(parent)
        process.wait()
    return written.decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("terminal")
    write_smallest(path / "a.safetensors")
    long = {f"{'block.' * 50}{index}.weight": np.full((2, 3), index, np.float32) for index in (1, 2)}
    write_state(path / "long.pth", long)
    write_state(path / "other.pth", {name: array + 1 for name, array in long.items()})
    return path


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1", "GITHUB_ACTIONS": "true"}])
def test_no_control_characters_outside_of_a_terminal(folder: Path, variables: dict[str, str]) -> None:
    for arguments in (["inspect", folder / "a.safetensors", "--json"], ["-h"]):
        done = acon(*arguments, **variables)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout + done.stderr, arguments


def test_a_table_has_colors_where_they_are_wanted() -> None:
    arguments = ("conformance", "--case", "relu/kink")
    assert "\x1b[32m" in on_a_terminal(*arguments)
    assert "\x1b[" not in on_a_terminal(*arguments, NO_COLOR="1", TERM="dumb")
    assert "\x1b[32m" in acon(*arguments, FORCE_COLOR="1").stdout
    assert "\x1b" not in acon(*arguments, FORCE_COLOR="1").stderr


def test_names_come_in_columns_to_a_terminal_and_one_a_line_elsewhere() -> None:
    lines = on_a_terminal("list").splitlines()
    assert 8 < len(lines) < 20
    assert all(len(line) <= 80 for line in lines)
    assert len(acon("list").stdout.splitlines()) == sum(len(line.split()) for line in lines)


def test_names_are_never_cut(folder: Path) -> None:
    name = f"{'block.' * 50}1.weight"
    assert len(name) > 300
    for arguments in (("inspect", "--tensors", folder / "long.pth"), ("diff", folder / "long.pth", folder / "other.pth")):
        assert name in acon(*arguments).stdout
    folded = on_a_terminal("inspect", "--tensors", folder / "long.pth")
    assert "…" not in folded
    assert folded.count("b") > 100


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_locale_without_utf_8(tmp_path: Path, encoding: str) -> None:
    write_smallest(tmp_path / "β.safetensors")
    variables = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for arguments in (["inspect", tmp_path / "β.safetensors"], ["summary", "acon/dcn", "--layers"], ["-h"]):
        done = acon(*arguments, **variables)
        assert (done.returncode, done.stderr) == (0, "")
    gone = acon("inspect", tmp_path / "γ.pth", **variables)
    assert gone.returncode == 2
    assert "\\u03b3.pth: no such file" in gone.stderr


@pytest.mark.parametrize("arguments", [["summary", "acon/shufflenet_v2_x0_5", "--layers"], ["list"], ["-h"]])
def test_closed_pipe(arguments: list[str]) -> None:
    read, written = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, *arguments], stdout=written, stderr=subprocess.PIPE, text=True, check=False, env=PLAIN)
    os.close(written)
    assert done.stderr == ""
    assert done.returncode == (1 if arguments == ["-h"] else 141)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["-h"], ["--version"], ["list", "nothing", "--json"]])
def test_full_disk(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=PLAIN)
    (line,) = done.stderr.splitlines()
    assert line.startswith("acon: ")
    assert done.returncode == 2
    if "nothing" not in arguments:
        assert "standard output cannot be written: No space left on device" in line


def test_closed_streams(folder: Path) -> None:
    for redirection, status in ((">&-", 0), ("2>&-", 0), (">&- 2>&-", 0)):
        command = f"{sys.executable} -m acon_core inspect {folder / 'a.safetensors'} {redirection}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, env=PLAIN)
        assert (done.returncode, done.stderr) == (status, "")
    command = f"{sys.executable} -m acon_core inspect {folder / 'gone'} 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False, env=PLAIN).returncode == 2


def test_names_of_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\nb.safetensors"
    write_smallest(path)
    done = acon("convert", path, tmp_path / "c\x1b.npz")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "a\\x1b[31m\\nb.safetensors" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "suggested"),
    [
        (["summary", "shufflenetv2_x0_5"], "did you mean acon/shufflenet_v2_x0_5 or repact/shufflenet_v2_x0_5 or torchvision/"),
        (["summary", "acon/dcn", "--act", "meta-acon"], "did you mean meta_acon? `acon list activations` prints all"),
        (["summary", "acon/dcn", "--act", "meta_acon(reductoin=8)"], "did you mean reduction?"),
        (["summary", "acon/resnet50", "--option", "stride_in=3"], "did you mean stride_on?"),
        (["convert", "a.safetensors", "b.pth", "--to", "pytorh"], "did you mean torch? expected one of"),
        (["inspect", "a.safetensors", "--dialect", "paddleclass"], "did you mean paddleclas?"),
        (["list", "backend"], "did you mean backends?"),
        (["lst"], "Did you mean 'list'?"),
        (["conformance", "--backend", "trch"], "did you mean torch?"),
        (["inspect", "--jsn", "a.safetensors"], "--json"),
    ],
)
def test_near_misses(folder: Path, arguments: list[str], suggested: str) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert suggested in line
    assert len(line) < 400


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    script = acon(_ACON_COMPLETE=f"source_{shell}")
    assert script.returncode == 0
    assert "_ACON_COMPLETE=complete_" in script.stdout
    arguments = {"COMP_WORDS": "acon summary acon/sh", "COMP_CWORD": "2", "_TYPER_COMPLETE_ARGS": "acon summary acon/sh"}
    done = acon(_ACON_COMPLETE=f"complete_{shell}", _TYPER_COMPLETE_FISH_ACTION="get-args", **arguments)
    assert "acon/shufflenet_v2_x0_5" in done.stdout


def test_values_outside_of_the_range_run_with_force(folder: Path) -> None:
    np.save(folder / "x.npy", np.full((1, 3, 40, 48), 300.0))
    arguments = ("run", folder / "a.safetensors", "--input", folder / "x.npy", "--output", folder / "y.npz")
    refused = acon(*arguments)
    assert refused.returncode == 2
    assert "values from 300 to 300, expected 0 to 255" in refused.stderr
    assert "--force" in refused.stderr
    done = acon(*arguments, "--force")
    assert done.returncode == 0
    assert "warning: " in done.stderr
    with np.load(folder / "y.npz") as written:
        assert written["logits"].shape == (1, 3)


@pytest.mark.parametrize(
    "content", [b"\xff\xd8\xff\xe0JFIF", b"\x89PNG\r\n\x1a\n", b"\x80\x04]q\x00.", b"PK\x03\x04cut", b"\x93NUMPYcut", b""]
)
def test_input_that_is_no_array(folder: Path, content: bytes) -> None:
    path = folder / "x"
    path.write_bytes(content)
    done = acon("run", folder / "a.safetensors", "--input", path, "--output", folder / "y.npz")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"acon: {path}: ")
    assert "pickle" not in line
    assert ("an image; decode it" in line) == (content[:1] in (b"\xff", b"\x89"))
