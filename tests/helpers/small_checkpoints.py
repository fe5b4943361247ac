"""Write small checkpoints for tests, compare arrays bit for bit, and run `acon`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np

from acon_core import spec
from acon_core.checkpoint import metadata
from acon_core.checkpoint.formats import format_named
from acon_core.networks import Network, create

NAME = "acon/shufflenet_v2_x0_5"
OPTIONS = {"repeats": (1, 1, 1)}
State = dict[str, np.ndarray]


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    alike = first.dtype == second.dtype and first.shape == second.shape
    return alike and np.ascontiguousarray(first).tobytes() == np.ascontiguousarray(second).tobytes()


def run_acon(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `acon` in another process."""
    command = [sys.executable, "-m", "acon_core.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def small(name: str, act: str, classes: int = 3, dtype: str = "float32", seed: int = 5) -> tuple[Network, State]:
    """Create a network and its initial state."""
    network = create(name, act, classes)
    return network, spec.initial_state(network.graph, seed, dtype)


def smallest(dtype: str = "float32") -> tuple[Network, State]:
    """Create a network of one block per stage, and a state in any float dtype."""
    network = create(NAME, "acon_c", 3, **OPTIONS)
    state = spec.initial_state(network.graph, 5, "float64")
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    return network, {path: array if array.dtype == np.int64 else array.astype(kind) for path, array in state.items()}


def write(path: Path, format: str, network: Network, state: State, /, **entries: str) -> Path:
    """Write a checkpoint in a framework's own layout, with these entries of metadata changed."""
    target = format_named(format)
    target.codec.write(path, target.layout.to_native(network.graph, state), metadata(network) | entries)
    return path


def write_smallest(path: Path, format: str = "safetensors", dtype: str = "float32", /, **entries: str) -> Path:
    """Write the smallest network."""
    return write(path, format, *smallest(dtype), **entries)


def write_state(path: Path, state: State, format: str = "torch") -> Path:
    """Write tensors under the names that they have, and no metadata."""
    format_named(format).codec.write(path, state, {})
    return path


def asymmetric_repact_state(name: str, act: str, classes: int = 3) -> State:
    """Return an initial state with different weights in every RepAct."""
    state = spec.initial_state(create(name, act, classes).graph, 5)
    random = np.random.default_rng(1)
    for path in state:
        if path.endswith((".weights", ".alpha")):
            state[path] = random.uniform(0.1, 0.9, state[path].shape).astype(np.float32)
    return state


def leaves(network: Network) -> list[tuple[str, spec.Node]]:
    """Return the layers of a network by path, which are equal for equal networks."""
    return [(path, node) for path, node in spec.walk(network.graph) if not isinstance(node, spec.Graph)]
