"""The worker process of `acon convert --verify`, which runs in an environment that has the framework.

`main` reads `request.json` and `inputs.safetensors` from a folder and writes `answers.safetensors`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from numpy.typing import NDArray

from acon_core.checkpoint import Checkpoint, read_network
from acon_core.checkpoint.codecs import safetensors_file
from acon_core.errors import AconError
from acon_core.networks import Network, as_tuples
from acon_core.spec import Graph, Node, deterministic, join, named_params
from acon_core.verification.run import find_functions_in, model_of

OUTPUT, TRAINED, STATISTIC, LAYER = "output", "trained", "statistic/", "layer/"


def weighted_layers(node: Node, path: str = "") -> Iterator[str]:
    """The values that come out of every layer with parameters of its own, by their paths; what is inside of one is its own."""
    if not isinstance(node, Graph):
        return
    for step in node.steps:
        child = node.children[step.child]
        if isinstance(child, Graph):
            yield from weighted_layers(child, join(path, step.child))
        elif named_params(child):
            yield from (join(path, output) for output in step.outputs)


def run_worker(checkpoint: Checkpoint, probe: Checkpoint, backend: str, x: NDArray, probe_x: NDArray) -> dict[str, NDArray]:
    """A backend's outputs for `x` in evaluation and in one training step, the running statistics after it, and every layer's
    output with the weights of `probe` for `probe_x`. Nothing is random: dropout and stochastic depth are at rate 0."""
    network = checkpoint.network
    model, dtype = model_of(checkpoint, backend)
    found = {OUTPUT: model(x.astype(dtype)).y}
    graph = deterministic(network.graph)
    assert isinstance(graph, Graph)  # whatever is done to a graph gives one
    model, dtype = model_of(replace(checkpoint, network=replace(network, graph=graph)), backend)
    found[TRAINED] = model(x.astype(dtype), train=True).y
    state = model.state()
    found |= {STATISTIC + path: state[path] for path, param in named_params(graph).items() if param.kind == "statistic"}
    model, dtype = model_of(probe, backend)
    taps = list(weighted_layers(network.graph))
    layers = model(probe_x.astype(dtype), taps=taps).taps
    return found | {LAYER + tap: layers[tap] for tap in taps}


def write_request(
    folder: Path,
    files: Mapping[str, Path],
    network: Network,
    act: str | None,
    dialect: str | None,
    inputs: Mapping[str, NDArray],
) -> None:
    """Write what `main` reads, wherever it runs: the two files, what their tensors do not tell, and what goes in."""
    asked = {
        **{name: str(path.absolute()) for name, path in files.items()},
        **{"network": network.name, "act": act, "dialect": dialect, "options": dict(network.options)},
    }
    (folder / "request.json").write_text(json.dumps(asked), encoding="utf-8")
    safetensors_file.write(folder / "inputs.safetensors", inputs)


def main(backend: str, folder: str, own: str | None = None) -> None:
    """Answer the request in `folder`. `own`: where a function of the user's own lies. An error is one line and status 2."""
    if own is not None:
        find_functions_in(Path(own))
    place = Path(folder)
    asked = json.loads((place / "request.json").read_text(encoding="utf-8"))
    options = as_tuples(asked["options"])
    try:
        checkpoint, probe = (
            read_network(asked[which], asked["network"], asked["act"], asked["dialect"], **options)
            for which in ("file", "probe")
        )
        inputs = safetensors_file.read(place / "inputs.safetensors").tensors
        found = run_worker(checkpoint, probe, backend, **inputs)
    except AconError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    safetensors_file.write(place / "answers.safetensors", found)
