"""`acon conformance` and `acon report`: compare backends with the golden numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from acon_core.cli.app import COMPLETE_BACKEND, PLAIN, JsonOption, app
from acon_core.cli.output import answer, lines, progress, table, write
from acon_core.conformance import curves, golden
from acon_core.conformance import report as reports
from acon_core.conformance.cases import DATA, load_cases
from acon_core.conformance.runner import BackendResult, run_backend
from acon_core.errors import AconError, choices

conformance_app = typer.Typer(invoke_without_command=True, **PLAIN)
golden_app = typer.Typer(no_args_is_help=True, help="Make and check the golden numbers.", **PLAIN)
conformance_app.add_typer(golden_app, name="golden")
app.add_typer(conformance_app, name="conformance")


@conformance_app.callback()
def conformance(
    context: typer.Context,
    backend: Annotated[
        list[str] | None, typer.Option(help="Backend to test; repeatable. (default: numpy)", autocompletion=COMPLETE_BACKEND)
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the results to this file as JSON.")] = None,
    case: Annotated[str, typer.Option(help="Run only cases whose name contains this text.")] = "",
    compiled: Annotated[bool, typer.Option("--compiled", help="Run through the framework's compiler.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare backends with the golden numbers.

    Exits with 1 if a case fails, 2 if a backend is not installed.
    """
    if context.invoked_subcommand:
        if backend or report or case or compiled or as_json:
            raise AconError("acon conformance golden: takes no option before `golden`, such as --backend or --case; omit it")
        return
    results = []
    for name in backend or ["numpy"]:
        with progress() as bar:
            task = bar.add_task(name, total=None)

            def on_progress(done: int, total: int, text: str, bar: Progress = bar, task: Any = task) -> None:
                bar.update(task, completed=done, total=total, description=text)

            results.append(run_backend(name, select=case, compiled=compiled, on_progress=on_progress))
    if report:
        reports.write(report, results)
    _answer("conformance", as_json, results, lambda: table(reports.table(results)))


def _answer(command: str, as_json: bool, results: list[BackendResult], show: Callable[[], None]) -> None:
    """Write results. Exits with 1 if a case failed."""
    fields = {"backends": [result.to_json() for result in results]}
    answer(command, as_json, fields, show, failed=any(result.failed for result in results))


@golden_app.command()
def make(
    path: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    names: Annotated[list[str], typer.Argument(help="Names of cases.")],
    as_json: JsonOption = False,
) -> None:
    """Compute the golden numbers of the named cases."""
    cases = {case.name: case for case in load_cases()}
    for name in names:
        if name not in cases:
            raise AconError(f"no case is named {name!r}; {choices(name, cases, 'acon conformance')}")
    golden.write(path, [cases[name] for name in names])
    answer("conformance golden make", as_json, {"file": path, "cases": names}, lambda: lines(f"{path}: {len(names)} cases"))


@golden_app.command()
def regenerate(as_json: JsonOption = False) -> None:
    """Compute all golden numbers and training losses. Store them in conformance_data."""
    if DATA.name != "conformance_data":
        raise AconError(f"{DATA}: belongs to an installed package; run the command in a checkout")
    golden.regenerate()
    curves.regenerate()
    answer("conformance golden regenerate", as_json, {"file": DATA}, lambda: lines(f"{DATA}: written"))


def _findings(command: str, as_json: bool, findings: list[str]) -> None:
    """Write one line per finding.

    Exits with 1 if there is one.
    """
    count = len(load_cases())
    answer(
        f"conformance golden {command}",
        as_json,
        {"cases": count, "findings": findings},
        lambda: lines(*(findings or [f"{command}: {count} cases, nothing wrong"])),
        failed=bool(findings),
    )


@golden_app.command()
def compare(as_json: JsonOption = False) -> None:
    """Compute all golden numbers and compare them.

    With the stored ones. Exits with 1 if they differ.
    """
    _findings("compare", as_json, golden.compare())


@golden_app.command()
def check(as_json: JsonOption = False) -> None:
    """Check the cases against their schema.

    And against the stored numbers. Exits with 1 on an error.
    """
    _findings("check", as_json, golden.check())


@app.command("report")
def report_(
    files: Annotated[list[Path], typer.Argument(help="Files that acon conformance --report wrote.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the reports of several environments as one table.

    Exits with 1 if a case failed in any of them.
    """
    results = [result for file in files for result in reports.read(file)]
    show = (lambda: write(f"{reports.markdown(results)}\n")) if markdown else lambda: table(reports.table(results))
    _answer("report", as_json, results, show)
