"""`acon convert --verify`: run the new file in every available framework, against the reference."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acon_core import backends, discovery
from acon_core.checkpoint import Checkpoint, NetworkQuery, metadata
from acon_core.checkpoint.codecs import safetensors_file
from acon_core.checkpoint.formats import Format, formats
from acon_core.checkpoint.reading import read_checkpoint
from acon_core.errors import AconError, SpecError, StateError
from acon_core.networks import Network
from acon_core.numerics import asymmetric_state, scaled_error
from acon_core.random import Stream
from acon_core.spec.activations import activation_name
from acon_core.spec.node import named_params
from acon_core.spec.param import Shape
from acon_core.verification.worker import LAYER, OUTPUT, STATISTIC, TRAINED, run_worker, write_request

# As many rows as in the golden training steps. Batch statistics of fewer divide by almost nothing.
SIZE = (5, 3, 64, 96)
# Where `nox -s demo` creates environments beside a checkout of the project.
ENVIRONMENTS = Path(__file__).parent.parent.parent / ".nox"
# Not `python -m`, which imports from the current folder first, which may contain a numpy.py.
CHILD = "import sys; from acon_core.verification.worker import main; main(*sys.argv[1:])"
# The largest allowed difference, relative to the scale of a result. It separates wrong layouts from
# rounding, which depth and untrained weights amplify; the conformance suite has the tight bounds.
# Measured: rounding is at most 1.5e-4 (a probe of MobileNetV3 large on JAX). The mildest wrong
# layout, a transposed 16x16 weight of a Meta-ACON generator, changes its layer by 4.4e-2; a wrong
# layout outside a generator by 0.26 or more.
BOUND = 2e-3

Results = dict[str, NDArray]


def input_shape(network: Network) -> Shape:
    """Return a small batch's shape, in the published size if the network accepts no other."""
    try:
        network.graph.out_shapes(SIZE)
    except SpecError:
        return (SIZE[0], *network.input_shape[1:])
    return SIZE


def has_framework(backend: str) -> bool:
    """Return whether this Python has the framework of a backend. It is not imported."""
    known = formats()
    framework = known[backend].codec.FRAMEWORK if backend in known else ""
    return not framework or find_spec(framework.partition(".")[0]) is not None


def interpreter(backend: str) -> str | None:
    """Return a Python that has the framework, or None.

    In this order: the one in ACON_PYTHON_<BACKEND>, this one, the one of `nox -s demo`.
    """
    configured = os.environ.get(f"ACON_PYTHON_{backend.upper()}")
    if configured:
        # Not resolved: the path of the link determines the environment.
        return str(Path(shutil.which(configured) or configured).absolute())
    if has_framework(backend):
        return sys.executable
    python = ENVIRONMENTS / f"run-{backend}" / "bin" / "python"
    return str(python) if python.exists() else None


def verify(checkpoint: Checkpoint, written: Path, format: Format) -> list[str]:
    """Compare the new file with the source, on the reference and on every available framework.

    Compares the outputs in evaluation, the outputs and running statistics of one training step, and
    the output of every layer with probe weights. The probe's values all differ, so that a square
    weight that was not transposed shows. A framework reads its own format with its own loader.

    Returns one note per run, with the errors. Raises StateError for a difference beyond rounding.
    """
    network = checkpoint.network
    low, high = network.input.bounds if network.input else (-1.0, 1.0)
    shape, random = input_shape(network), Stream("verify", network.name)
    # The probe weights are not trained for images; a small input keeps their outputs finite.
    ranges = {"x": (low, high), "probe_x": (-2.0, 2.0)}
    inputs = {name: random.uniform(shape, *ends).astype(np.float32) for name, ends in ranges.items()}
    # A user's own function takes no arguments, so its activation cannot be passed.
    act = activation_name(network.activation) if network.activation and ":" not in network.name else None
    query = NetworkQuery(network.name, act, format.dialect.name if format.dialect else None, network.options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        probe = _probe(checkpoint, folder, written.name, format)
        write_request(folder, {"file": written, "probe": probe.path}, query, inputs)
        expected = run_worker(checkpoint, probe, "numpy", **inputs)
        for result, array in run_worker(read_checkpoint(written, query), probe, "numpy", **inputs).items():
            if not np.array_equal(array, expected[result], equal_nan=True):
                raise StateError(f"{written}: on the reference, {result} of the new file differs from the source")
        notes = ["verified: on the reference, both files give the same bits in evaluation and after a training step"]
        missing = []
        known = formats()
        for backend in (name for name in backends.packages() if name in known):
            python = interpreter(backend)
            if python is None:
                needed = discovery.registered(backend).python_needed()
                hint = f" (needs Python {needed}: name one with ACON_PYTHON_{backend.upper()})" if needed else ""
                missing.append(f"{backend}{hint}")
                continue
            try:
                notes.append(_compare(written, backend, _run(python, backend, written, folder, network), expected))
            except AconError as error:
                # A stranger's backend has no say about files that are not its own.
                if discovery.is_own(backend) or format.backend == backend:
                    raise
                notes.append(f"not verified by the backend {backend}: {error}")
    return [*notes, f"not available, so not run: {', '.join(missing)}"] if missing else notes


def _probe(checkpoint: Checkpoint, folder: Path, name: str, format: Format) -> Checkpoint:
    """Write the network with probe weights as a file of the same format."""
    graph = checkpoint.network.graph
    table = named_params(graph)
    state = {
        path: array if table[path].integer else array.astype(np.float32)
        for path, array in asymmetric_state(graph, "probe").items()
    }
    path = folder / "probe" / name
    path.parent.mkdir()
    format.codec.write(path, format.layout.to_native(graph, state), metadata(checkpoint.network, format.dialect))
    return replace(checkpoint, path=path, format=format, state=state)


def _run(python: str, backend: str, file: Path, folder: Path, network: Network) -> Results:
    """Run the request in `folder` in another process.

    The process starts in `folder`, so that it imports nothing from the current one.
    """
    own_function = [str(Path.cwd())] if ":" in network.name else []
    command = [python, "-c", CHILD, backend, str(folder), *own_function]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise AconError(f"ACON_PYTHON_{backend.upper()}: {python} cannot be started: {error.strerror}") from error
    if done.returncode:
        message = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise AconError(f"{file}: {backend} could not run it: {message[0]}")
    return dict(safetensors_file.read(folder / "results.safetensors").tensors)


def _compare(file: Path, backend: str, results: Results, expected: Results) -> str:
    """Return a note on the errors of a framework. Raises StateError for one beyond BOUND."""
    worst: dict[str, float] = {}
    for name, array in expected.items():
        kind, scale = _scale(name, expected)
        error = scaled_error(results[name], array, scale)
        if not error <= BOUND:
            raise StateError(f"{file}: {name} on {backend} differs by {error:.1e} of its scale, expected at most {BOUND:.0e}")
        worst[kind] = max(error, worst.get(kind, 0.0))
    errors = ", ".join(f"{kind} {error:.1e}" for kind, error in worst.items())
    layers = sum(name.startswith(LAYER) for name in expected)
    return f"verified: {backend} agrees with the reference, errors relative to scale: {errors} ({layers} layers)"


def _scale(name: str, expected: Results) -> tuple[str, float]:
    """Return the kind of a result and its scale, as in the conformance suite."""
    if name.startswith(STATISTIC):
        variance = float(expected[name.rpartition(".")[0] + ".running_var"].max())
        return ("running means", variance**0.5) if name.endswith(".running_mean") else ("running variances", variance)
    kind = "layers with probe weights" if name.startswith(LAYER) else {OUTPUT: "outputs", TRAINED: "outputs in training"}[name]
    return kind, float(np.abs(expected[name]).max(initial=0.0))
