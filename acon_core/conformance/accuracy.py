"""`python -m acon_core.conformance.accuracy BACKEND ...`: ACON-C element by element, in units of float32's last place.

Seven regions of x, p1, p2 and beta, 20000 points each. The exact values are the reference's in float64, whose own error is
nine digits below what is measured; mpmath holds the reference to 60 digits in the tests. `u` is 2^-24, half a unit in the last
place of 1. Errors are fractions of a scale, since f crosses zero: of f, the larger of |p1 x| and |p2 x|; of dx, the larger of
|p1| and |p2|; of each term of dp1 and dp2, |x|; of each term of dbeta, itself, where |z| < 15. Values that are no normal
float32 are left out: XLA and MegEngine take denormals for 0.
"""

from __future__ import annotations

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


def _signed(random: Stream, low: float, high: float) -> Array:
    """Magnitudes spread evenly over the powers of ten from `low` to `high`, of either sign."""
    magnitude = 10.0 ** random.uniform((POINTS,), np.log10(low), np.log10(high))
    return np.where(random.unit((POINTS,)) < 0.5, -magnitude, magnitude)


def _near(random: Stream, p1: Array) -> Array:
    """p1 moved by up to 64 units of its last place."""
    steps = np.floor(random.uniform((POINTS,), -64.0, 65.0))
    moved: Array = p1 + steps * np.spacing(np.abs(p1).astype(np.float32))
    return moved


def points(region: str) -> dict[str, NDArray[np.float32]]:
    """x, p1, p2 and beta of a region, (20000,) each."""
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


def _worst(found: NDArray, exact: Array, scale: Array, where: NDArray[np.bool_] | None = None) -> float:
    """The largest error in u of the scale, over the elements whose exact value is a normal float32; infinite where one of
    those is not finite."""
    size = np.abs(exact)
    chosen = (size >= SMALLEST) & (size < LARGEST * (1 - 1e-6)) & (True if where is None else where)
    error = np.abs(found.astype(np.float64)[chosen] - exact[chosen]) / (U * scale[chosen])
    return float("inf") if not np.isfinite(error).all() else float(error.max(initial=0.0))


def measure(backend: Backend, region: str) -> dict[str, float]:
    """The worst errors of a backend in a region, one channel a point, so that every gradient is a single term."""
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
        "f": _worst(back.y[0], exact.values[0][0], np.maximum(np.abs(p1 * x), np.abs(p2 * x))),
        "dx": _worst(back.dx[0], gradients.inputs[0][0], np.maximum(np.abs(p1), np.abs(p2))),
        "dp1": _worst(found["p1"], terms["p1"], np.abs(x)),
        "dp2": _worst(found["p2"], terms["p2"], np.abs(x)),
        "dbeta": _worst(found["beta"], terms["beta"], np.abs(terms["beta"]), np.abs(z) < 15),
    }


def reduced(backend: Backend) -> float:
    """The worst error of p1's, p2's and beta's gradients over 6 x 35 values a channel, in u of the sum of |terms|."""
    node, shape = AconC(50), (6, 50, 7, 5)
    random = Stream("accuracy", "reduced")
    ends = {"p1": (-2.0, 2.0), "p2": (-2.0, 2.0), "beta": (-3.0, 3.0)}
    state = {name: random.uniform((1, 50, 1, 1), *between).astype(np.float32) for name, between in ends.items()}
    x, cotangent = (random.uniform(shape, -high, high).astype(np.float32) for high in (10.0, 1.0))
    model = backend.build(node)
    model.load(state)
    back = model.vjp(x, cotangent)
    exact = forward(node, state, [x]).vjp((cotangent.astype(np.float64),))
    return max(_worst(back.dparams[name], exact.params[name], exact.scales[name]) for name in ends)


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown: a row a region, a column a backend, in each `f / dx / dp / dbeta` in u."""
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


def main(arguments: list[str]) -> int:
    """`NAME=FILE.json`: measure that backend and write the file. `FILE.json ...`: print the table. 1 when a bound is missed."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    results: dict[str, dict[str, dict[str, float]]] = {}
    for argument in arguments:
        name, _, path = argument.rpartition("=")
        if name:
            backend = backends.get(name)
            found = {region: measure(backend, region) for region in REGIONS} | {"reduced": {"reduced": reduced(backend)}}
            Path(path).write_text(json.dumps({name: found}, indent=1) + "\n")
        results |= json.loads(Path(path).read_text())
    print(table(results))
    missed = [
        f"{name}: {region}: {quantity} {error:.1f} u, allowed {BOUNDS[quantity]:.0f}"
        for name, found in results.items()
        for region, errors in found.items()
        for quantity, error in errors.items()
        if not error <= BOUNDS[quantity]
    ]
    print("\n".join(missed), file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
