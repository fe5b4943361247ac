"""`python -m acon_core.conformance.agreement EXPECTED.npz NAME=LOGITS.npz ...`: how closely outputs agree."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

# As a fraction of the largest |logit|: float64, and float32, whose rounding explains 1.0e-6 to 1.8e-6.
BOUNDS = {"float64": 1e-9, "float32": 5e-6}


def main(arguments: list[str]) -> int:
    """Print the table; 1 when an output is farther off than its dtype explains."""
    if len(arguments) < 2 or not all("=" in pair for pair in arguments[1:]):
        print(__doc__, file=sys.stderr)
        return 2
    expected = np.load(Path(arguments[0]))["logits"]
    table = Table("run by", "dtype", "largest difference", "as a fraction of the largest logit", "allowed", "top-1 equal")
    failed = False
    for name, _, path in (pair.partition("=") for pair in arguments[1:]):
        logits = np.load(Path(path))["logits"]
        difference = float(np.abs(logits.astype(np.float64) - expected).max())
        fraction = difference / float(np.abs(expected).max())
        bound = BOUNDS[str(logits.dtype)]
        same = int((logits.argmax(1) == expected.argmax(1)).sum())
        failed |= not fraction <= bound
        table.add_row(
            name, str(logits.dtype), f"{difference:.1e}", f"{fraction:.1e}", f"{bound:.0e}", f"{same} of {len(expected)}"
        )
    Console().print(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
