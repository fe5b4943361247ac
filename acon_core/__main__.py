"""Entry point of `python -m acon_core`."""

from acon_core.cli import main

if __name__ == "__main__":
    main()
