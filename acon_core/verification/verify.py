"""`acon convert --verify`: every framework at hand runs the network of the new file, and gives what the reference gives."""

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

from acon_core import backends
from acon_core.checkpoint import Checkpoint, metadata, read_network
from acon_core.checkpoint.codecs import safetensors_file
from acon_core.checkpoint.formats import Format, formats
from acon_core.errors import AconError, SpecError, StateError
from acon_core.networks import Network
from acon_core.numerics import asymmetric_state, scaled_error
from acon_core.random import Stream
from acon_core.spec.activations import activation_name
from acon_core.spec.node import named_params
from acon_core.spec.param import Shape
from acon_core.verification.worker import LAYER, OUTPUT, STATISTIC, TRAINED, run_worker, write_request

# As many rows as in the golden training steps: batch statistics of fewer divide by the spread of almost nothing.
SIZE = (5, 3, 64, 96)
# Where `nox -s demo` and its like make environments, beside a checkout of the project.
ENVIRONMENTS = Path(__file__).parent.parent.parent / ".nox"
# Not `python -m`, which looks for modules in the current folder first, where a downloaded model may lie with a numpy.py.
CHILD = "import sys; from acon_core.verification.worker import main; main(*sys.argv[1:])"
# How far off an answer may be, of its scale. What frameworks compute is the conformance suite's to hold tightly; this tells a
# file that is laid out wrongly from rounding, which depth and untrained weights amplify. Measured: rounding comes to 1.5e-4 at
# most (a probe of MobileNetV3 large on JAX); the mildest wrong layout, a transposed 16x16 weight of a Meta-ACON generator,
# moves the layer that it is in by 4.4e-2, and one outside of a generator by 0.26 or more.
BOUND = 2e-3

Answers = dict[str, NDArray]


def input_shape(network: Network) -> Shape:
    """A small batch, of the published size where the network takes no other."""
    try:
        network.graph.out_shapes(SIZE)
    except SpecError:
        return (SIZE[0], *network.input_shape[1:])
    return SIZE


def interpreter(backend: str) -> str | None:
    """A Python that has the framework: the one that ACON_PYTHON_<NAME> names, else this one, else that of nox, else none."""
    named = os.environ.get(f"ACON_PYTHON_{backend.upper()}")
    if named:
        return str(Path(shutil.which(named) or named).absolute())  # not resolved: the link is what makes it an environment's
    if find_spec(formats()[backend].codec.FRAMEWORK):
        return sys.executable
    made = ENVIRONMENTS / f"run-{backend}" / "bin" / "python"
    return str(made) if made.exists() else None


def verify(checkpoint: Checkpoint, written: Path, format: Format) -> list[str]:
    """Run the source on the reference, and the new file on the reference and on every framework at hand.

    In evaluation and in one training step, with running statistics after it; and layer by layer with a probe in the weights'
    place, no two of whose values are alike, so that a square weight left untransposed shows. The file's own framework reads
    it with its own loader. Returns what was run and how closely it agreed, a line each. Raises StateError when something
    differs by more than rounding explains, and names it.
    """
    network = checkpoint.network
    low, high = network.input.bounds if network.input else (-1.0, 1.0)
    shape, random = input_shape(network), Stream("verify", network.name)
    # The probe's weights expect nothing of an image, so it gets values that it does not blow up.
    ranges = {"x": (low, high), "probe_x": (-2.0, 2.0)}
    inputs = {name: random.uniform(shape, *ends).astype(np.float32) for name, ends in ranges.items()}
    # A function of the user's own takes no arguments, so its activation is not one of them.
    act = activation_name(network.activation) if network.activation and ":" not in network.name else None
    dialect = format.dialect.name if format.dialect else None
    with tempfile.TemporaryDirectory() as folder:
        probe = _probe(checkpoint, Path(folder), written.name, format)
        write_request(Path(folder), {"file": written, "probe": probe.path}, network, act, dialect, inputs)
        expected = run_worker(checkpoint, probe, "numpy", **inputs)
        again = read_network(written, network.name, act, dialect, **network.options)
        for name, array in run_worker(again, probe, "numpy", **inputs).items():
            if not np.array_equal(array, expected[name], equal_nan=True):
                raise StateError(f"{written}: the reference gives another {name} from the new file than from the old one")
        told = ["verified: the reference gives the same from both files, in evaluation and after a training step, bit for bit"]
        absent = []
        known = formats()
        for backend in (name for name in backends.packages() if name in known):
            python = interpreter(backend)
            if python is None:
                absent.append(backend)
            else:
                found = _asked(python, backend, written, Path(folder), network)
                told.append(_held(written, backend, found, expected))
    return [*told, f"not at hand, so not run: {', '.join(absent)}"] if absent else told


def _probe(checkpoint: Checkpoint, folder: Path, name: str, format: Format) -> Checkpoint:
    """The same network with other values, as a file of the same format."""
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


def _asked(python: str, backend: str, file: Path, folder: Path, network: Network) -> Answers:
    """What another process answers, which runs in `folder`, so that it finds no module in the current one."""
    own = [str(Path.cwd())] if ":" in network.name else []
    command = [python, "-c", CHILD, backend, str(folder), *own]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise AconError(f"ACON_PYTHON_{backend.upper()}: {python} cannot be started: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise AconError(f"{file}: {backend} could not run it: {said[0]}")
    return dict(safetensors_file.read(folder / "answers.safetensors").tensors)


def _held(file: Path, backend: str, found: Answers, expected: Answers) -> str:
    """One line on how closely a framework's answers agree. Raises StateError for the one that does not."""
    worst: dict[str, float] = {}
    for name, array in expected.items():
        what, scale = _measure(name, expected)
        error = scaled_error(found[name], array, scale)
        if not error <= BOUND:
            raise StateError(f"{file}: {backend} gives another {name}: {error:.1e} of its scale, allowed {BOUND:.0e}")
        worst[what] = max(error, worst.get(what, 0.0))
    parts = [f"{what} {error:.1e}" for what, error in worst.items()]
    layers = sum(name.startswith(LAYER) for name in expected)
    return f"verified: {backend} within {', '.join(parts)} of their scales ({layers} layers)"


def _measure(name: str, expected: Answers) -> tuple[str, float]:
    """What an answer is called, and its scale, as in the conformance suite."""
    if name.startswith(STATISTIC):
        variance = float(expected[name.rpartition(".")[0] + ".running_var"].max())
        return ("running means", variance**0.5) if name.endswith(".running_mean") else ("running variances", variance)
    what = "layers of a probe" if name.startswith(LAYER) else {OUTPUT: "outputs", TRAINED: "outputs in training"}[name]
    return what, float(np.abs(expected[name]).max(initial=0.0))
