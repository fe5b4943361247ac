"""fuse and fold preserve the outputs: on specs, on checkpoints and on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from acon_core import spec
from acon_core.checkpoint import NetworkQuery, convert, metadata, read_network
from acon_core.checkpoint.formats import format_named
from acon_core.errors import SpecError
from acon_core.networks import create
from acon_core.random import Stream
from acon_core.reference import forward

KNOTS = np.array([-3.0, 0.0, 3.0, -3.5, 3.5, -1.5, 1.5, -0.0, 1e-8, -100.0, 100.0])


def perturbed_state(node: spec.Node, seed: int = 0) -> dict[str, np.ndarray]:
    """Return a float64 state without initial values, with positive variances."""
    state = {}
    for path, param in spec.named_params(node).items():
        low = 0.5 if path.endswith(("running_var", "weight")) and "fc" not in path and "conv" not in path else -0.9
        random = Stream("fusion", seed, path)
        state[path] = np.full(param.shape, 7) if param.integer else random.uniform(param.shape, low, 1.5)
    return state


@pytest.mark.parametrize("variant", [1, 2, 3])
@pytest.mark.parametrize("shape", [(3, 7), (2, 3, 5, 4)])
def test_repact_closed_form_matches_its_branches(variant: int, shape: tuple[int, ...]) -> None:
    """Against the four branches computed one by one, at and between the kinks, with gradients."""
    node = spec.RepAct(variant=variant)  # type: ignore[arg-type]
    state = perturbed_state(node)
    x = np.concatenate([KNOTS, Stream("x").uniform((np.prod(shape),), -6, 6)])[: np.prod(shape)].reshape(shape)
    w, alpha = state["weights"], state["alpha"]
    w = np.exp(w) / np.exp(w).sum() if variant == 2 else w
    expected = w[0] * x + w[1] * np.maximum(x, 0) + w[2] * np.where(x > 0, x, alpha * x)
    expected = expected + w[3] * x * np.minimum(np.maximum(x + 3, 0), 6) / 6
    if variant == 3:
        normal = (expected - state["norm.running_mean"]) / np.sqrt(state["norm.running_var"] + 1e-5)
        expected = state["norm.weight"] * normal + state["norm.bias"]
    fused, small = spec.fuse(node, state)
    assert type(fused) is spec.FusedRepAct
    assert list(small) == ["identity", "relu", "hardswish", "shift"][: 4 if variant == 3 else 3]
    before, after = (forward(*pair, [x]) for pair in ((node, state), (fused, small)))
    np.testing.assert_allclose(before.values[0], expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    np.testing.assert_allclose(after.values[0], expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    cotangent = (Stream("g").uniform(shape, -1, 1),)
    np.testing.assert_allclose(after.vjp(cotangent).inputs[0], before.vjp(cotangent).inputs[0], rtol=0, atol=1e-13)


def test_repact_has_three_degrees_of_freedom() -> None:
    """Two states of RepAct I that differ in every weight compute the same function."""
    one = {"weights": np.array([0.1, 0.2, 0.5, 0.7]), "alpha": np.array([0.25])}
    other = {"weights": np.array([0.125, 0.275, 0.4, 0.7]), "alpha": np.array([0.25])}
    first, second = (spec.fuse(spec.RepAct(), state)[1] for state in (one, other))
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, atol=1e-15)


@pytest.mark.parametrize("channels", [6, 40])
def test_fold_preserves_outputs_and_saves_parameters(channels: int) -> None:
    node = spec.MetaAconC(channels, reduction=4)
    state = perturbed_state(node)
    folded, small = spec.fold(node, state)
    assert folded == spec.MetaAconC(channels, reduction=4, norm="none")
    x = Stream("x").uniform((3, channels, 4, 5), -3, 3)
    np.testing.assert_allclose(forward(folded, small, [x]).values[0], forward(node, state, [x]).values[0], rtol=0, atol=1e-12)
    hidden = max(4, channels // 4)
    assert spec.count(node).parameters - spec.count(folded).parameters == 2 * (hidden + channels)


def test_fuse_network_preserves_names_and_outputs() -> None:
    graph = create("acon/shufflenet_v2_x0_5", "repact(variant=3)", 5).graph
    state = spec.initial_state(graph, 3, "float64")
    state = {path: value if value.dtype == np.int64 else value + 0.1 for path, value in state.items()}
    fused, small = spec.fuse(graph, state)
    assert list(small) == list(spec.named_params(fused))
    assert list(spec.named_params(fused)) == list(
        spec.named_params(create("acon/shufflenet_v2_x0_5", "fused_repact(shift=true)", 5).graph)
    )
    x = Stream("x").uniform((2, 3, 32, 48), -1, 1)
    before, after = forward(graph, state, [x]).values[0], forward(fused, small, [x]).values[0]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-12 * np.abs(before).max())
    for path, value in state.items():
        if path in small:
            assert small[path] is value, f"{path} was touched"


def test_nothing_to_do_is_refused() -> None:
    graph = create("acon/shufflenet_v2_x0_5", "relu", 5).graph
    state = spec.initial_state(graph)
    with pytest.raises(SpecError, match="fuse: nothing to do: the network has no RepAct"):
        spec.fuse(graph, state)
    with pytest.raises(SpecError, match="fold: nothing to do: the network has no Meta-ACON with norm=batch"):
        spec.fold(graph, state)


@pytest.mark.parametrize(
    ("operation", "act", "expected"),
    [
        (spec.fuse, "repact(variant=1)", "fused_repact"),
        (spec.fuse, "repact(variant=3)", "fused_repact(shift=true)"),
        (spec.fold, "meta_acon(reduction=8)", "meta_acon(reduction=8, norm=none)"),
    ],
)
def test_convert_with_transform(operation, act, expected, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    network = create("acon/shufflenet_v2_x0_5", act, 7)
    state = {
        path: value if value.dtype == np.int64 else value + np.float32(0.05)
        for path, value in spec.initial_state(network.graph, 1).items()
    }
    torch = format_named("torch")
    torch.codec.write(tmp_path / "a.pth", torch.layout.to_native(network.graph, state), metadata(network))
    done = convert(tmp_path / "a.pth", tmp_path / "b.pdparams", query=NetworkQuery(act=act), transform=operation)
    assert any("parameters; the outputs" in note for note in done.notes)
    found = read_network(tmp_path / "b.pdparams")
    assert spec.activation_name(found.network.activation) == expected
    x = Stream("x").uniform((2, 3, 32, 40), -1, 1)
    before, after = (forward(*pair, [x]).values[0] for pair in ((network.graph, state), (found.network.graph, found.state)))
    np.testing.assert_allclose(after, before, rtol=0, atol=2e-6 * np.abs(before).max())


def test_command_line(tmp_path: Path) -> None:
    network = create("acon/shufflenet_v2_x0_5", "repact(variant=2)", 7)
    safetensors = format_named("safetensors")
    safetensors.codec.write(tmp_path / "a.safetensors", spec.initial_state(network.graph), metadata(network))

    def acon(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "acon_core.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = acon("fuse", tmp_path / "a.safetensors", tmp_path / "b.msgpack")
    assert done.returncode == 0, done.stderr
    assert "parameters; the outputs" in done.stdout
    assert "b.msgpack (jax): acon/shufflenet_v2_x0_5 with fused_repact, 7 classes" in done.stdout
    refused = acon("fold", tmp_path / "a.safetensors", tmp_path / "c.msgpack")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "a.safetensors: fold: nothing to do" in refused.stderr
    assert not (tmp_path / "c.msgpack").exists()
