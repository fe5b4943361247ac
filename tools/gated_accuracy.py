"""Make the second table of docs/figures.md: the errors of the other gated functions.

`python tools/gated_accuracy.py measure torch FILE.json` measures one backend.
`python tools/gated_accuracy.py table FILE.json ...` prints the table.
`python -m nox -s figures` does both for every backend.

As in `activation_accuracy`: 20000 points of a region, each a channel of its own, so that every
gradient is a single term, against the float64 reference, in u = 2^-24 of a scale. The scale of a
value is the sum of its terms' absolute values, that of the gradient of x the sum of the factors',
that of another gradient the largest that it may have at that x.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from activation_accuracy import POINTS, Array, Results, run_command, worst_error
from numpy.typing import NDArray

from acon_core.backends import Backend
from acon_core.random import Stream
from acon_core.reference import forward
from acon_core.spec import Constant, Param, graph
from acon_core.spec.gated import AReLUFunction, DynamicMaximum, Maximum, PReLUFunction, RepActFunction
from acon_core.spec.node import Node

BOUNDS = {"f": 6.0, "dx": 8.0, "dgates": 8.0}
"""The largest errors in u that a float32 implementation may have."""

REGIONS = {"|x| < 10": (1e-2, 10.0), "|x| to 1e30": (1e-3, 1e30), "|x| from 1e-30": (1e-30, 1.0)}
"""The range of the magnitudes of x, log-uniform, of either sign."""

State = Mapping[str, Array]
LAMBDAS, INIT_V = np.array([1.0, 1.5, 0.5, 0.75]), np.array([1.0, 0.25, 0.125, -0.5])


@dataclass(frozen=True)
class Measured:
    """A function of x and gates, what is drawn for the gates, and its scales.

    `value` and `slope` are the scales of the value and of the gradient of x; `gates` those of the
    gradients of the gates, all in terms of |x| and of the gates' absolute values.
    """

    node: Node
    line: str
    gates: Mapping[str, tuple[float, float]]
    value: Callable[[Array, State], Array]
    slope: Callable[[Array, State], Array]
    gradients: Callable[[Array], Mapping[str, Array]]


def _line_sizes(names: str) -> Array:
    size: Array = (LAMBDAS + np.abs(INIT_V))[["a1", "a2", "b1", "b2"].index(names)]
    return size


FUNCTIONS = {
    "PReLU": Measured(
        PReLUFunction(), "f(x, negative)", {"negative": (-2.0, 2.0)},
        lambda x, g: np.maximum(x, x * g["negative"]), lambda x, g: 1 + g["negative"], lambda x: {"negative": x},
    ),
    "AReLU": Measured(
        AReLUFunction(), "f(x, alpha, beta)", {"alpha": (0.02, 0.98), "beta": (-3.0, 3.0)},
        lambda x, g: 2 * x, lambda x, g: 0 * x + 2, lambda x: {"alpha": x, "beta": x},
    ),
    "RepAct": Measured(
        RepActFunction(), "f(x, identity, relu, hardswish)",
        {"identity": (-2.0, 2.0), "relu": (-2.0, 2.0), "hardswish": (-2.0, 2.0)},
        lambda x, g: x * sum(g.values()), lambda x, g: 0 * x + sum(g.values()) + g["hardswish"] / 2,
        lambda x: dict.fromkeys(("identity", "relu", "hardswish"), x),
    ),
    "DyReLU": Measured(
        DynamicMaximum(), "f(x, theta, lambdas, init_v)", {"theta": (-3.0, 3.0)},
        lambda x, g: x * max(_line_sizes("a1"), _line_sizes("a2")) + max(_line_sizes("b1"), _line_sizes("b2")),
        lambda x, g: 0 * x + max(_line_sizes("a1"), _line_sizes("a2")),
        lambda x: {"theta": np.stack([x, x, 0 * x + 1, 0 * x + 1], -1) * LAMBDAS / 2},
    ),
    "FReLU's maximum": Measured(
        Maximum(), "f(x, other)", {"other": (-10.0, 10.0)},
        lambda x, g: np.maximum(x, g["other"]), lambda x, g: 0 * x + 1, lambda x: {"other": 0 * x + 1},
    ),
}  # fmt: skip


def _state(name: str, region: str) -> tuple[Node, dict[str, NDArray], NDArray[np.float32]]:
    """Return the graph of a function, whose gates are parameters, with its state and x."""
    function = FUNCTIONS[name]
    random = Stream("accuracy", name, region)
    low, high = REGIONS[region]
    magnitude = 10.0 ** random.uniform((1, POINTS, 1, 1), np.log10(low), np.log10(high))
    x = np.where(random.unit((1, POINTS, 1, 1)) < 0.5, -magnitude, magnitude).astype(np.float32)
    state = {}
    for gate, ends in function.gates.items():
        shape = (1, 4 * POINTS) if gate == "theta" else (1, POINTS, 1, 1)
        state[gate] = random.uniform(shape, *ends).astype(np.float32)
    if "theta" in state:
        state |= {"lambdas": LAMBDAS.astype(np.float32), "init_v": INIT_V.astype(np.float32)}
    params = {
        gate: Param(value.shape, Constant(0.0), kind="weight" if gate in function.gates else "derived")
        for gate, value in state.items()
    }
    return graph("x", [f"y = {function.line}"], "y", {"f": function.node}, params), state, x


def measure(backend: Backend, name: str, region: str) -> dict[str, float]:
    """Return the largest errors of a backend for a function in a region."""
    function = FUNCTIONS[name]
    node, state, x = _state(name, region)
    model = backend.build(node)
    model.load(state)
    cotangent = np.ones_like(x)
    back = model.vjp(x, cotangent)
    exact = forward(node, state, [x])
    gradients = exact.vjp((cotangent.astype(np.float64),))
    size = np.abs(x.astype(np.float64)).reshape(-1)
    gates = {gate: np.abs(state[gate].astype(np.float64)).reshape(-1) for gate in function.gates if gate != "theta"}
    scales = function.gradients(size)
    terms = (
        worst_error(back.dparams[gate].reshape(-1), gradients.params[gate].reshape(-1), scales[gate].reshape(-1))
        for gate in function.gates
    )
    return {
        "f": worst_error(back.y.reshape(-1), exact.values[0].reshape(-1), function.value(size, gates)),
        "dx": worst_error(back.dx.reshape(-1), gradients.inputs[0].reshape(-1), function.slope(size, gates)),
        "dgates": max(terms),
    }


def table(results: Results) -> str:
    """Format as Markdown: a row per function and region, a column per backend."""
    names = list(results)
    lines = [f"| function, region | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for row in next(iter(results.values())):
        cells = [" / ".join(f"{error:.1f}" for error in results[name][row].values()) for name in names]
        escaped = row.replace("|", "\\|")
        lines.append(f"| {escaped} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure_all(backend: Backend) -> dict[str, dict[str, float]]:
    """Return the errors of every function in every region."""
    return {f"{name}, {region}": measure(backend, name, region) for name in FUNCTIONS for region in REGIONS}


if __name__ == "__main__":
    sys.exit(run_command(__doc__ or "", measure_all, table, BOUNDS))
