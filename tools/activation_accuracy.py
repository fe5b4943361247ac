"""Make the first table of docs/figures.md: the errors of ACON-C in units of the last place.

`python tools/activation_accuracy.py measure torch FILE.json` measures one backend.
`python tools/activation_accuracy.py table FILE.json ...` prints the table.
`python -m nox -s figures` does both for every backend.

There are seven regions of x, p1, p2 and beta with 20000 points each. The exact values are those of
the float64 reference, whose own error is nine digits below what is measured; the tests compare it
with mpmath to 60 digits. `u` is 2^-24, half a unit in the last place of 1. Errors are fractions of
a scale, because f crosses zero. The scale of f is the larger of |p1 x| and |p2 x|; of dx, the
larger of |p1| and |p2|; of each term of dp1 and dp2, |x|; of each term of dbeta, the term itself,
where |z| < 15. Values that are not normal float32 numbers are left out: XLA and MegEngine flush
denormals to 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acon_core import backends
from acon_core.backends import Backend
from acon_core.random import Stream
from acon_core.reference import forward
from acon_core.spec import AconC

U = 2.0**-24
POINTS = 20000
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).tiny)
# Largest errors in u that any float32 implementation may have; `reduced` is of the sum of |terms|.
BOUNDS = {"f": 6.0, "dx": 8.0, "dp1": 8.0, "dp2": 8.0, "dbeta": 64.0, "reduced": 4.0}

Array = NDArray[np.float64]
Results = dict[str, dict[str, dict[str, float]]]
"""Errors by backend, row of the table, and quantity."""


def _signed(random: Stream, low: float, high: float) -> Array:
    """Draw values of either sign whose magnitudes are log-uniform from `low` to `high`."""
    magnitude = 10.0 ** random.uniform((POINTS,), np.log10(low), np.log10(high))
    return np.where(random.unit((POINTS,)) < 0.5, -magnitude, magnitude)


def _near(random: Stream, p1: Array) -> Array:
    """Move p1 by up to 64 units in the last place."""
    steps = np.floor(random.uniform((POINTS,), -64.0, 65.0))
    moved: Array = p1 + steps * np.spacing(np.abs(p1).astype(np.float32))
    return moved


def points(region: str) -> dict[str, NDArray[np.float32]]:
    """Draw x, p1, p2 and beta of a region, each of shape (20000,)."""
    random = Stream("accuracy", region)

    def uniform(low: float, high: float) -> Array:
        return random.uniform((POINTS,), low, high)

    x, p1, p2, beta = uniform(-10, 10), uniform(-2, 2), uniform(-2, 2), uniform(-3, 3)
    changes: dict[str, Callable[[], dict[str, Array]]] = {
        "A: |x| < 10": lambda: {},
        "B: p1 near p2, |beta| to 100": lambda: {"p2": _near(random, p1.astype(np.float32)), "beta": uniform(-100, 100)},
        "C: |x| to 1e30": lambda: {"x": _signed(random, 1e-3, 1e30)},
        "D: |x| from 1e-36": lambda: {"x": _signed(random, 1e-36, 1.0)},
        "E: |x| near the largest float": lambda: {"x": _signed(random, LARGEST / 8, LARGEST * 0.999)},
        "F: p2 = 0, SiLU": lambda: {"p1": np.ones(POINTS), "p2": np.zeros(POINTS), "beta": np.ones(POINTS)},
        "G: |p2| far above |p1|": lambda: {"p1": uniform(-0.01, 0.01), "p2": uniform(-100, 100)},
    }
    values = {"x": x, "p1": p1, "p2": p2, "beta": beta} | changes[region]()
    return {name: value.astype(np.float32) for name, value in values.items()}


REGIONS = (
    "A: |x| < 10", "B: p1 near p2, |beta| to 100", "C: |x| to 1e30", "D: |x| from 1e-36", "E: |x| near the largest float",
    "F: p2 = 0, SiLU", "G: |p2| far above |p1|",
)  # fmt: skip


def worst_error(found: NDArray, exact: Array, scale: Array, where: NDArray[np.bool_] | None = None) -> float:
    """Return the largest error in u of the scale, over the normal float32 values.

    The result is infinite if an error is not finite.
    """
    size = np.abs(exact)
    chosen = (size >= SMALLEST) & (size < LARGEST * (1 - 1e-6)) & (True if where is None else where)
    error = np.abs(found.astype(np.float64)[chosen] - exact[chosen]) / (U * scale[chosen])
    return float("inf") if not np.isfinite(error).all() else float(error.max(initial=0.0))


def measure(backend: Backend, region: str) -> dict[str, float]:
    """Return the largest errors of a backend in a region.

    Each point is a channel, so every gradient is one term.
    """
    given = points(region)
    x, p1, p2, beta = (value.astype(np.float64) for value in given.values())
    node = AconC(POINTS)
    state = {name: given[name].reshape(1, -1, 1, 1) for name in ("p1", "p2", "beta")}
    model = backend.build(node)
    model.load(state)
    cotangent = np.ones((1, POINTS), np.float32)
    back = model.vjp(given["x"][None], cotangent)
    exact = forward(node, state, [given["x"][None]])
    gradients = exact.vjp((cotangent.astype(np.float64),))
    terms = {name: gradients.params[name].reshape(-1) for name in ("p1", "p2", "beta")}
    found = {name: back.dparams[name].reshape(-1) for name in terms}
    z = beta * (p1 - p2) * x
    return {
        "f": worst_error(back.y[0], exact.values[0][0], np.maximum(np.abs(p1 * x), np.abs(p2 * x))),
        "dx": worst_error(back.dx[0], gradients.inputs[0][0], np.maximum(np.abs(p1), np.abs(p2))),
        "dp1": worst_error(found["p1"], terms["p1"], np.abs(x)),
        "dp2": worst_error(found["p2"], terms["p2"], np.abs(x)),
        "dbeta": worst_error(found["beta"], terms["beta"], np.abs(terms["beta"]), np.abs(z) < 15),
    }


def reduced(backend: Backend) -> float:
    """Return the largest error of the summed gradients, in u of the sum of |terms|.

    Each gradient sums 6 x 35 values per channel.
    """
    node, shape = AconC(50), (6, 50, 7, 5)
    random = Stream("accuracy", "reduced")
    ends = {"p1": (-2.0, 2.0), "p2": (-2.0, 2.0), "beta": (-3.0, 3.0)}
    state = {name: random.uniform((1, 50, 1, 1), *between).astype(np.float32) for name, between in ends.items()}
    x, cotangent = (random.uniform(shape, -high, high).astype(np.float32) for high in (10.0, 1.0))
    model = backend.build(node)
    model.load(state)
    back = model.vjp(x, cotangent)
    exact = forward(node, state, [x]).vjp((cotangent.astype(np.float64),))
    return max(worst_error(back.dparams[name], exact.params[name], exact.scales[name]) for name in ends)


def table(results: Results) -> str:
    """Format as Markdown: a row per region, a column per backend.

    Each cell is `f / dx / dp / dbeta` in u.
    """
    names = list(results)
    bar = "\\|"
    lines = [f"| region | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for region in REGIONS:
        cells = []
        for name in names:
            found = results[name][region]
            cells.append(f"{found['f']:.1f} / {found['dx']:.1f} / {max(found['dp1'], found['dp2']):.1f} / {found['dbeta']:.0f}")
        lines.append(f"| {region.replace('|', bar)} | {' | '.join(cells)} |")
    sums = [f"{results[name]['reduced']['reduced']:.2f}" for name in names]
    return "\n".join([*lines, f"| summed gradients, of the sum of \\|terms\\| | {' | '.join(sums)} |"])


def outside_bounds(results: Results, bounds: dict[str, float]) -> list[str]:
    """Return one line per error above its bound."""
    return [
        f"{name}: {row}: {quantity} {error:.1f} u, allowed {bounds[quantity]:.0f}"
        for name, rows in results.items()
        for row, errors in rows.items()
        for quantity, error in errors.items()
        if not error <= bounds[quantity]
    ]


def run_command(
    description: str,
    measure_all: Callable[[Backend], dict[str, dict[str, float]]],
    table: Callable[[Results], str],
    bounds: dict[str, float],
) -> int:
    """Run `measure BACKEND FILE` or `table FILE ...`. Return 1 if an error is above its bound."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="measure one backend and write its errors")
    measuring.add_argument("backend")
    measuring.add_argument("file", type=Path)
    commands.add_parser("table", help="print the table of the written errors").add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        errors = measure_all(backends.get(arguments.backend))
        arguments.file.write_text(json.dumps({arguments.backend: errors}, indent=1) + "\n")
        return 0
    results = {name: errors for path in arguments.files for name, errors in json.loads(path.read_text()).items()}
    print(table(results))
    missed = outside_bounds(results, bounds)
    print("\n".join(missed), file=sys.stderr)
    return int(bool(missed))


def measure_all(backend: Backend) -> dict[str, dict[str, float]]:
    """Return the errors of every region, and of summed gradients."""
    return {region: measure(backend, region) for region in REGIONS} | {"reduced": {"reduced": reduced(backend)}}


if __name__ == "__main__":
    sys.exit(run_command(__doc__ or "", measure_all, table, BOUNDS))
