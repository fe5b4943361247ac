"""Measure the cost of the NumPy reference at full size.

`python benchmarks/reference.py [NETWORK [ACT]]` prints a Markdown table: one image forward and back
in float64 and in evaluation, with the gradients of every parameter and their scales. Seconds are
wall time. Memory is the peak of the process so far, so the rows are in order of work.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

from acon_core.networks import create
from acon_core.reference import forward
from acon_core.spec import initial_state


def gigabytes() -> float:
    """Return the peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(name: str = "acon/resnet152", act: str = "acon_c") -> None:
    """Print the table."""
    network = create(name, act)
    x = np.random.default_rng(0).uniform(0.0, 1.0, network.input_shape)
    print(f"{name} with {act}, input {network.input_shape}\n\n| | seconds | GB |\n|---|--:|--:|")
    start = time.perf_counter()
    state = initial_state(network.graph)
    print(f"| initial state | {time.perf_counter() - start:.1f} | {gigabytes():.2f} |", flush=True)
    start = time.perf_counter()
    result = forward(network.graph, state, [x])
    print(f"| forward | {time.perf_counter() - start:.1f} | {gigabytes():.2f} |", flush=True)
    start = time.perf_counter()
    result.vjp((np.ones_like(result.values[0]),))
    print(f"| back | {time.perf_counter() - start:.1f} | {gigabytes():.2f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
