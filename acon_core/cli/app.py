"""What the commands of `acon` share: the application and common options."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from acon_core import __version__, backends
from acon_core.checkpoint import NetworkQuery, formats
from acon_core.checkpoint.dialects import DIALECTS
from acon_core.cli import output
from acon_core.errors import AconError
from acon_core.networks import NETWORKS, Network, as_tuples
from acon_core.spec import ACTIVATIONS, activation_name
from acon_core.verification.run import allow_imports_from

# Help is plain text: it has the same words in a terminal, a pipe, a log and any locale.
PLAIN: dict[str, Any] = {"rich_markup_mode": None, "context_settings": {"help_option_names": ["-h", "--help"]}}

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, **PLAIN)


@dataclass
class Settings:
    """Options of `acon` itself, given before the command, and the command."""

    debug: bool = False
    command: str = ""


def print_version(requested: bool) -> None:
    """Print the version and exit."""
    if requested:
        output.lines(f"acon-ports {__version__}")
        raise typer.Exit


@app.callback()
def acon(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version and exit.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Read, convert, run and compare checkpoints of PyTorch, JAX, PaddlePaddle and MegEngine."""
    settings = context.ensure_object(Settings)
    settings.debug, settings.command = debug, context.invoked_subcommand or ""


def own_function(network: str | None) -> str | None:
    """Make the current folder importable if `network` names a function of the user's own."""
    if network is not None and ":" in network:
        allow_imports_from(Path.cwd())
    return network


def completing(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return what completes an argument in a shell: the names that begin as it does."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


FileArgument = Annotated[Path, typer.Argument(help="Checkpoint of any format.")]
NETWORK_HELP = "Registered name, or package.module:function of your own."
COMPLETE_NETWORK = completing(lambda: NETWORKS)
NetworkOption = Annotated[str | None, typer.Option(help=NETWORK_HELP, callback=own_function, autocompletion=COMPLETE_NETWORK)]
ActOption = Annotated[
    str | None,
    typer.Option(
        help="Activation, such as acon_c or 'meta_acon(reduction=8)'.", autocompletion=completing(lambda: ACTIVATIONS)
    ),
]
DialectOption = Annotated[
    str | None,
    typer.Option(help=f"Naming scheme of the tensors: {', '.join(DIALECTS)}.", autocompletion=completing(lambda: DIALECTS)),
]
OptionOption = Annotated[
    list[str] | None, typer.Option(help="Network option as NAME=JSON, such as depths=[1,1,2,1]; repeatable.")
]
KeyOption = Annotated[str, typer.Option(help="Where the tensors are in the file, such as student.model or ema.")]
StripPrefixOption = Annotated[
    list[str] | None, typer.Option(help="Prefix to remove from tensor names, such as backbone. with the dot; repeatable.")
]
IgnoreOption = Annotated[list[str] | None, typer.Option(help="Pattern of tensors to leave out, such as 'total_*'; repeatable.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, errors too: docs/cli.md.")]
COMPLETE_BACKEND = completing(backends.packages)
COMPLETE_FORMAT = completing(formats)
FormatOption = Annotated[
    str | None, typer.Option(help="Format of the file, where its content fits several.", autocompletion=COMPLETE_FORMAT)
]


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


def query_of(
    network: str | None,
    act: str | None,
    dialect: str | None,
    option: list[str] | None,
    key: str = "",
    strip_prefix: list[str] | None = None,
    ignore: list[str] | None = None,
    format: str | None = None,
) -> NetworkQuery:
    """Return what the options of a command say about the network in a file."""
    return NetworkQuery(network, act, dialect, options_of(option), key, strip_prefix or (), ignore or (), format)


def network_fields(network: Network | None) -> dict[str, Any]:
    """Return what JSON says about a network; null where it is not known."""
    if network is None:
        return {"network": None, "activation": None, "classes": None, "options": {}, "input": None}
    return {
        "network": network.name or None,
        "activation": activation_name(network.activation) if network.activation else None,
        "classes": network.num_classes,
        "options": dict(network.options),
        "input": asdict(network.input) if network.input else None,
    }
