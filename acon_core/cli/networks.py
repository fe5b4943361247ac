"""`acon list` and `acon summary`: the registries, and the exact counts of a network."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
import typer
from rich.columns import Columns
from rich.table import Table
from rich.text import Text

from acon_core import kernels, networks
from acon_core.checkpoint.recognise import describe
from acon_core.cli.app import (
    COMPLETE_NETWORK,
    NETWORK_HELP,
    ActOption,
    JsonOption,
    OptionOption,
    app,
    completing,
    network_fields,
    options_of,
    own_function,
)
from acon_core.cli.output import aligned, answer, is_terminal, lines, size, table
from acon_core.discovery import Registration, registrations
from acon_core.errors import AconError, BackendError, choices
from acon_core.spec import ACTIVATIONS, count, named_params, summarise
from acon_core.verification.verify import has_framework

LISTS = ("networks", "activations", "backends")
# In a process of its own: it may hang on a GPU, print, or end the process.
CHILD = "import sys; from acon_core import backends; sys.path[:] = sys.argv[2:]; backends.get(sys.argv[1])"


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(help="networks, activations or backends", autocompletion=completing(lambda: LISTS))
    ] = "networks",
    as_json: JsonOption = False,
) -> None:
    """List the networks, the activations, or the backends.

    Of a backend: what computes its activations, or why it cannot be used.
    """
    if what not in LISTS:
        raise AconError(f"list {what}: {choices(what, LISTS)}")
    if what == "backends":
        found = [_backend(each) for each in registrations()]
        rows = [f"{each['name']:<9}  {each['status']}" for each in found]
        answer("list", as_json, {"backends": found}, lambda: lines(*rows))
        return
    names = list(networks.NETWORKS if what == "networks" else ACTIVATIONS)
    answer("list", as_json, {what: names}, lambda: _columns(names))


def _columns(names: list[str]) -> None:
    """Write names in columns to a terminal, else one a line."""
    if is_terminal(sys.stdout):
        table(Columns(map(Text, names), column_first=True, padding=(0, 3)))
    else:
        lines(*names)


def _backend(registration: Registration) -> dict[str, Any]:
    """Return what `acon list backends` says about a registration."""
    problem = _problem(registration)
    works = "the reference, in NumPy" if registration.name == "numpy" else kernels.status()
    if not registration.own:
        works = f"of {registration.distribution}"
    fields = {"name": registration.name, "package": registration.package, "distribution": registration.distribution}
    return {**fields, "usable": not problem, "status": problem or works}


def _problem(registration: Registration) -> str:
    """Return why a backend cannot be used here; empty if it can."""
    if registration.problem:
        return f"refused: {registration.problem}"
    if registration.own:
        if has_framework(registration.name):
            return ""
        needed = registration.python_needed()
        where = f" in an environment with Python {needed}" if needed else ""
        return f"not installed; install it with: pip install '{registration.distribution}[{registration.name}]'{where}"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, registration.name, *sys.path],
        capture_output=True,
        text=True,
        check=False,
        errors="replace",
    )
    if done.returncode == 0:
        return ""
    said = done.stderr.strip().splitlines()[-1:] or [f"its import ended with status {done.returncode}"]
    return said[0].removeprefix(f"{BackendError.__module__}.{BackendError.__name__}: ")


@app.command()
def summary(
    network: Annotated[str, typer.Argument(help=NETWORK_HELP, callback=own_function, autocompletion=COMPLETE_NETWORK)],
    act: ActOption = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes (default: as published)")] = None,
    option: OptionOption = None,
    image_size: Annotated[int | None, typer.Option("--size", help="Height and width of the input in pixels.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Print one row per layer.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Count parameters, MACs, state keys and bytes of a network."""
    made = networks.create(network, act, classes, **options_of(option))
    shape = (1, made.in_channels, image_size, image_size) if image_size else made.input_shape
    counts = count(made.graph, shape)
    rows = summarise(made.graph, shape) if layers else []
    weights = sum(4 * int(np.prod(param.shape)) for param in named_params(made.graph).values() if not param.integer)
    fields: dict[str, Any] = {**network_fields(made), "shape": shape, "counts": {**asdict(counts), "bytes": weights}}
    if layers:
        fields["layers"] = [
            {"path": row.path, "kind": row.kind, "outputs": row.outputs, "parameters": row.parameters, "macs": row.macs}
            for row in rows
        ]
    answer("summary", as_json, fields, lambda: _print_summary(describe(made), shape, rows, counts.labelled(), weights))


def _print_summary(title: str, shape: tuple[int, ...], rows: list[Any], counts: dict[str, int], weights: int) -> None:
    lines(f"{title}, input {shape}")
    if rows:
        shown = Table()
        for heading in ("layer", "kind", "output"):
            shown.add_column(heading, overflow="fold")
        for heading in ("parameters", "MACs"):
            shown.add_column(heading, justify="right", overflow="fold")
        for row in rows:
            shapes = " ".join(str(each) for each in row.outputs)
            shown.add_row(Text(row.path), row.kind, shapes, f"{row.parameters:,}", f"{row.macs:,}")
        table(shown)
    lines(*aligned({**counts, "bytes in float32": weights}), f"size in float32: {size(weights)}")
