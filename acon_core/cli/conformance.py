"""`acon conformance` and `acon report`: compare backends with the golden numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from acon_core.cli.app import app, out, progress
from acon_core.conformance import curves, golden
from acon_core.conformance import report as reports
from acon_core.conformance.cases import DATA, load_cases
from acon_core.conformance.runner import run_backend
from acon_core.errors import AconError

conformance_app = typer.Typer(invoke_without_command=True)
golden_app = typer.Typer(no_args_is_help=True, help="Make and check the golden numbers.")
conformance_app.add_typer(golden_app, name="golden")
app.add_typer(conformance_app, name="conformance")


@conformance_app.callback()
def conformance(
    context: typer.Context,
    backend: Annotated[list[str] | None, typer.Option(help="Backend to test; repeatable. (default: numpy)")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the results to this file as JSON.")] = None,
    case: Annotated[str, typer.Option(help="Run only cases whose name contains this text.")] = "",
    compiled: Annotated[bool, typer.Option("--compiled", help="Run through the framework's compiler.")] = False,
) -> None:
    """Compare backends with the golden numbers.

    Exits with 1 if a case fails, 2 if a backend is not installed.
    """
    if context.invoked_subcommand:
        if backend or report or case or compiled:
            raise AconError("acon conformance golden: takes none of --backend, --report, --case and --compiled; omit them")
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
    out.print(reports.table(results))
    if any(result.failed for result in results):
        raise typer.Exit(1)


@golden_app.command()
def make(
    path: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    names: Annotated[list[str], typer.Argument(help="Names of cases.")],
) -> None:
    """Compute the golden numbers of the named cases and write them to PATH."""
    cases = {case.name: case for case in load_cases()}
    for name in names:
        if name not in cases:
            raise AconError(f"no case is named {name!r}; the names are in conformance_data/cases")
    golden.write(path, [cases[name] for name in names])


@golden_app.command()
def regenerate() -> None:
    """Compute all golden numbers and training losses and store them in conformance_data."""
    if DATA.name != "conformance_data":
        raise AconError(f"{DATA}: belongs to an installed package; run the command in a checkout")
    golden.regenerate()
    curves.regenerate()


def _print_findings(command: str, findings: list[str]) -> None:
    """Print one line per finding.

    Exits with 1 if there is one.
    """
    out.print("\n".join(findings) or f"{command}: {len(load_cases())} cases, nothing wrong", markup=False)
    if findings:
        raise typer.Exit(1)


@golden_app.command()
def compare() -> None:
    """Compute all golden numbers and compare them with the stored ones.

    Exits with 1 if they differ.
    """
    _print_findings("compare", golden.compare())


@golden_app.command()
def check() -> None:
    """Check the cases against their schema and against the stored numbers.

    Exits with 1 on an error.
    """
    _print_findings("check", golden.check())


@app.command("report")
def report_(
    files: Annotated[list[Path], typer.Argument(help="Files that acon conformance --report wrote.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Print the reports of several environments as one table.

    Exits with 1 if a case failed in any of them.
    """
    results = [result for file in files for result in reports.read(file)]
    if markdown:
        out.print(reports.markdown(results), markup=False)
    else:
        out.print(reports.table(results))
    if any(result.failed for result in results):
        raise typer.Exit(1)
