"""Every hostile file is refused with one error of one line, and the reader does nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import corpus
import pytest
from attacks import Attack
from corpus import CASES, FORMATS, Case, reasons

SCRIPT = Path(corpus.__file__).with_name("audit.py")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Read all cases in one process; return the outcome of each."""
    root = tmp_path_factory.mktemp("corpus")
    rows, paths = [], {}
    for index, case in enumerate(CASES):
        folder = root / str(index)
        folder.mkdir()
        path = case.make(folder)
        # A reader may open its own file; that of an index also the shards beside it.
        allowed = path.parent if path.parent != folder else path
        rows.append((case.format, str(path), str(allowed)))
        paths[str(path)] = str(case)
    (root / "list").write_text(json.dumps(rows))
    command = [sys.executable, str(SCRIPT), str(root / "list")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == len(CASES), f"ended at {CASES[len(told)]}: {done.stderr[-2000:]}"
    return {paths[each["path"]]: each for each in told}


def test_case_names_are_unique() -> None:
    assert len({str(case) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_refused(report: dict[str, dict[str, Any]], case: Case) -> None:
    told = report[str(case)]
    assert told["kind"] in case.kinds, told["message"]
    assert told["allowed"] in told["message"]  # or a shard in it
    assert told["message"].isprintable()
    assert len(told["message"]) < 600 + len(told["path"])
    assert told["events"] == []


@pytest.mark.parametrize("format", FORMATS)
def test_every_attack_has_a_case_or_a_reason(format: str) -> None:
    covered = {case.attack for case in CASES if case.format == format}
    for attack in Attack:
        assert (attack in covered) == (not reasons(format, attack)), attack


WATCHED = """
import os, sys
from pathlib import Path
from audit import Watch
watch = Watch()
watch.begin(Path(sys.argv[1]))
open(sys.argv[1]).close()
quiet = list(watch.events)
for action in (
    lambda: exec("1"), lambda: __import__("colorsys"), lambda: os.system("true"), lambda: open("/dev/null").close(),
    lambda: open(sys.argv[2]).close(), lambda: os.listdir("/"), lambda: __import__("socket").socket().close(),
    lambda: __import__("pickle").loads(b"cos\\nsystem\\n."), lambda: os.unlink(sys.argv[1]),
):
    watch.begin(Path(sys.argv[1]))
    action()
    print(len(watch.end()) > 0, end=" ")
print(quiet)
"""


def test_watch_reports_events(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "elsewhere").symlink_to("/dev/null")
    command = [sys.executable, "-c", WATCHED, str(tmp_path / "a"), str(tmp_path / "elsewhere")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout == "True " * 9 + "[]\n"
