"""`python -m acon_core.conformance make|regenerate|compare|check`: the golden numbers, for those who change cases."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from acon_core.checkpoint.codecs import safetensors_file
from acon_core.conformance import curves, golden
from acon_core.conformance.cases import ARRAYS, DATA, SCHEMA, load_cases

LIMIT = 10_000_000


def check() -> list[str]:
    """What is wrong with the cases, a line each: against the schema, against each other, against the stored arrays."""
    import jsonschema  # needed here alone: it comes with the test requirements

    lines = []
    for path in sorted((DATA / "cases").glob("*.json")):
        errors = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).iter_errors(json.loads(path.read_text()))
        lines += [f"{path.name}: {error.json_path}: {error.message}" for error in errors]
    if lines:
        return lines
    cases = load_cases()
    names = [case.name for case in cases]
    lines += [f"{name}: the name occurs twice" for name in sorted({name for name in names if names.count(name) > 1})]
    for case in cases:
        for shape in case.batches:
            case.build().out_shapes(shape)
    have = {key.partition(":")[0] for key in golden.stored()}
    want = {case.name for case in cases if case.golden == "stored" and not case.raises}
    lines += [f"{name}: golden numbers and cases do not match" for name in sorted(have ^ want)]
    if ARRAYS.stat().st_size > LIMIT:
        lines.append(f"{ARRAYS.name}: {ARRAYS.stat().st_size} bytes, more than {LIMIT}")
    return lines


def main(arguments: list[str]) -> int:
    """Run one of the commands; 1 when something is wrong."""
    match arguments:
        case ["make", path, *names]:
            chosen = [case for case in load_cases() if case.name in names]
            safetensors_file.write(Path(path), golden.make_all(chosen), {})
            return 0
        case ["regenerate"]:
            golden.regenerate()
            curves.regenerate()
            return 0
        case ["compare"] | ["check"]:
            lines = check() if arguments == ["check"] else golden.compare()
            print("\n".join(lines) or f"{arguments[0]}: {len(load_cases())} cases, nothing wrong")
            return 1 if lines else 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
