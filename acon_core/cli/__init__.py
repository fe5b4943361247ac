"""The command line. Results go to standard output, warnings and errors to standard error."""

from __future__ import annotations

import sys

import typer
from typer.exceptions import TyperException

from acon_core.cli import checkpoints, conformance, networks, output, running
from acon_core.cli.app import Settings, app
from acon_core.errors import AconError, CheckpointError

__all__ = ["app", "checkpoints", "conformance", "main", "networks", "running"]


def main() -> None:
    """Run `acon`. An error that the user can act on is one line, or JSON; the exit status is 2."""
    output.prepare_streams()
    settings = Settings()
    # `--debug` is an option of `acon`, but people add it to the end of a command that failed.
    arguments = sorted(sys.argv[1:], key=lambda argument: argument != "--debug")
    try:
        sys.exit(_run(arguments, settings))
    except (AconError, TyperException) as error:
        if settings.debug:
            raise
        sys.exit(_report(error, settings.command, as_json="--json" in arguments))


def _run(arguments: list[str], settings: Settings) -> int:
    """Run a command and return its exit status."""
    try:
        return app(args=arguments, prog_name="acon", standalone_mode=False, obj=settings) or 0
    except OSError as error:
        # The help writes to standard output by itself. Files are named in their errors.
        if error.filename is not None:
            raise
        raise output.output_failed(error) from error


def _report(error: AconError | TyperException, command: str, as_json: bool) -> int:
    """Write an error, and return the exit status."""
    message = error.format_message() if isinstance(error, TyperException) else str(error)
    context = getattr(error, "ctx", None)
    if context is not None and message == context.get_help():  # a command without the arguments that it needs
        output.write(f"{message}\n")
        return 2
    message = " ".join(message.split())
    kind = "UsageError" if isinstance(error, TyperException) else type(error).__name__
    if isinstance(error, CheckpointError):
        kind = f"{kind}: {error.kind}"
    try:
        if as_json and not isinstance(error, output.OutputError):
            output.write_json(command, "error", {"error": {"kind": kind, "message": message}})
        else:
            output.complain(f"acon: {message}")
    except (AconError, typer.Exit):
        output.complain(f"acon: {message}")
    return 2
