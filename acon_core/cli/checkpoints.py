"""`acon inspect`, `check`, `diff`, `convert`, `fuse`, `fold`: what is done with checkpoint files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from acon_core import spec
from acon_core.checkpoint import convert as convert_checkpoint
from acon_core.checkpoint import read_file
from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.convert import Operation, simplified
from acon_core.checkpoint.dialects import dialect_named
from acon_core.checkpoint.diff import diff as compare
from acon_core.checkpoint.metadata import parse_input
from acon_core.checkpoint.reading import as_checkpoint
from acon_core.checkpoint.recognise import describe
from acon_core.cli.app import (
    ActOption,
    DialectOption,
    JsonOption,
    NetworkOption,
    OptionOption,
    ToDialectOption,
    ToOption,
    app,
    options_of,
    out,
    progress,
)
from acon_core.errors import AconError, CheckpointError
from acon_core.verification.verify import verify as verify_conversion


@app.command()
def inspect(
    file: Path,
    network: NetworkOption = None,
    act: ActOption = None,
    dialect: DialectOption = None,
    option: OptionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a checkpoint holds, which network it fits, and what that network's input must be."""
    with progress() as bar:
        bar.add_task(f"reading {file.name}", total=None)
        format, found = read_file(file)
    lazies = found.tensors.lazies
    facts: dict[str, Any] = {"file": str(file), "format": format.name, "tensors": len(lazies)}
    facts["bytes"] = sum(tensor.nbytes for tensor in lazies.values())
    notes = list(found.notes)
    try:
        spoken = replace(format, dialect=dialect_named(dialect))
        checkpoint = as_checkpoint(file, spoken, found, network, act, options_of(option))
    except AconError as error:
        if network or act or dialect or option:
            raise
        facts["network"] = f"not recognised: {error}"
    else:
        facts["network"] = describe(checkpoint.network)
        facts["dialect"] = checkpoint.format.dialect.name if checkpoint.format.dialect else "none"
        facts["input"] = str(checkpoint.network.input or "not stated")
        notes = [*checkpoint.notes, *checkpoint.warnings]
    facts |= {"metadata": found.metadata, "notes": notes, "globals": list(found.globals_seen)}
    if as_json:
        tensors = {name: {"shape": t.shape, "dtype": t.dtype.name, "bytes": t.nbytes} for name, t in lazies.items()}
        out.print_json(json.dumps(facts | {"tensors": tensors}), ensure_ascii=True)
        return
    facts["globals"] = [*map(printable, found.globals_seen)]
    for name, value in facts.items():
        lines = [f"{printable(key)} = {printable(text)}" for key, text in value.items()] if isinstance(value, dict) else value
        for line in lines if isinstance(lines, list) else [lines]:
            out.print(f"{name}: {line}", markup=False)
    for name, tensor in lazies.items():
        out.print(f"  {printable(name)}  {tensor.dtype.name}  {tensor.shape}  {tensor.nbytes} bytes", markup=False)


@app.command()
def check(files: list[Path], as_json: JsonOption = False) -> None:
    """Say of each file whether any loader may have it: all of its tensors are made, nothing is run. Exit status 1 when not.

    A whole module is unsafe: it can be read here, and its own framework would import the classes that it names.
    """
    verdicts = []
    for file in files:
        verdict: dict[str, Any] = {"file": str(file), "verdict": "safe"}
        try:
            format, found = read_file(file)
            for name in found.tensors:
                found.tensors[name]  # what is only seen when a tensor is made
            verdict |= {"format": format.name, "tensors": len(found.tensors), "globals": list(found.globals_seen)}
            if found.foreign:
                names = printable(", ".join(found.foreign))
                verdict |= {"verdict": "unsafe", "why": f"{file}: a whole module; other loaders would import {names}"}
        except AconError as error:
            kind = error.kind if isinstance(error, CheckpointError) else "unreadable"
            verdict |= {"verdict": kind, "why": str(error)}
        verdicts.append(verdict)
    if as_json:
        out.print_json(json.dumps(verdicts), ensure_ascii=True)
    for verdict in verdicts if not as_json else ():
        if verdict["verdict"] == "safe":
            names = f"; names in its pickle: {', '.join(verdict['globals'])}" if verdict["globals"] else ""
            out.print(f"{verdict['file']}: safe, {verdict['format']}, {verdict['tensors']} tensors{names}", markup=False)
        else:
            out.print(f"{verdict['verdict']}: {verdict['why']}", markup=False)
    if any(verdict["verdict"] != "safe" for verdict in verdicts):
        raise typer.Exit(1)


@app.command()
def diff(
    a: Path,
    b: Path,
    network: NetworkOption = None,
    act: ActOption = None,
    dialect: DialectOption = None,
    to_dialect: Annotated[str | None, typer.Option(help="Whose names the tensors of B have, if not those of A.")] = None,
    option: OptionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which tensors of two checkpoints differ, and by how much, in whatever formats. Exit status 1 when some do."""
    with progress() as bar:
        bar.add_task(f"{a.name} and {b.name}", total=None)
        found = compare(a, b, network, act, (dialect, to_dialect or dialect), options_of(option))
    if as_json:
        out.print_json(json.dumps(asdict(found)), ensure_ascii=True)
    else:
        for line in (*found.differences, *(f"note: {note}" for note in found.notes)):
            out.print(str(line), markup=False)
        out.print(
            f"{found.tensors} tensors in both, {len(found.differences)} differ; compared as {found.compared_as}", markup=False
        )
    if found.differences:
        raise typer.Exit(1)


def size_of(text: str | None) -> int | None:
    """A number of bytes, as 500MB, 2GB or a plain number. Raises AconError for anything else."""
    if text is None:
        return None
    units = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
    digits = text.rstrip("KMGB")
    unit = text[len(digits) :]
    if not (digits.isascii() and digits.isdigit()) or unit not in units or int(digits) == 0:
        raise AconError(f"--shard-size {text}: expected a size such as 500MB or 2GB")
    return int(digits) * units[unit]


def written(operation: Operation | None) -> Callable[..., None]:
    """The command that writes a checkpoint anew, with that change on the way where there is one."""

    def command(
        source: Path,
        target: Path,
        to: ToOption = None,
        network: NetworkOption = None,
        act: ActOption = None,
        dialect: DialectOption = None,
        to_dialect: ToDialectOption = None,
        option: OptionOption = None,
        input: Annotated[
            str | None, typer.Option(help="What the input must be, as JSON: order, range, mean, std, size, resize.")
        ] = None,
        shard_size: Annotated[
            str | None, typer.Option(help="Bytes a shard, such as 2GB, where TARGET ends in .safetensors.index.json.")
        ] = None,
        cast: Annotated[
            bool, typer.Option("--cast", help="Let a dtype that the format cannot hold become one that it can.")
        ] = False,
        verify: Annotated[
            bool, typer.Option("--verify", help="Run the network of TARGET in every framework at hand, and compare.")
        ] = False,
    ) -> None:
        with progress() as bar:
            task = bar.add_task(f"{source.name} -> {target.name}", total=None)
            done = convert_checkpoint(
                source, target, to, network, act,
                dialect=dialect,
                to_dialect=to_dialect,
                options=options_of(option),
                contract=parse_input(input) if input else None,
                shard_bytes=size_of(shard_size),
                cast=cast,
                change=simplified(operation) if operation else lambda checkpoint: checkpoint,
                step=lambda text: bar.update(task, description=text),
                verify=verify_conversion if verify else None,
            )  # fmt: skip
        out.print(f"{source} ({done.source.format.name})", markup=False)
        for note in done.notes:
            out.print(f"note: {note}", markup=False)
        held = f"{describe(done.source.network)}, {done.tensors} tensors, read again and equal bit for bit"
        out.print(f"{target} ({done.target.name}): {held}", markup=False)

    return command


COMMANDS: dict[str, tuple[Operation | None, str]] = {
    "convert": (None, "Write a checkpoint as one of another framework, read it again, and compare it bit for bit."),
    "fuse": (spec.fuse, "Write a checkpoint with every RepAct in its exact closed form, for inference."),
    "fold": (spec.fold, "Write a checkpoint with Meta-ACON's norms folded into its convolutions, for inference."),
}
for name, (operation, about) in COMMANDS.items():
    app.command(name, help=about)(written(operation))
