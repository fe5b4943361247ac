"""Compare AconC with the published formula in PyTorch, as a Markdown table.

Run `python tools/published_formula.py` or `python -m nox -s figures`. Autograd differentiates the
published formula. Points, regions and scales are those of `activation_accuracy.py`; u is 2^-24.
Memory is what autograd keeps, in multiples of the input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import acon_torch
import numpy as np
import torch
from activation_accuracy import LARGEST, POINTS, U, points
from numpy.typing import NDArray
from torch import Tensor

from acon_core.reference import forward
from acon_core.spec import AconC

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from memory import SHAPE, per_channel, saved_bytes

USUAL, NEAR, LARGE = "A: |x| < 10", "B: p1 near p2, |beta| to 100", "E: |x| near the largest float"
Function = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Values = dict[str, NDArray[np.float64]]


def published(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
    """ACON-C as the code of the paper computes it."""
    return (p1 * x - p2 * x) * torch.sigmoid(beta * (p1 * x - p2 * x)) + p2 * x


def ours(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
    """ACON-C as this package computes it, for elements in a row."""
    return acon_torch.acon(x[None], p1, p2, beta)[0]


def computed(function: Function, given: dict[str, NDArray], dtype: torch.dtype = torch.float32) -> Values:
    """Compute the value and the four gradients at every point."""
    values = [torch.from_numpy(given[name]).to(dtype).requires_grad_() for name in ("x", "p1", "p2", "beta")]
    y = function(*values)
    gradients = torch.autograd.grad(y, values, torch.ones_like(y))
    names = ("f", "dx", "dp1", "dp2", "dbeta")
    return {name: value.detach().double().numpy() for name, value in zip(names, (y, *gradients), strict=True)}


def exact(given: dict[str, NDArray]) -> Values:
    """Compute the same with the float64 reference."""
    state = {name: given[name].reshape(1, -1, 1, 1) for name in ("p1", "p2", "beta")}
    result = forward(AconC(POINTS), state, [given["x"][None]])
    back = result.vjp((np.ones((1, POINTS)),))
    terms = {f"d{name}": back.params[name].reshape(-1) for name in state}
    return {"f": result.values[0][0], "dx": back.inputs[0][0]} | terms


def worst(found: NDArray, expected: NDArray, scale: NDArray, where: NDArray | bool = True) -> float:
    """Return the largest error as a fraction of the scale."""
    chosen = (scale > 0) & where
    return float((np.abs(found - expected)[chosen] / scale[chosen]).max())


def column(function: Function) -> list[str]:
    """Measure one implementation, row by row."""
    given, truth = points(USUAL), exact(points(USUAL))
    x, p1, p2, beta = (given[name].astype(np.float64) for name in ("x", "p1", "p2", "beta"))
    found = computed(function, given)
    value_scale, slope = np.maximum(np.abs(p1 * x), np.abs(p2 * x)), np.maximum(np.abs(p1), np.abs(p2))
    slopes = max(worst(found[name], truth[name], np.abs(x)) for name in ("dp1", "dp2"))
    usual = np.abs(beta * (p1 - p2) * x) < 15
    near, near_truth = computed(function, points(NEAR)), exact(points(NEAR))
    near_x = np.abs(points(NEAR)["x"].astype(np.float64))
    large, large_truth = computed(function, points(LARGE)), exact(points(LARGE))
    representable = np.abs(large_truth["f"]) < LARGEST
    lost = int((~np.isfinite(large["f"]) & representable).sum())
    half_given = {name: value.astype(np.float16).astype(np.float32) for name, value in given.items()}
    half, half_truth = computed(function, half_given, torch.float16), exact(half_given)
    hx, hp1, hp2 = (half_given[name].astype(np.float64) for name in ("x", "p1", "p2"))
    half_scale = np.maximum(np.abs(hp1 * hx), np.abs(hp2 * hx))
    return [
        f"{worst(found['f'], truth['f'], value_scale) / U:.1f} u",
        f"{worst(found['dx'], truth['dx'], slope) / U:.1f} u",
        f"{slopes / U:.1f} u",
        f"{worst(found['dbeta'], truth['dbeta'], np.abs(truth['dbeta']), usual):.1e}",
        f"{max(worst(near[name], near_truth[name], near_x) for name in ('dp1', 'dp2')):.1e}",
        f"{lost:,} of {POINTS:,}",
        f"{worst(half['f'], half_truth['f'], half_scale):.1e}",
        f"{worst(half['dx'], half_truth['dx'], np.maximum(np.abs(hp1), np.abs(hp2))):.1e}",
    ]


def memory(function: Function) -> str:
    """Measure what autograd keeps for images, in multiples of the input."""
    gates = [per_channel() for _ in range(3)]
    return f"{saved_bytes(lambda x: function(x, *gates), gates):.2f}"


ROWS = (
    "value, \\|x\\| < 10, of the larger of \\|p1 x\\| and \\|p2 x\\|",
    "gradient of x, of the larger slope",
    "gradients of p1 and p2, of \\|x\\|",
    "gradient of beta, relative, \\|z\\| < 15",
    "gradients of p1 and p2 where p1 is near p2, of \\|x\\|",
    "values that overflow although the exact one is representable",
    "value in float16",
    "gradient of x in float16",
    f"kept for the backward pass on {SHAPE}, times the input",
)


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    cells = [[*column(function), memory(whole)] for function, whole in ((published, published), (ours, acon_torch.acon))]
    print("| worst error of 20,000 points, float32 unless noted | published formula | `AconC` |")
    print("|---|--:|--:|")
    for row, *values in zip(ROWS, *cells, strict=True):
        print(f"| {row} | {' | '.join(values)} |")


if __name__ == "__main__":
    main()
