"""Entry point of `python -m acon_core.cli`."""

from acon_core.cli import main

main()
