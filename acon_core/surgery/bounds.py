"""Bounds of the derivative of ACON activations, per channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acon_core.spec import AconA, AconB, AconC, MetaAconC, Node, join, walk
from acon_core.surgery.modules import Modules
from acon_core.surgery.rebuild import outermost_spec_modules

# The largest slope of z sigmoid(z), where (z - 2) exp(z) = z + 2; Ma et al. 2021 print 1.0998.
KAPPA = 1.099839320128866917
LINEAR = 0.01


@dataclass(frozen=True)
class GradientBounds:
    """Bounds of the derivative of one activation.

    Parameters
    ----------
    low, high : ndarray
        Ends of the interval that dy/dx lies in, (C,) each. A generated beta is held constant.
    beta : ndarray or None
        The parameter beta, (C,); None if it is generated.
    linear : ndarray
        Whether the channel has become linear, (C,): |p1 - p2| is below 0.01 of the larger slope, or
        |beta (p1 - p2)| is below 0.01.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    beta: NDArray[np.float64] | None
    linear: NDArray[np.bool_]

    def __str__(self) -> str:
        ends = f"derivative in [{self.low.min():.3g}, {self.high.max():.3g}]"
        beta = (
            "generated" if self.beta is None else f"{self.beta.min():.3g} to {self.beta.max():.3g}, mean {self.beta.mean():.3g}"
        )
        return f"{self.low.size} channels, {ends}, beta {beta}, {int(self.linear.sum())} linear"


def bounds_of(node: Node, state: Mapping[str, NDArray]) -> GradientBounds:
    """Compute the bounds of one ACON-A, B, C or Meta-ACON from its canonical state.

    They are kappa p1 + (1 - kappa) p2 and kappa p2 + (1 - kappa) p1.
    """
    values = {name: np.asarray(state[name], np.float64).reshape(-1) for name in ("p1", "p2", "beta") if name in state}
    channels = next(iter(values.values())).size
    p1, p2 = values.get("p1", np.ones(channels)), values.get("p2", np.zeros(channels))
    beta = values.get("beta")
    ends = np.stack([KAPPA * p1 + (1 - KAPPA) * p2, KAPPA * p2 + (1 - KAPPA) * p1])
    if beta is not None:  # a straight line: the derivative is the mean of the slopes
        ends = np.where(beta * (p1 - p2) == 0, (p1 + p2) / 2, ends)
    bend = np.inf if beta is None else np.abs(beta * (p1 - p2))
    linear = (np.abs(p1 - p2) < LINEAR * np.maximum(np.abs(p1), np.abs(p2))) | (bend < LINEAR)
    return GradientBounds(ends.min(0), ends.max(0), beta, linear)


def gradient_bounds(modules: Modules, model: Any) -> dict[str, GradientBounds]:
    """Compute the bounds of every ACON activation in the modules that were made from specs.

    Parameters
    ----------
    modules : Modules
        Access to the framework's modules.
    model : Any
        A native model.

    Returns
    -------
    dict from str to GradientBounds
        By path of the activation.
    """
    return dict(_bounds(modules, model))


def _bounds(modules: Modules, model: Any) -> Iterator[tuple[str, GradientBounds]]:
    for top, module, node in outermost_spec_modules(modules, model):
        wanted = [(path, part) for path, part in walk(node) if type(part) in (AconA, AconB, AconC, MetaAconC)]
        state = modules.state(module, node) if wanted else {}
        for path, part in wanted:
            prefix = f"{path}." if path else ""
            own = {name: state[prefix + name] for name in part.params}
            yield join(top, path) if path else top, bounds_of(part, own)
