"""`acon run`: run the network of a checkpoint on images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acon_core.cli.app import (
    COMPLETE_BACKEND,
    ActOption,
    DialectOption,
    FileArgument,
    FormatOption,
    IgnoreOption,
    JsonOption,
    KeyOption,
    NetworkOption,
    OptionOption,
    StripPrefixOption,
    app,
    query_of,
)
from acon_core.cli.output import answer, lines, progress, warn
from acon_core.verification.run import run_checkpoint


@app.command()
def run(
    file: FileArgument,
    input: Annotated[Path, typer.Option(help=".npz or .npy file with one array of images (N, C, H, W), uint8 or float.")],
    output: Annotated[Path, typer.Option(help=".npz file to write, with the array `logits`.")],
    backend: Annotated[
        str, typer.Option(help="numpy, torch, megengine, paddle or jax.", autocompletion=COMPLETE_BACKEND)
    ] = "numpy",
    network: NetworkOption = None,
    act: ActOption = None,
    dialect: DialectOption = None,
    option: OptionOption = None,
    key: KeyOption = "",
    strip_prefix: StripPrefixOption = None,
    ignore: IgnoreOption = None,
    format: FormatOption = None,
    force: Annotated[bool, typer.Option("--force", help="Run on values outside the range that the network expects.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a checkpoint's network in evaluation mode.

    If the file has the backend's own format, the framework's own loader reads it.
    """
    with progress() as bar:
        task = bar.add_task(f"{file.name} on {backend}", total=None)
        logits, warnings = run_checkpoint(
            file, input, output, backend, query_of(network, act, dialect, option, key, strip_prefix, ignore, format),
            lambda done, total: bar.update(task, completed=done, total=total),
            force=force,
        )  # fmt: skip
    fields = {"file": file, "output": output, "backend": backend, "shape": logits.shape, "dtype": str(logits.dtype)}
    if not as_json:
        warn(warnings)
    answer("run", as_json, {**fields, "warnings": warnings}, lambda: lines(f"{output}: logits {logits.shape} {logits.dtype}"))
