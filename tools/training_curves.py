"""Make the table and picture of docs/training.md: training losses compared with float64.

`python tools/training_curves.py train torch FILE.json` trains in one framework and writes the
losses. `python tools/training_curves.py table FILE.json ... --plot FILE.png` prints the differences
from float64 and draws them (extra `plot`). `python -m nox -s curves` does both for every backend.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from acon_core import backends
from acon_core.conformance.curves import RECIPE, RUNS, SHOWN, divergence, stored, train

Curves = Mapping[str, Mapping[str, list[float]]]


def table(curves: Curves) -> str:
    """Format as Markdown: a row per network, a column per backend.

    Each cell has the divergence at steps 1, 10 and 30.
    """
    exact = stored()
    lines = [f"| network | {' | '.join(curves)} | allowed |", f"|---|{'---|' * (len(curves) + 1)}"]
    for run in RUNS:
        cells = [divergence(np.array(losses[run.name]), exact[run.name]) for losses in curves.values()]
        lines.append(
            f"| {' | '.join([run.name, *(' / '.join(f'{each:.0e}' for each in cell) for cell in [*cells, run.bounds])])} |"
        )
    return "\n".join(lines)


def plot(curves: Curves, path: Path) -> None:
    """Draw one panel per network: the losses, and below them their differences from float64."""
    from matplotlib.figure import Figure  # only needed here; in the extra `plot`

    exact = stored()
    figure = Figure(figsize=(4.2 * len(RUNS), 6), layout="constrained")
    axes = figure.subplots(2, len(RUNS), squeeze=False, sharex=True)
    steps = np.arange(1, RECIPE.steps + 1)
    for column, run in enumerate(RUNS):
        axes[0, column].plot(steps, exact[run.name], color="black", linewidth=4, alpha=0.3, label="float64 reference")
        for name, losses in curves.items():
            difference = np.abs(np.array(losses[run.name]) - exact[run.name])
            axes[0, column].plot(steps, losses[run.name], linewidth=1, label=name)
            axes[1, column].semilogy(steps, np.maximum(difference, 1e-9), linewidth=1, label=name)
        axes[0, column].set_title(run.name)
        axes[1, column].set_xlabel("step")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("|difference| from float64")
    axes[0, 0].legend()
    figure.savefig(path, dpi=110)


def outside_bounds(curves: Curves) -> list[str]:
    """Return one line per curve that leaves its bounds."""
    exact = stored()
    return [
        f"{name}: {run.name}: {found} at steps {SHOWN}, allowed {run.bounds}"
        for name, losses in curves.items()
        for run in RUNS
        for found in [divergence(np.array(losses[run.name]), exact[run.name])]
        if any(not each <= bound for each, bound in zip(found, run.bounds, strict=True))
    ]


def main() -> int:
    """Run one command. Return 1 if a curve leaves its bounds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train in one framework and write its losses")
    training.add_argument("backend")
    training.add_argument("file", type=Path)
    tabulating = commands.add_parser("table", help="print the table of the written losses")
    tabulating.add_argument("files", type=Path, nargs="+")
    tabulating.add_argument("--plot", type=Path, help="draw the losses to this file")
    arguments = parser.parse_args()
    if arguments.command == "train":
        backend = backends.get(arguments.backend)
        losses = {arguments.backend: {run.name: list(train(backend, run)) for run in RUNS}}
        arguments.file.write_text(json.dumps(losses, indent=1) + "\n")
        return 0
    curves = {name: losses for path in arguments.files for name, losses in json.loads(path.read_text()).items()}
    print(table(curves))
    if arguments.plot:
        plot(curves, arguments.plot)
    missed = outside_bounds(curves)
    print("\n".join(missed), file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
