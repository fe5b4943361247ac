"""The commands for checkpoint files: `acon inspect`, `check`, `diff`, `convert`, `fuse`, `fold`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from acon_core import spec
from acon_core.checkpoint import NetworkQuery, read_file
from acon_core.checkpoint import convert as convert_checkpoint
from acon_core.checkpoint.codecs.text import printable, whole_name
from acon_core.checkpoint.convert import Transform
from acon_core.checkpoint.diff import diff as diff_checkpoints
from acon_core.checkpoint.metadata import parse_input
from acon_core.checkpoint.reading import identify
from acon_core.checkpoint.recognise import describe
from acon_core.cli.app import (
    COMPLETE_FORMAT,
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
    network_fields,
    query_of,
)
from acon_core.cli.output import answer, lines, progress, size, table
from acon_core.errors import AconError, CheckpointError
from acon_core.verification.verify import verify as verify_conversion


@app.command()
def inspect(
    file: FileArgument,
    network: NetworkOption = None,
    act: ActOption = None,
    dialect: DialectOption = None,
    option: OptionOption = None,
    key: KeyOption = "",
    strip_prefix: StripPrefixOption = None,
    ignore: IgnoreOption = None,
    format: FormatOption = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="Print one row per tensor first.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a checkpoint contains.

    The network, its input, the metadata and notes; with --tensors, every tensor first.
    """
    query = query_of(network, act, dialect, option, key, strip_prefix, ignore, format)
    with progress() as bar:
        bar.add_task(f"reading {file.name}", total=None)
        found, content = read_file(file, query)
    lazies = content.tensors.lazies
    known, why, notes = None, None, list(content.notes)
    try:
        known = identify(file, found, content, query)
    except AconError as error:
        if query.is_about_network:
            raise
        why = str(error)
    else:
        notes = [*known.notes, *known.warnings]
    dialect_found = known.format.dialect if known else None
    fields: dict[str, Any] = {
        "file": file,
        "format": known.format.name if known else found.name,
        **network_fields(known.network if known else None),
        "not_recognised": why,
        "dialect": dialect_found.name if dialect_found else None,
        "count": len(lazies),
        "bytes": sum(tensor.nbytes for tensor in lazies.values()),
        "metadata": content.metadata,
        "notes": notes,
        "globals": content.globals_seen,
        "tensors": {name: {"shape": t.shape, "dtype": t.dtype.name, "bytes": t.nbytes} for name, t in lazies.items()},
    }
    title = describe(known.network) if known else f"not recognised: {why}"
    preprocessing = str(known.network.input or "unknown") if known else None
    answer("inspect", as_json, fields, lambda: _print_content(fields, title, preprocessing, tensors))


def _print_content(fields: dict[str, Any], title: str, preprocessing: str | None, tensors: bool) -> None:
    """Write the tensors if they are wanted, and last what the file is."""
    if tensors:
        shown = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for justify in ("left", "left", "left", "right"):
            shown.add_column(overflow="fold", justify=justify)
        for name, tensor in fields["tensors"].items():
            shown.add_row(Text(whole_name(name)), tensor["dtype"], str(tensor["shape"]), size(tensor["bytes"]))
        table(shown)
    rows = {"file": fields["file"], "format": fields["format"], "network": title}
    if preprocessing:
        rows |= {"dialect": fields["dialect"] or "none", "input": preprocessing}
    rows |= {"tensors": f"{fields['count']:,}", "size": size(fields["bytes"])}
    lists = {
        "metadata": [f"{printable(key)} = {printable(text)}" for key, text in fields["metadata"].items()],
        "notes": fields["notes"],
        "globals": [*map(printable, fields["globals"])],
    }
    lines(
        *(f"{name}: {text}" for name, text in rows.items()),
        *(f"{name}: {text}" for name, texts in lists.items() for text in texts),
    )


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Checkpoints of any format.")],
    key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Check whether files are safe to load.

    Exits with 1 if any file is unsafe or unreadable. Decodes every tensor and executes nothing. A
    pickled module counts as unsafe, and so do objects of other classes beside the weights: they can
    be read here, but other loaders would import the classes.
    """
    verdicts = [_verdict(file, key) for file in files]
    failed = any(verdict["verdict"] != "safe" for verdict in verdicts)
    answer("check", as_json, {"files": verdicts}, lambda: lines(*map(_verdict_line, verdicts)), failed=failed)


def _verdict_line(verdict: dict[str, Any]) -> str:
    if verdict["verdict"] != "safe":
        return f"{verdict['verdict']}: {verdict['why']}"
    names = f"; its pickle names {', '.join(verdict['globals'])}" if verdict["globals"] else ""
    return f"{verdict['file']}: safe, {verdict['format']}, {verdict['tensors']} tensors{names}"


def _verdict(file: Path, key: str) -> dict[str, Any]:
    """Return whether a file is safe, unsafe, corrupt, unsupported or unreadable, and why."""
    try:
        format, content = read_file(file, NetworkQuery(key=key))
        for name in content.tensors:
            content.tensors[name]  # some defects show only when a tensor is decoded
    except AconError as error:
        kind = error.kind if isinstance(error, CheckpointError) else "unreadable"
        return {"file": str(file), "verdict": kind, "why": str(error)}
    facts = {"format": format.name, "tensors": len(content.tensors), "globals": list(content.globals_seen)}
    if content.foreign_globals:
        names = printable(", ".join(content.foreign_globals))
        why = f"{file}: a pickled module, or other objects; other loaders would import {names}"
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
    key: KeyOption = "",
    strip_prefix: StripPrefixOption = None,
    ignore: IgnoreOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which tensors of two checkpoints differ.

    And by how much. Exits with 1 if any differ. The files can have different formats.
    """
    with progress() as bar:
        bar.add_task(f"{a.name} and {b.name}", total=None)
        query = query_of(network, act, dialect, option, key, strip_prefix, ignore, format)
        comparison = diff_checkpoints(a, b, query, to_dialect)
    counts = f"{comparison.tensors} tensors in both files, {len(comparison.differences)} differ"
    notes = (f"note: {note}" for note in comparison.notes)
    answer(
        "diff",
        as_json,
        {"a": a, "b": b, **asdict(comparison)},
        lambda: lines(*comparison.differences, *notes, f"{counts}; compared as {comparison.compared_as}"),
        failed=bool(comparison.differences),
    )


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


def conversion_command(name: str, transform: Transform | None) -> Callable[..., None]:
    """Return the command that converts a checkpoint, with an optional transform of its network."""

    def command(
        source: FileArgument,
        target: Annotated[Path, typer.Argument(help="File to write.")],
        to: Annotated[
            str | None,
            typer.Option(
                help="Format of TARGET, such as torch or safetensors; by default, its suffix decides.",
                autocompletion=COMPLETE_FORMAT,
            ),
        ] = None,
        network: NetworkOption = None,
        act: ActOption = None,
        dialect: DialectOption = None,
        to_dialect: Annotated[str | None, typer.Option(help="Naming scheme of the tensors in TARGET.")] = None,
        option: OptionOption = None,
        key: KeyOption = "",
        strip_prefix: StripPrefixOption = None,
        ignore: IgnoreOption = None,
        format: FormatOption = None,
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
        as_json: JsonOption = False,
    ) -> None:
        with progress() as bar:
            task = bar.add_task(f"{source.name} -> {target.name}", total=None)
            conversion = convert_checkpoint(
                source, target, to, query_of(network, act, dialect, option, key, strip_prefix, ignore, format),
                to_dialect=to_dialect,
                preprocessing=parse_input(input) if input else None,
                shard_bytes=size_of(shard_size),
                cast=cast,
                transform=transform,
                verify=verify_conversion if verify else None,
                dry_run=dry_run,
                on_stage=lambda stage: bar.update(task, description=stage),
            )  # fmt: skip
        fields = {
            "source": {"file": source, "format": conversion.source.format.name},
            "target": {"file": target, "format": conversion.target.name},
            **network_fields(conversion.source.network),
            "count": conversion.tensors,
            "notes": conversion.notes,
            "dry_run": dry_run,
        }
        result = f"{describe(conversion.source.network)}, {conversion.tensors} tensors, read back and identical bit for bit"
        written = f"dry run, nothing was kept: {target}" if dry_run else f"{target}"
        answer(
            name,
            as_json,
            fields,
            lambda: lines(
                f"{source} ({conversion.source.format.name})",
                *(f"note: {note}" for note in conversion.notes),
                f"{written} ({conversion.target.name}): {result}",
            ),
        )

    return command


COMMANDS: dict[str, tuple[Transform | None, str]] = {
    "convert": (None, "Convert a checkpoint to another format. Read the file back and compare it bit for bit."),
    "fuse": (spec.fuse, "Write a checkpoint with every RepAct in closed form. For inference."),
    "fold": (spec.fold, "Write a checkpoint with Meta-ACON's norms folded. For inference."),
}
for name, (transform, about) in COMMANDS.items():
    app.command(name, help=about)(conversion_command(name, transform))
