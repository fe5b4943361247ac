"""`python benchmarks/reference.py [NETWORK [ACT]]`: what the NumPy reference costs at full size, as a Markdown table.

One image forward and back in float64 and in evaluation, with the gradients of every parameter and their scales. Seconds by
the wall; memory is the largest that the process has had by then, so that the rows are in the order of their work.
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
    """The most memory that this process has held so far."""
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
