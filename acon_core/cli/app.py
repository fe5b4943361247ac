"""What the commands of `acon` share: the application, its two outputs, its usual options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from acon_core.checkpoint.dialects import DIALECTS
from acon_core.errors import AconError
from acon_core.networks import as_tuples
from acon_core.verification.run import find_functions_in

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One network, four frameworks: checkpoints read, converted, run and compared.",
)
out = Console(soft_wrap=True, highlight=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


def own_function(network: str | None) -> str | None:
    """Where the user names a function of their own, it is looked for in the current folder too; else nothing there is run."""
    if network is not None and ":" in network:
        find_functions_in(Path.cwd())
    return network


NETWORK_HELP = "A registry name, or package.module:function of your own."
NetworkOption = Annotated[str | None, typer.Option(help=NETWORK_HELP, callback=own_function)]
ActOption = Annotated[str | None, typer.Option(help="An activation, such as acon_c or 'meta_acon(reduction=8)'.")]
DialectOption = Annotated[str | None, typer.Option(help=f"Whose names the tensors have: {', '.join(DIALECTS)}.")]
ToDialectOption = Annotated[str | None, typer.Option(help="Whose names the tensors of TARGET get.")]
OptionOption = Annotated[
    list[str] | None, typer.Option(help="An option of the network's as NAME=JSON, such as depths=[1,1,2,1]; repeat for more.")
]
ToOption = Annotated[
    str | None, typer.Option(help="torch, megengine, paddle, jax, safetensors, npz, ...; else by TARGET's ending.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="The same as JSON.")]


def options_of(given: list[str] | None) -> dict[str, Any]:
    """What `--option` says, lists as tuples. Raises AconError for what is not NAME=JSON."""
    options = {}
    for text in given or []:
        name, _, value = text.partition("=")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError as error:
            raise AconError(f"--option {text}: expected NAME=JSON, such as depths=[1,1,2,1]: {error}") from error
    return as_tuples(options)


def progress() -> Progress:
    """A progress bar on standard error, silent when that is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
