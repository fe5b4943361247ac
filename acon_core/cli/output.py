"""What `acon` prints: lines and tables for people, or one JSON object for programs."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from acon_core.checkpoint.codecs.text import escaped
from acon_core.errors import AconError

SCHEMA = 1
"""The version of docs/cli.schema.json. It changes if a field changes or goes, not if one is new."""

CLOSED_PIPE = 141
"""The exit status where the reader of standard output has gone: that of a shell, 128 + SIGPIPE."""


class OutputError(AconError):
    """Standard output cannot be written; there is only standard error to say so."""


def prepare_streams() -> None:
    """Write what a locale cannot encode as an escape sequence instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def is_terminal(stream: Any) -> bool:
    """Return whether a stream is a terminal, whatever FORCE_COLOR says."""
    return stream is not None and bool(stream.isatty())


def write(text: str) -> None:
    """Write to standard output. Raises AconError if that fails, such as on a full disk."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        raise output_failed(error) from error


def output_failed(error: OSError) -> Exception:
    """Return what to raise for an error of standard output, which is then discarded."""
    # What is still in the buffer would otherwise fail once more when Python exits.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    if isinstance(error, BrokenPipeError):
        return typer.Exit(CLOSED_PIPE)
    return OutputError(f"standard output cannot be written: {error.strerror or error}; what was done before it is done")


def lines(*texts: object) -> None:
    """Write one line per text."""
    write("".join(f"{escaped(text)}\n" for text in texts))


def console() -> Console:
    """Return a console for tables. Where it is no terminal, it is as wide as the table is."""
    color = None if os.environ.get("NO_COLOR") else "auto"
    wide = None if is_terminal(sys.stdout) else 1_000_000
    return Console(highlight=False, emoji=False, color_system=color, width=wide)  # type: ignore[arg-type]


def table(*rows: RenderableType) -> None:
    """Write tables and other renderables."""
    target = console()
    with target.capture() as captured:
        target.print(*rows)
    write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def warn(texts: Iterable[str]) -> None:
    """Write one line per warning to standard error."""
    for text in texts:
        complain(f"warning: {text}")


def complain(text: str) -> None:
    """Write one line to standard error, unless that is closed or full."""
    try:
        print(escaped(" ".join(text.split())), file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = None


def plain(value: Any) -> Any:
    """Return a value as JSON has it: paths as text, numbers that are not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def write_json(command: str, status: str, fields: Mapping[str, Any]) -> None:
    """Write one JSON object, in ASCII, without colors."""
    document = {"schema": SCHEMA, "command": command, "status": status, **fields}
    write(json.dumps(plain(document), indent=2, ensure_ascii=True, allow_nan=False) + "\n")


def answer(command: str, as_json: bool, fields: Mapping[str, Any], show: Callable[[], None], *, failed: bool = False) -> None:
    """Write the result of a command, as JSON or with `show`. Exit with 1 if it failed."""
    if as_json:
        write_json(command, "failed" if failed else "done", fields)
    else:
        show()
    if failed:
        raise typer.Exit(1)


def aligned(numbers: Mapping[str, int]) -> list[str]:
    """Return one line per number, the numbers right-aligned."""
    texts = {label: f"{number:,}" for label, number in numbers.items()}
    width = max(len(label) + len(text) for label, text in texts.items()) + 2
    return [f"{label}:{text:>{width - len(label) - 1}}" for label, text in texts.items()]


def progress() -> Progress:
    """Return a progress bar on standard error; it prints nothing where that is not a terminal."""
    on_terminal = is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"
    err = Console(stderr=True, highlight=False, emoji=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=err, transient=True, disable=not on_terminal)


def size(count: int) -> str:
    """Return a number of bytes as people read it, in the units of powers of ten."""
    value, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
