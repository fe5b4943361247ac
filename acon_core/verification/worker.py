"""The worker process of `acon convert --verify`, run in an environment that has the framework.

`main` reads `request.json` and `inputs.safetensors` from a folder and writes `results.safetensors`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from numpy.typing import NDArray

from acon_core.checkpoint import Checkpoint, NetworkQuery
from acon_core.checkpoint.codecs import safetensors_file
from acon_core.checkpoint.reading import read_checkpoint
from acon_core.errors import AconError
from acon_core.networks import as_tuples
from acon_core.spec import Graph, Node, deterministic, join, named_params
from acon_core.verification.run import allow_imports_from, build_model

OUTPUT, TRAINED, STATISTIC, LAYER = "output", "trained", "statistic/", "layer/"


def weighted_layers(node: Node, path: str = "") -> Iterator[str]:
    """Yield the paths of the outputs of the outermost layers with parameters."""
    if not isinstance(node, Graph):
        return
    for step in node.steps:
        child = node.children[step.child]
        if isinstance(child, Graph):
            yield from weighted_layers(child, join(path, step.child))
        elif named_params(child):
            yield from (join(path, output) for output in step.outputs)


def run_worker(checkpoint: Checkpoint, probe: Checkpoint, backend: str, x: NDArray, probe_x: NDArray) -> dict[str, NDArray]:
    """Return what a backend computes, by name.

    The outputs for `x` in evaluation and in training, the running statistics after the training
    step, and the layer outputs of `probe` for `probe_x`. Dropout and stochastic depth have rate 0.
    """
    network = checkpoint.network
    model, dtype = build_model(checkpoint, backend)
    results = {OUTPUT: model(x.astype(dtype)).y}
    graph = deterministic(network.graph)
    assert isinstance(graph, Graph)  # deterministic maps a graph to a graph
    model, dtype = build_model(replace(checkpoint, network=replace(network, graph=graph)), backend)
    results[TRAINED] = model(x.astype(dtype), train=True).y
    state = model.state()
    results |= {STATISTIC + path: state[path] for path, param in named_params(graph).items() if param.kind == "statistic"}
    model, dtype = build_model(probe, backend)
    taps = list(weighted_layers(network.graph))
    layers = model(probe_x.astype(dtype), taps=taps).taps
    return results | {LAYER + tap: layers[tap] for tap in taps}


def write_request(folder: Path, files: Mapping[str, Path], query: NetworkQuery, inputs: Mapping[str, NDArray]) -> None:
    """Write what `main` reads: the two files, the query for both, and the inputs."""
    request = {"files": {name: str(path.absolute()) for name, path in files.items()}, "query": asdict(query)}
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    safetensors_file.write(folder / "inputs.safetensors", inputs)


def main(backend: str, folder: str, import_path: str | None = None) -> None:
    """Run the request in `folder`. On an error, print one line and exit with status 2.

    `import_path`: the folder of a user's own function.
    """
    if import_path is not None:
        allow_imports_from(Path(import_path))
    path = Path(folder)
    request = json.loads((path / "request.json").read_text(encoding="utf-8"))
    fields = request["query"]
    try:
        query = NetworkQuery(**{**fields, "options": as_tuples(fields["options"])})
        checkpoint, probe = (read_checkpoint(request["files"][name], query) for name in ("file", "probe"))
        inputs = safetensors_file.read(path / "inputs.safetensors").tensors
        results = run_worker(checkpoint, probe, backend, **inputs)
    except AconError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    safetensors_file.write(path / "results.safetensors", results)
