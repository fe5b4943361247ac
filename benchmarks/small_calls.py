"""Compare AconC with the published three lines in PyTorch, on small tensors.

`python benchmarks/small_calls.py` times an eager call and building a module, and prints the least
time of many short runs and the ratio. Both are measured in turn, so that a busy machine slows both.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from acon_torch import AconC
from torch import Tensor, nn

CHANNELS = 64
SHAPE = (1, CHANNELS, 4, 4)
CALLS, RUNS = 10, 1000


class Published(nn.Module):
    """ACON-C as in nmaac/acon, acon.py."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.p1 = nn.Parameter(torch.randn(1, width, 1, 1))
        self.p2 = nn.Parameter(torch.randn(1, width, 1, 1))
        self.beta = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the published formula."""
        y: Tensor = (self.p1 * x - self.p2 * x) * torch.sigmoid(self.beta * (self.p1 * x - self.p2 * x)) + self.p2 * x
        return y


def seconds(function: Callable[[], object]) -> float:
    """Return the time of one call, averaged over a short run."""
    start = time.perf_counter()
    for _ in range(CALLS):
        function()
    return (time.perf_counter() - start) / CALLS


def compare(what: str, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    """Print the least times of both and their ratio."""
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(RUNS)]
    ours_least, theirs_least = (min(column) * 1e6 for column in zip(*pairs, strict=True))
    ratio = ours_least / theirs_least
    print(f"{what}: {ours_least:.1f} us, published formula {theirs_least:.1f} us, ratio {ratio:.2f}")


def main() -> None:
    """Measure calls without and with gradients, and construction."""
    torch.set_num_threads(1)
    x, ours, theirs = torch.randn(SHAPE), AconC(CHANNELS), Published(CHANNELS)
    with torch.no_grad():
        compare("call without gradients", lambda: ours(x), lambda: theirs(x))
    compare("call with gradients", lambda: ours(x), lambda: theirs(x))
    compare("construction", lambda: AconC(CHANNELS), lambda: Published(CHANNELS))


if __name__ == "__main__":
    main()
