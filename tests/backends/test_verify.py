"""`acon convert --verify` with the framework of this environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from acon_core import backends, spec
from acon_core.backends import Backend
from acon_core.checkpoint import NetworkQuery, convert, formats, metadata
from acon_core.errors import AconError, StateError
from acon_core.layout import Slot
from acon_core.networks import Preprocessing, create
from acon_core.verification.verify import verify

QUERY = NetworkQuery("test_verify:square")


def square() -> spec.Graph:
    """Build a network with square weights, whose shapes do not change when transposed."""
    return spec.sequential(
        conv=spec.Conv2d(3, 5, 3, 2, 1),
        norm=spec.BatchNorm(5),
        act=spec.AconC(5),
        point=spec.Conv2d(5, 5, 1),
        norm2=spec.BatchNorm(5),
        pool=spec.GlobalAvgPool(),
        flatten=spec.Flatten(),
        fc=spec.Linear(5, 5),
    )


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Backend) -> Path:
    """Write the network as a file, in a folder where the worker finds its function."""
    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr("acon_core.verification.verify.ENVIRONMENTS", tmp_path / "none")
    for name in formats():
        monkeypatch.delenv(f"ACON_PYTHON_{name.upper()}", raising=False)
    path = tmp_path / "a.safetensors"
    formats()["safetensors"].codec.write(path, spec.initial_state(square(), 3))
    return path


def test_verify(source: Path, backend: Backend) -> None:
    for to in (backend.name, "npz"):
        done = convert(source, source.parent / to, to, QUERY, verify=verify)
        (told,) = (note for note in done.notes if f"verified: {backend.name} agrees" in note)
        for what in ("outputs", "outputs in training", "running means", "running variances", "layers with probe", "(6 layers)"):
            assert what in told
        assert any("not available" in note and backend.name not in note for note in done.notes)


@pytest.mark.parametrize(
    ("name", "act", "options"),
    [
        ("acon/shufflenet_v2_x0_5", "meta_acon", {"repeats": (1, 1, 1)}),
        # The network whose layers amplify rounding most.
        ("repact/mobilenet_v3_small", None, {}),
    ],
)
def test_published_network_in_own_format(
    backend: Backend, source: Path, name: str, act: str | None, options: dict[str, tuple[int, ...]]
) -> None:
    network = create(name, act, 3, **options)
    path = source.parent / "b.safetensors"
    formats()["safetensors"].codec.write(path, spec.initial_state(network.graph, 7), metadata(network))
    done = convert(path, source.parent / "c", backend.name, verify=verify)
    assert any(f"verified: {backend.name} agrees" in note for note in done.notes)


def test_large_input_range(source: Path, backend: Backend) -> None:
    contract = Preprocessing("RGB", (0.0, 1e30), (4e29, 5e29, 6e29), (2e29, 3e29, 4e29), 64, 72)
    done = convert(source, source.parent / "b", backend.name, QUERY, preprocessing=contract, verify=verify)
    assert any(f"verified: {backend.name} agrees" in note for note in done.notes)


MINE = """
from acon_core import spec

def network():
    conv, fc = spec.Conv2d(3, 5, 3), spec.Linear(5, 7)
    return spec.sequential(conv=conv, pool=spec.GlobalAvgPool(), flatten=spec.Flatten(), fc=fc)
"""


@pytest.mark.parametrize("name", ["acon/dcn", "mine:network"])
def test_imports_from_the_current_folder(source: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Installed modules take precedence over those in the current folder."""
    folder = source.parent / "downloaded"
    package = folder / backends.packages()[backend.name]
    package.mkdir(parents=True)
    ran = folder / "ran"
    for module in (folder / "numpy.py", folder / "json.py", package / "__init__.py"):
        module.write_text(f"open({str(ran)!r}, 'w').close()\nraise SystemExit('run from the current folder')\n")
    (folder / "mine.py").write_text(MINE)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    monkeypatch.setenv(f"ACON_PYTHON_{backend.name.upper()}", os.path.relpath(sys.executable, folder))
    graph = create(name).graph
    formats()["safetensors"].codec.write(Path("a.safetensors"), spec.initial_state(graph, 3))
    done = convert("a.safetensors", "b", backend.name, NetworkQuery(name), verify=verify)
    assert any(f"verified: {backend.name} agrees" in note for note in done.notes)
    assert not ran.exists()


def with_swapped_axes(slot: Slot, axes: tuple[int, ...]) -> Slot:
    """Swap two axes in both directions of a slot, so that a round trip is exact."""
    swap: Callable[[NDArray], NDArray] = lambda array: array.transpose(axes)  # noqa: E731
    return Slot(slot.name, lambda array: swap(slot.to_native(array)), lambda array: slot.to_canonical(swap(array)))


@pytest.mark.parametrize(("kind", "layer"), [(spec.Linear, "fc"), (spec.Conv2d, "point")])
def test_untransposed_square_weight(
    source: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch, kind: type[spec.Node], layer: str
) -> None:
    """The state is symmetric and its outputs are right, so only the probe shows the error."""
    graph = square()
    state = spec.initial_state(graph, 3)
    for path in ("fc.weight", "point.weight"):
        matrix = state[path].reshape(5, 5)
        state[path] = ((matrix + matrix.T) / 2).reshape(state[path].shape)
    formats()["safetensors"].codec.write(source, state)
    layout = formats()[backend.name].layout
    honest = layout.slots

    def slots(node: spec.Node) -> dict[str, Slot | None]:
        found = dict(honest(node))
        if type(node) is kind and node == graph.children[layer]:
            slot = found["weight"]
            assert slot is not None
            shape = slot.to_native(np.broadcast_to(np.int8(0), node.params["weight"].shape)).shape
            first, second = [axis for axis, size in enumerate(shape) if size == 5]
            axes = list(range(len(shape)))
            axes[first], axes[second] = second, first
            found["weight"] = with_swapped_axes(slot, tuple(axes))
        return found

    monkeypatch.setattr(layout, "slots", slots)
    convert(source, source.parent / "unproven", backend.name, QUERY)
    with pytest.raises(StateError, match=rf"layer/{layer} on {backend.name} differs by "):
        convert(source, source.parent / "b", backend.name, QUERY, verify=verify)
    assert not (source.parent / "b").exists()


def test_missing_interpreter(source: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ACON_PYTHON_{backend.name.upper()}", "/no/such/python")
    with pytest.raises(AconError, match="/no/such/python cannot be started"):
        convert(source, source.parent / "b", backend.name, QUERY, verify=verify)


def test_failing_worker(source: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ACON_PYTHON_{backend.name.upper()}", sys.executable)
    monkeypatch.chdir(source.parent)  # the function cannot be imported from here
    with pytest.raises(Exception, match=r"could not run it: .*test_verify"):
        convert(source, source.parent / "b", backend.name, QUERY, verify=verify)
    assert not (source.parent / "b").exists()
