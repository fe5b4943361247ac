"""`acon run`, `conformance` and `report`: networks run, and backends held to the golden numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from acon_core.cli.app import ActOption, DialectOption, NetworkOption, OptionOption, app, err, options_of, out, progress
from acon_core.conformance import report as reports
from acon_core.conformance.runner import run_backend
from acon_core.verification.run import run_checkpoint


@app.command()
def run(
    file: Path,
    input: Annotated[Path, typer.Option(help="An .npz of one NCHW array, uint8 or float.")],
    output: Annotated[Path, typer.Option(help="The .npz that gets `logits`.")],
    backend: Annotated[str, typer.Option(help="numpy, torch, megengine, paddle or jax")] = "numpy",
    network: NetworkOption = None,
    act: ActOption = None,
    dialect: DialectOption = None,
    option: OptionOption = None,
) -> None:
    """Run a checkpoint's network in evaluation. A backend's own file goes through its framework's own loader."""
    with progress() as bar:
        task = bar.add_task(f"{file.name} on {backend}", total=None)
        logits, told = run_checkpoint(
            file, input, output, backend, network, act, dialect, options_of(option),
            lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    for text in told:
        err.print(f"warning: {text}", markup=False)
    out.print(f"{output}: logits {logits.shape} {logits.dtype}", markup=False)


@app.command()
def conformance(
    backend: Annotated[list[str] | None, typer.Option(help="A backend to hold to the cases; repeat for several.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the results as JSON.")] = None,
    case: Annotated[str, typer.Option(help="Only cases whose name contains this.")] = "",
    compiled: Annotated[bool, typer.Option("--compiled", help="Through the framework's compiler.")] = False,
) -> None:
    """Hold backends to the golden numbers. Exit status 1 when a case fails; a backend that is not here is an error."""
    results = []
    for name in backend or ["numpy"]:
        with progress() as bar:
            task = bar.add_task(name, total=None)

            def tell(done: int, total: int, text: str, bar: Progress = bar, task: Any = task) -> None:
                bar.update(task, completed=done, total=total, description=text)

            results.append(run_backend(name, select=case, compiled=compiled, tell=tell))
    if report:
        reports.write(report, results)
    out.print(reports.table(results))
    if any(result.failed for result in results):
        raise typer.Exit(1)


@app.command("report")
def report_(
    files: list[Path],
    markdown: Annotated[bool, typer.Option("--markdown", help="As a Markdown table, for documents.")] = False,
) -> None:
    """Show the reports of several environments as one table. Exit status 1 when a case failed in any of them."""
    results = [result for file in files for result in reports.read(file)]
    if markdown:
        out.print(reports.markdown(results), markup=False)
    else:
        out.print(reports.table(results))
    if any(result.failed for result in results):
        raise typer.Exit(1)
