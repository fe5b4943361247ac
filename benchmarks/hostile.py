"""Measure what it costs to refuse the hostile files of `tests/helpers/corpus.py`.

`python benchmarks/hostile.py` prints a Markdown table by format. Seconds are CPU time; megabytes
are the most by which the process grew while it read one file. As in the tests, one process reads
all files under an audit hook.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests" / "helpers"
sys.path.insert(0, str(TESTS))

from corpus import CASES, FORMATS  # noqa: E402  (found after the line before)


def main() -> None:
    """Print the table, and the file that cost the most."""
    with tempfile.TemporaryDirectory() as root:
        rows = []
        for index, case in enumerate(CASES):
            folder = Path(root) / str(index)
            folder.mkdir()
            path = case.make(folder)
            rows.append((case.format, str(path), str(folder)))
        (Path(root) / "list").write_text(json.dumps(rows))
        command = [sys.executable, str(TESTS / "audit.py"), str(Path(root) / "list")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    print("| format | files | refused | audit events | most seconds | most MB |")
    print("|---|--:|--:|--:|--:|--:|")
    for format in (*FORMATS, "all"):
        mine = [each for case, each in zip(CASES, told, strict=True) if format in (case.format, "all")]
        refused = sum(each["kind"] in ("unsafe", "corrupt", "unsupported") for each in mine)
        events = sum(len(each["events"]) for each in mine)
        seconds, megabytes = (max(each[name] for each in mine) for name in ("seconds", "megabytes"))
        print(f"| {format} | {len(mine)} | {refused} | {events} | {seconds:.2f} | {megabytes:.0f} |")
    for name in ("seconds", "megabytes"):
        case, each = max(zip(CASES, told, strict=True), key=lambda pair: pair[1][name])
        print(f"\nThe most {name}: {case}, {each[name]:.2f}.")


if __name__ == "__main__":
    main()
