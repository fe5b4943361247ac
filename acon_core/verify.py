"""`acon convert --verify`: the network of the new file runs, and gives what the network of the old one gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from acon_core.checkpoint import Checkpoint, read_network
from acon_core.checkpoint.formats import Format
from acon_core.conformance.tolerances import TOLERANCES
from acon_core.errors import AconError, SpecError, StateError
from acon_core.networks import Network
from acon_core.random import Stream
from acon_core.reference import forward
from acon_core.spec.activations import activation_name
from acon_core.spec.param import Shape

SIZE = (2, 3, 64, 96)


def input_shape(network: Network) -> Shape:
    """A small batch, of the published size where the network takes no other."""
    try:
        network.graph.out_shapes(SIZE)
    except SpecError:
        return (2, *network.input_shape[1:])
    return SIZE


def interpreter(format: Format) -> str | None:
    """A Python that has the format's framework: the one that ACON_PYTHON_<NAME> names, else this one, else none."""
    named = os.environ.get(f"ACON_PYTHON_{format.name.upper()}")
    if named:
        return named
    return sys.executable if find_spec(format.files.FRAMEWORK) else None


def verify(checkpoint: Checkpoint, written: Path, format: Format) -> list[str]:
    """Run the source on the reference, and the new file on the reference and, where at hand, on its own framework.

    Returns what was run and how closely it agreed. Raises StateError when two outputs differ by more than rounding explains.
    """
    network = checkpoint.network
    low, high = network.input.range if network.input else (-1.0, 1.0)
    x = Stream("verify", network.name).uniform(input_shape(network), low, high).astype(np.float32)
    expected = forward(network.graph, dict(checkpoint.state), [x]).values[0]
    # A function of the user's own takes no arguments, so its activation is not one of them.
    act = activation_name(network.activation) if network.activation and ":" not in network.name else None
    dialect = format.dialect.name if format.dialect else None
    again = read_network(written, network.name, act, dialect, **network.options)
    if not np.array_equal(forward(network.graph, dict(again.state), [x]).values[0], expected, equal_nan=True):
        raise StateError(f"{written}: the network of the new file gives other outputs than that of the old one")
    told = ["verified: the reference gives the same outputs from both files, bit for bit"]
    if not format.files.FRAMEWORK:
        return told
    python = interpreter(format)
    if python is None or checkpoint.dtype != "float32":
        why = "is not at hand" if python is None else f"would not run in {checkpoint.dtype}"
        return [*told, f"{format.name} itself {why}, so it was not run"]
    found = _run(python, written, format.name, network, act, dialect, x)
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    bound = TOLERANCES["network", "y", "float32"].bound
    if not error <= bound:
        raise StateError(
            f"{written}: {format.name} gives outputs that differ by {error:.1e} of the largest, allowed {bound:.0e}"
        )
    return [*told, f"verified: {format.name} gives them within {error:.1e} of the largest"]


def _run(
    python: str, file: Path, backend: str, network: Network, act: str | None, dialect: str | None, x: np.ndarray
) -> np.ndarray:
    """`acon run` in another process."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "x.npz"), Path(folder, "y.npz")
        np.savez(source, x=x)
        command = [python, "-m", "acon_core.cli", "run", str(file), "--input", str(source), "--output", str(target)]
        command += ["--backend", backend, "--network", network.name]
        command += ["--act", act] if act else []
        for name, value in network.options.items():
            command += ["--option", f"{name}={json.dumps(value)}"]
        command += ["--dialect", dialect] if dialect else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AconError(f"{file}: {backend} could not run it: {done.stderr.strip().splitlines()[-1:]}")
        with np.load(target) as archive:
            return np.asarray(archive["logits"], np.float64)
