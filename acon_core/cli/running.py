"""`acon run`: run the network of a checkpoint on images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acon_core.cli.app import ActOption, DialectOption, NetworkOption, OptionOption, app, err, options_of, out, progress
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
