"""Print the table of the demo: agreement of each backend with the published code's logits.

`python tools/demo_agreement.py EXPECTED.npz NAME=LOGITS.npz ...`; `python -m nox -s demo` runs it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

# Fractions of the largest |logit|. Rounding in float32 explains 1.0e-6 to 1.8e-6.
BOUNDS = {"float64": 1e-9, "float32": 5e-6}


def named_file(text: str) -> tuple[str, Path]:
    """Parse NAME=FILE."""
    name, separator, path = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=FILE")
    return name, Path(path)


def main() -> int:
    """Print the table. Return 1 if a difference is larger than rounding in its dtype explains."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("expected", type=Path, help="logits of the published code, .npz")
    parser.add_argument("outputs", type=named_file, nargs="+", help="NAME=FILE, logits that acon run wrote")
    arguments = parser.parse_args()
    expected = np.load(arguments.expected)["logits"]
    table = Table("run by", "dtype", "largest difference", "as a fraction of the largest logit", "allowed", "top-1 equal")
    failed = False
    for name, path in arguments.outputs:
        logits = np.load(path)["logits"]
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
    sys.exit(main())
