"""`acon`: the command line. Results go to standard output; an error is one line on standard error and exit status 2."""

from __future__ import annotations

import sys

from typer.exceptions import TyperException

from acon_core.cli import checkpoints, networks, running
from acon_core.cli.app import app, err
from acon_core.errors import AconError

__all__ = ["app", "checkpoints", "main", "networks", "running"]


def main() -> None:
    """Run `acon`: whatever the user can act on is one line and status 2; --debug shows where it came from."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        sys.exit(app(args=arguments, prog_name="acon", standalone_mode=False))
    except (AconError, TyperException) as error:
        if len(arguments) != len(sys.argv[1:]):
            raise
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        line = " ".join(message.split())
        # Names in files and of files can hold what a terminal would obey.
        err.print(f"acon: {''.join(each if each.isprintable() else ascii(each)[1:-1] for each in line)}", markup=False)
        sys.exit(2)
