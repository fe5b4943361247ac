"""`acon list` and `acon summary`: the registries, and the exact counts of a network."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from acon_core import backends, kernels, networks
from acon_core.checkpoint.recognise import describe
from acon_core.cli.app import NETWORK_HELP, ActOption, OptionOption, app, options_of, out, own_function
from acon_core.errors import AconError
from acon_core.spec import ACTIVATIONS, count, named_params, summarise


@app.command("list")
def list_(what: Annotated[str, typer.Argument(help="networks, activations or backends")] = "networks") -> None:
    """List the networks, the activations, or the backends and what computes their activations."""
    reference = {"numpy": "the reference, in NumPy"}
    tables: dict[str, list[str]] = {
        "networks": list(networks.NETWORKS),
        "activations": list(ACTIVATIONS),
        "backends": [f"{name:<9}  {reference.get(name, kernels.status())}" for name in backends.packages()],
    }
    if what not in tables:
        raise AconError(f"list {what}: expected one of {', '.join(tables)}")
    for name in tables[what]:
        out.print(name, markup=False, soft_wrap=True)


@app.command()
def summary(
    network: Annotated[str, typer.Argument(help=NETWORK_HELP, callback=own_function)],
    act: ActOption = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes (default: as published)")] = None,
    option: OptionOption = None,
    size: Annotated[int | None, typer.Option(help="Height and width of the input in pixels.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Print one row per layer.")] = False,
) -> None:
    """Count parameters, MACs, state keys and bytes of a network from its spec."""
    made = networks.create(network, act, classes, **options_of(option))
    shape = (1, 3, size, size) if size else made.input_shape
    counts = count(made.graph, shape)
    out.print(f"{describe(made)}, input {shape}", markup=False)
    if layers:
        table = Table("layer", "kind", "output", "parameters", "MACs")
        for row in summarise(made.graph, shape):
            shapes = " ".join(str(each) for each in row.outputs)
            table.add_row(row.path, row.kind, shapes, f"{row.parameters:,}", f"{row.macs:,}")
        out.print(table)
    weights = sum(4 * int(np.prod(param.shape)) for param in named_params(made.graph).values() if not param.integer)
    for label, value in {**counts.labelled(), "bytes in float32": weights}.items():
        out.print(f"{label}: {value:,}", markup=False)
