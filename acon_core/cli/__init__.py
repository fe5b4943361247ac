"""The command line. Results go to standard output, warnings and errors to standard error."""

from __future__ import annotations

import sys

from typer.exceptions import TyperException

from acon_core.cli import checkpoints, conformance, networks, running
from acon_core.cli.app import Settings, app, err
from acon_core.errors import AconError

__all__ = ["app", "checkpoints", "conformance", "main", "networks", "running"]


def main() -> None:
    """Run `acon`. Print an error that the user can act on as one line and exit with status 2."""
    settings = Settings()
    # `--debug` is an option of `acon`, but people add it to the end of a command that failed.
    arguments = sorted(sys.argv[1:], key=lambda argument: argument != "--debug")
    try:
        sys.exit(app(args=arguments, prog_name="acon", standalone_mode=False, obj=settings))
    except (AconError, TyperException) as error:
        if settings.debug:
            raise
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        line = " ".join(message.split())
        if line:  # empty where the help was printed instead
            # File names and tensor names can hold terminal control sequences.
            err.print(f"acon: {''.join(each if each.isprintable() else ascii(each)[1:-1] for each in line)}", markup=False)
        sys.exit(2)
