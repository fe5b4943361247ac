"""`acon run`: run the network of a checkpoint on images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acon_core.cli.app import (
    ActOption,
    DialectOption,
    FileArgument,
    NetworkOption,
    OptionOption,
    app,
    err,
    out,
    progress,
    query_of,
)
from acon_core.verification.run import run_checkpoint


@app.command()
def run(
    file: FileArgument,
    input: Annotated[Path, typer.Option(help=".npz file with one NCHW array, uint8 or float.")],
    output: Annotated[Path, typer.Option(help=".npz file to write, with the array `logits`.")],
    backend: Annotated[str, typer.Option(help="numpy, torch, megengine, paddle or jax.")] = "numpy",
    network: NetworkOption = None,
    act: ActOption = None,
    dialect: DialectOption = None,
    option: OptionOption = None,
) -> None:
    """Run a checkpoint's network in evaluation mode.

    If the file has the backend's own format, the framework's own loader reads it.
    """
    with progress() as bar:
        task = bar.add_task(f"{file.name} on {backend}", total=None)
        logits, warnings = run_checkpoint(
            file, input, output, backend, query_of(network, act, dialect, option),
            lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    for text in warnings:
        err.print(f"warning: {text}", markup=False)
    out.print(f"{output}: logits {logits.shape} {logits.dtype}", markup=False)
