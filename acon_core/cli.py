"""`acon`: the command line. Results go to standard output; an error is one line on standard error and exit status 2."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from typer.exceptions import TyperException

from acon_core import backends, networks, spec
from acon_core.checkpoint import convert as convert_checkpoint
from acon_core.checkpoint import read_file
from acon_core.checkpoint.convert import Operation, simplified
from acon_core.checkpoint.dialects import DIALECTS, dialect_named
from acon_core.checkpoint.reading import as_checkpoint
from acon_core.checkpoint.recognise import describe
from acon_core.conformance import report as reports
from acon_core.conformance.runner import run_backend
from acon_core.errors import AconError
from acon_core.running import run_checkpoint
from acon_core.spec import ACTIVATIONS, count, named_params, summarise
from acon_core.verify import verify as verify_conversion

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

NetworkOption = Annotated[str | None, typer.Option(help="A registry name, or package.module:function of your own.")]
ActOption = Annotated[str | None, typer.Option(help="An activation, such as acon_c or 'meta_acon(reduction=8)'.")]
DialectOption = Annotated[str | None, typer.Option(help=f"Whose names the tensors have: {', '.join(DIALECTS)}.")]
ToDialectOption = Annotated[str | None, typer.Option(help="Whose names the tensors of TARGET get.")]
OptionOption = Annotated[
    list[str] | None, typer.Option(help="An option of the network's as NAME=JSON, such as depths=[1,1,2,1]; repeat for more.")
]
ToOption = Annotated[str | None, typer.Option(help="torch, megengine, paddle, jax or safetensors; else by TARGET's ending.")]


def options_of(given: list[str] | None) -> dict[str, Any]:
    """What `--option` says, lists as tuples. Raises AconError for what is not NAME=JSON."""
    options = {}
    for text in given or []:
        name, _, value = text.partition("=")
        try:
            read = json.loads(value)
        except json.JSONDecodeError as error:
            raise AconError(f"--option {text}: expected NAME=JSON, such as depths=[1,1,2,1]: {error}") from error
        options[name] = tuple(read) if isinstance(read, list) else read
    return options


def progress() -> Progress:
    """A progress bar on standard error, silent when that is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


@app.command("list")
def list_(what: Annotated[str, typer.Argument(help="networks, activations or backends")] = "networks") -> None:
    """List the networks, activations or backends that are known."""
    tables: dict[str, list[str]] = {
        "networks": list(networks.NETWORKS),
        "activations": list(ACTIVATIONS),
        "backends": list(backends.packages()),
    }
    if what not in tables:
        raise AconError(f"list {what}: expected one of {', '.join(tables)}")
    for name in tables[what]:
        out.print(name)


@app.command()
def inspect(
    file: Path,
    network: NetworkOption = None,
    act: ActOption = None,
    dialect: DialectOption = None,
    option: OptionOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Say what a checkpoint holds, which network it fits, and what that network's input must be."""
    with progress() as bar:
        bar.add_task(f"reading {file.name}", total=None)
        format, found = read_file(file)
    format = replace(format, dialect=dialect_named(dialect))
    facts: dict[str, Any] = {"file": str(file), "format": format.name, "tensors": len(found.tensors)}
    notes = list(found.notes)
    try:
        checkpoint = as_checkpoint(file, format, found, network, act, options_of(option))
    except AconError as error:
        if network or act or dialect or option:
            raise
        facts["network"] = f"not recognised: {error}"
    else:
        facts["network"] = describe(checkpoint.network)
        facts["input"] = str(checkpoint.network.input or "not stated")
        notes = list(checkpoint.notes)
    facts |= {"notes": notes, "globals": list(found.globals_seen)}
    tensors = {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in found.tensors.items()}
    if as_json:
        out.print_json(json.dumps(facts | {"tensors": tensors}))
        return
    for name, value in facts.items():
        for line in value if isinstance(value, list) else [value]:
            out.print(f"{name}: {line}", markup=False)
    for name, tensor in tensors.items():
        out.print(f"  {name}  {tensor['dtype']}  {tuple(tensor['shape'])}", markup=False)


@app.command()
def convert(
    source: Path,
    target: Path,
    to: ToOption = None,
    network: NetworkOption = None,
    act: ActOption = None,
    dialect: DialectOption = None,
    to_dialect: ToDialectOption = None,
    option: OptionOption = None,
    verify: Annotated[bool, typer.Option("--verify", help="Run the network on both sides and compare.")] = False,
) -> None:
    """Write a checkpoint as one of another framework. What was written is read again and compared bit for bit."""
    with progress() as bar:
        task = bar.add_task(f"{source.name} -> {target.name}", total=None)
        done = convert_checkpoint(
            source, target, to, network, act,
            dialect=dialect,
            to_dialect=to_dialect,
            options=options_of(option),
            step=lambda text: bar.update(task, description=text),
            verify=verify_conversion if verify else None,
        )  # fmt: skip
    out.print(f"{source} ({done.source.format.name}): {describe(done.source.network)}", markup=False)
    for note in done.notes:
        out.print(f"note: {note}", markup=False)
    out.print(f"{target} ({done.target.name}): {done.tensors} tensors, read again and equal bit for bit", markup=False)


def simplify(
    source: Path,
    target: Path,
    operation: Operation,
    to: str | None,
    network: str | None,
    act: str | None,
    dialect: str | None,
    to_dialect: str | None,
    option: list[str] | None,
) -> None:
    """Convert with a change on the way, and say what became of it."""
    with progress() as bar:
        task = bar.add_task(f"{source.name} -> {target.name}", total=None)
        done = convert_checkpoint(
            source, target, to, network, act,
            dialect=dialect,
            to_dialect=to_dialect,
            options=options_of(option),
            change=simplified(operation),
            step=lambda text: bar.update(task, description=text),
        )  # fmt: skip
    for note in done.notes:
        out.print(f"note: {note}", markup=False)
    out.print(f"{target} ({done.target.name}): {describe(done.source.network)}, {done.tensors} tensors", markup=False)


def simplifying(operation: Operation) -> Callable[..., None]:
    """The command that converts a checkpoint with that change."""

    def command(
        source: Path,
        target: Path,
        to: ToOption = None,
        network: NetworkOption = None,
        act: ActOption = None,
        dialect: DialectOption = None,
        to_dialect: ToDialectOption = None,
        option: OptionOption = None,
    ) -> None:
        simplify(source, target, operation, to, network, act, dialect, to_dialect, option)

    return command


app.command("fuse", help="Write a checkpoint with every RepAct in its exact closed form, for inference.")(
    simplifying(spec.fuse)
)
app.command("fold", help="Write a checkpoint with Meta-ACON's norms folded into its convolutions, for inference.")(
    simplifying(spec.fold)
)


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
        logits = run_checkpoint(
            file, input, output, backend, network, act, dialect, options_of(option),
            lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    out.print(f"{output}: logits {logits.shape} {logits.dtype}", markup=False)


@app.command()
def summary(
    network: Annotated[str, typer.Argument(help="A registry name, or package.module:function.")],
    act: ActOption = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes, if not the published.")] = None,
    option: OptionOption = None,
    size: Annotated[int | None, typer.Option(help="Height and width of the input in pixels.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Layer by layer.")] = False,
) -> None:
    """Exact parameters, MACs, state keys and sizes of a network, from its spec alone."""
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


def main() -> None:
    """Run `acon`: whatever the user can act on is one line and status 2; --debug shows where it came from."""
    sys.path.insert(0, str(Path.cwd()))
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        sys.exit(app(args=arguments, prog_name="acon", standalone_mode=False))
    except (AconError, TyperException) as error:
        if len(arguments) != len(sys.argv[1:]):
            raise
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        err.print(f"acon: {' '.join(message.split())}", markup=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
