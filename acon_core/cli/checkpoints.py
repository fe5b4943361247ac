"""The commands for checkpoint files: `acon inspect`, `check`, `diff`, `convert`, `fuse`, `fold`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from acon_core import spec
from acon_core.checkpoint import NetworkQuery, read_file
from acon_core.checkpoint import convert as convert_checkpoint
from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.convert import Transform
from acon_core.checkpoint.diff import diff as diff_checkpoints
from acon_core.checkpoint.metadata import parse_input
from acon_core.checkpoint.reading import identify
from acon_core.checkpoint.recognise import describe
from acon_core.cli.app import (
    ActOption,
    DialectOption,
    FileArgument,
    JsonOption,
    NetworkOption,
    OptionOption,
    app,
    out,
    progress,
    query_of,
)
from acon_core.errors import AconError, CheckpointError
from acon_core.verification.verify import verify as verify_conversion


@app.command()
def inspect(
    file: FileArgument,
    network: NetworkOption = None,
    act: ActOption = None,
    dialect: DialectOption = None,
    option: OptionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a checkpoint contains: the network, its input, metadata, and every tensor."""
    query = query_of(network, act, dialect, option)
    with progress() as bar:
        bar.add_task(f"reading {file.name}", total=None)
        format, content = read_file(file)
    lazies = content.tensors.lazies
    facts: dict[str, Any] = {"file": str(file), "format": format.name, "tensors": len(lazies)}
    facts["bytes"] = sum(tensor.nbytes for tensor in lazies.values())
    notes = list(content.notes)
    try:
        checkpoint = identify(file, format, content, query)
    except AconError as error:
        if query != NetworkQuery():
            raise
        facts["network"] = f"not recognised: {error}"
    else:
        facts["network"] = describe(checkpoint.network)
        facts["dialect"] = checkpoint.format.dialect.name if checkpoint.format.dialect else "none"
        facts["input"] = str(checkpoint.network.input or "unknown")
        notes = [*checkpoint.notes, *checkpoint.warnings]
    facts |= {"metadata": content.metadata, "notes": notes, "globals": list(content.globals_seen)}
    if as_json:
        tensors = {name: {"shape": t.shape, "dtype": t.dtype.name, "bytes": t.nbytes} for name, t in lazies.items()}
        out.print_json(json.dumps(facts | {"tensors": tensors}), ensure_ascii=True)
        return
    facts["globals"] = [*map(printable, content.globals_seen)]
    for name, value in facts.items():
        lines = [f"{printable(key)} = {printable(text)}" for key, text in value.items()] if isinstance(value, dict) else value
        for line in lines if isinstance(lines, list) else [lines]:
            out.print(f"{name}: {line}", markup=False)
    for name, tensor in lazies.items():
        out.print(f"  {printable(name)}  {tensor.dtype.name}  {tensor.shape}  {tensor.nbytes} bytes", markup=False)


@app.command()
def check(files: Annotated[list[Path], typer.Argument(help="Checkpoints of any format.")], as_json: JsonOption = False) -> None:
    """Check whether files are safe to load. Exits with 1 if any file is unsafe or unreadable.

    Decodes every tensor and executes nothing. A pickled module counts as unsafe: it can be read
    here, but its own framework would import the classes that it names.
    """
    verdicts = [_verdict(file) for file in files]
    if as_json:
        out.print_json(json.dumps(verdicts), ensure_ascii=True)
    for verdict in verdicts if not as_json else ():
        if verdict["verdict"] == "safe":
            names = f"; its pickle names {', '.join(verdict['globals'])}" if verdict["globals"] else ""
            out.print(f"{verdict['file']}: safe, {verdict['format']}, {verdict['tensors']} tensors{names}", markup=False)
        else:
            out.print(f"{verdict['verdict']}: {verdict['why']}", markup=False)
    if any(verdict["verdict"] != "safe" for verdict in verdicts):
        raise typer.Exit(1)


def _verdict(file: Path) -> dict[str, Any]:
    """Return whether a file is safe, unsafe, corrupt, unsupported or unreadable, and why."""
    try:
        format, content = read_file(file)
        for name in content.tensors:
            content.tensors[name]  # some defects show only when a tensor is decoded
    except AconError as error:
        kind = error.kind if isinstance(error, CheckpointError) else "unreadable"
        return {"file": str(file), "verdict": kind, "why": str(error)}
    facts = {"format": format.name, "tensors": len(content.tensors), "globals": list(content.globals_seen)}
    if content.foreign_globals:
        why = f"{file}: a pickled module; other loaders would import {printable(', '.join(content.foreign_globals))}"
        return {"file": str(file), "verdict": "unsafe", **facts, "why": why}
    return {"file": str(file), "verdict": "safe", **facts}


@app.command()
def diff(
    a: FileArgument,
    b: FileArgument,
    network: NetworkOption = None,
    act: ActOption = None,
    dialect: DialectOption = None,
    to_dialect: Annotated[str | None, typer.Option(help="Naming scheme of B, if it is not that of A.")] = None,
    option: OptionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which tensors of two checkpoints differ and by how much. Exits with 1 if any differ.

    The files can have different formats.
    """
    with progress() as bar:
        bar.add_task(f"{a.name} and {b.name}", total=None)
        comparison = diff_checkpoints(a, b, query_of(network, act, dialect, option), to_dialect)
    if as_json:
        out.print_json(json.dumps(asdict(comparison)), ensure_ascii=True)
    else:
        for line in (*comparison.differences, *(f"note: {note}" for note in comparison.notes)):
            out.print(str(line), markup=False)
        counts = f"{comparison.tensors} tensors in both files, {len(comparison.differences)} differ"
        out.print(f"{counts}; compared as {comparison.compared_as}", markup=False)
    if comparison.differences:
        raise typer.Exit(1)


def size_of(text: str | None) -> int | None:
    """Return the bytes in 500MB, 2GB or a plain number. Raises AconError for anything else."""
    if text is None:
        return None
    units = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
    digits = text.rstrip("KMGB")
    unit = text[len(digits) :]
    if not (digits.isascii() and digits.isdigit()) or unit not in units or int(digits) == 0:
        raise AconError(f"--shard-size {text}: expected a size such as 500MB or 2GB")
    return int(digits) * units[unit]


def conversion_command(transform: Transform | None) -> Callable[..., None]:
    """Return the command that converts a checkpoint, with an optional transform of its network."""

    def command(
        source: FileArgument,
        target: Annotated[Path, typer.Argument(help="File to write.")],
        to: Annotated[
            str | None,
            typer.Option(help="Format of TARGET, such as torch or safetensors; by default, its suffix decides."),
        ] = None,
        network: NetworkOption = None,
        act: ActOption = None,
        dialect: DialectOption = None,
        to_dialect: Annotated[str | None, typer.Option(help="Naming scheme of the tensors in TARGET.")] = None,
        option: OptionOption = None,
        input: Annotated[
            str | None,
            typer.Option(help="Preprocessing of the input as JSON with order, range, mean, std, size and resize."),
        ] = None,
        shard_size: Annotated[
            str | None, typer.Option(help="Size of a shard, such as 2GB, if TARGET ends in .safetensors.index.json.")
        ] = None,
        cast: Annotated[
            bool, typer.Option("--cast", help="Cast tensors whose dtype the format cannot store to one that it can.")
        ] = False,
        verify: Annotated[
            bool, typer.Option("--verify", help="Run the network of TARGET in every available framework and compare.")
        ] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Do all of it but keep nothing: says what would be written, or the error.")
        ] = False,
    ) -> None:
        with progress() as bar:
            task = bar.add_task(f"{source.name} -> {target.name}", total=None)
            conversion = convert_checkpoint(
                source, target, to, query_of(network, act, dialect, option),
                to_dialect=to_dialect,
                preprocessing=parse_input(input) if input else None,
                shard_bytes=size_of(shard_size),
                cast=cast,
                transform=transform,
                verify=verify_conversion if verify else None,
                dry_run=dry_run,
                on_stage=lambda stage: bar.update(task, description=stage),
            )  # fmt: skip
        out.print(f"{source} ({conversion.source.format.name})", markup=False)
        for note in conversion.notes:
            out.print(f"note: {note}", markup=False)
        result = f"{describe(conversion.source.network)}, {conversion.tensors} tensors, read back and identical bit for bit"
        written = f"dry run, nothing was kept: {target}" if dry_run else f"{target}"
        out.print(f"{written} ({conversion.target.name}): {result}", markup=False)

    return command


COMMANDS: dict[str, tuple[Transform | None, str]] = {
    "convert": (None, "Convert a checkpoint to another format, read it back, and compare it bit for bit."),
    "fuse": (spec.fuse, "Convert a checkpoint with every RepAct in its closed form, for inference."),
    "fold": (spec.fold, "Convert a checkpoint with Meta-ACON's norms folded into its convolutions, for inference."),
}
for name, (transform, about) in COMMANDS.items():
    app.command(name, help=about)(conversion_command(transform))
