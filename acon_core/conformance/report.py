"""Write conformance results as JSON, as a table for the terminal, or as Markdown."""

from __future__ import annotations

import json
from pathlib import Path

from rich.table import Table

from acon_core.checkpoint.codecs.atomic_write import atomic_write
from acon_core.conformance.runner import BackendResult, CaseResult
from acon_core.errors import AconError

STYLES = {"pass": "green", "fail": "bold red", "waived": "yellow", "unsupported": "dim"}


def write(path: Path, results: list[BackendResult]) -> None:
    """Write results as JSON, atomically."""
    with atomic_write(path) as file:
        file.write(json.dumps([result.to_json() for result in results], indent=1).encode())


def read(path: Path) -> list[BackendResult]:
    """Read a file of `write`.

    Raises
    ------
    AconError
        If the file cannot be read or has no results.
    """
    try:
        results = [
            BackendResult(e["backend"], e["compiled"], e["environment"], [CaseResult(**each) for each in e["results"]])
            for e in json.loads(path.read_text())
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AconError(f"{path}: expected a report of `acon conformance --report`: {error}") from error
    if not results:
        raise AconError(f"{path}: expected a report of `acon conformance --report`, found no results")
    return results


def title(result: BackendResult) -> str:
    """Return the backend's name and version, and whether it was compiled."""
    version = result.environment.get(result.backend, "")
    return " ".join(filter(None, (result.backend, version, "compiled" if result.compiled else "")))


def _cell(results: list[CaseResult]) -> str:
    """Format the worst error of each dtype of a case, or its status if there is none."""
    parts = []
    for result in results:
        worst = f"{max(result.worst.values()):.0e}" if result.worst else "ok"
        text = worst if result.status in ("pass", "waived") else result.status
        parts.append(f"[{STYLES[result.status]}]{text}[/]")
    return " ".join(parts)


def table(results: list[BackendResult]) -> Table:
    """Make a table of worst errors: one row per case, one column per backend, dtypes in order."""
    rows = Table("case", *(title(result) for result in results), title="worst error as a fraction of its scale")
    names = dict.fromkeys(each.case for result in results for each in result.results)
    for name in names:
        rows.add_row(name, *(_cell([each for each in result.results if each.case == name]) for result in results))
    rows.add_section()
    for status, style in STYLES.items():
        rows.add_row(f"[{style}]{status}[/]", *(str(result.counts[status]) for result in results))
    for result in results:
        for each in result.results:
            if each.status in ("fail", "waived"):
                style = STYLES[each.status]
                rows.add_row(f"[{style}]{each.status}[/] {title(result)} {each.case} {each.dtype}", each.message)
    return rows


def markdown(results: list[BackendResult]) -> str:
    """Make a Markdown table of worst errors: a row per backend and dtype, a column per quantity."""
    kinds = {"y": "outputs", "dx": "input gradient", "dparams": "parameter gradients", "running_mean": "running mean"}
    kinds["running_var"] = "running variance"
    lines = ["| backend | dtype | " + " | ".join(kinds.values()) + " | pass | fail | waived | unsupported |"]
    lines.append("|---" * (len(kinds) + 6) + "|")
    for result in results:
        for dtype in dict.fromkeys(each.dtype for each in result.results):
            chosen = [each for each in result.results if each.dtype == dtype]
            counts = [str(sum(each.status == status for each in chosen)) for status in STYLES]
            worst = [[each.worst[kind] for each in chosen if kind in each.worst and each.status == "pass"] for kind in kinds]
            cells = [f"{max(values):.1e}" if values else "" for values in worst]
            lines.append(f"| {title(result)} | {dtype} | " + " | ".join(cells + counts) + " |")
    return "\n".join(lines)
