"""What the commands of `acon` share: the application, its two consoles, and common options."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from acon_core import __version__
from acon_core.checkpoint import NetworkQuery
from acon_core.checkpoint.dialects import DIALECTS
from acon_core.errors import AconError
from acon_core.networks import as_tuples
from acon_core.verification.run import allow_imports_from

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
out = Console(soft_wrap=True, highlight=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


@dataclass
class Settings:
    """Options of `acon` itself, given before the command."""

    debug: bool = False


def print_version(requested: bool) -> None:
    """Print the version and exit."""
    if requested:
        out.print(f"acon-ports {__version__}")
        raise typer.Exit


@app.callback()
def acon(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Read, convert, run and compare checkpoints of PyTorch, JAX, PaddlePaddle and MegEngine."""
    context.ensure_object(Settings).debug = debug


def own_function(network: str | None) -> str | None:
    """Make the current folder importable if `network` names a function of the user's own."""
    if network is not None and ":" in network:
        allow_imports_from(Path.cwd())
    return network


FileArgument = Annotated[Path, typer.Argument(help="Checkpoint of any format.")]
NETWORK_HELP = "Registered name, or package.module:function of your own."
NetworkOption = Annotated[str | None, typer.Option(help=NETWORK_HELP, callback=own_function)]
ActOption = Annotated[str | None, typer.Option(help="Activation, such as acon_c or 'meta_acon(reduction=8)'.")]
DialectOption = Annotated[str | None, typer.Option(help=f"Naming scheme of the tensors: {', '.join(DIALECTS)}.")]
OptionOption = Annotated[
    list[str] | None, typer.Option(help="Network option as NAME=JSON, such as depths=[1,1,2,1]; repeatable.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def options_of(given: list[str] | None) -> dict[str, Any]:
    """Parse the values of `--option`; lists become tuples. Raises AconError unless NAME=JSON."""
    options = {}
    for text in given or []:
        name, _, value = text.partition("=")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError as error:
            raise AconError(f"--option {text}: expected NAME=JSON, such as depths=[1,1,2,1]: {error}") from error
    return as_tuples(options)


def query_of(network: str | None, act: str | None, dialect: str | None, option: list[str] | None) -> NetworkQuery:
    """Return what the options of a command say about the network in a file."""
    return NetworkQuery(network, act, dialect, options_of(option))


def progress() -> Progress:
    """Return a progress bar on standard error; it prints nothing where that is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
