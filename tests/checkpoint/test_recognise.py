"""Recognition: the network whose tensors are in the file, or an error that says what to pass."""

from __future__ import annotations

from itertools import filterfalse
from pathlib import Path

import own_networks
import pytest
from own_networks import small as small_of_one_s_own
from small_checkpoints import leaves, small, write

from acon_core import spec
from acon_core.checkpoint import read_network, recognise
from acon_core.checkpoint.formats import format_named
from acon_core.errors import AconError, SpecError
from acon_core.networks import NETWORKS, create, keeps_activations


@pytest.mark.parametrize("name", ["acon/shufflenet_v2_x0_5", "acon/shufflenet_v2_x1_5"])
@pytest.mark.parametrize("act", ["acon_c", "meta_acon", "meta_acon(reduction=16, norm=none)", "meta_acon(reduction=4)"])
@pytest.mark.parametrize("format", ["torch", "megengine", "jax"])
def test_network_activation_and_classes(tmp_path: Path, name: str, act: str, format: str) -> None:
    network, state = small(name, act, classes=13)
    path = tmp_path / "a"
    made = format_named(format)
    made.codec.write(path, made.layout.to_native(network.graph, state), {})
    found = read_network(path).network
    assert (found.name, found.num_classes) == (name, 13)
    assert found.activation == network.activation


def test_ambiguous_activation(tmp_path: Path) -> None:
    network, state = small("acon/shufflenet_v2_x0_5", "relu")
    path = tmp_path / "a.pth"
    format_named("torch").codec.write(path, state, {})
    with pytest.raises(
        AconError, match=r"a\.pth: the tensors are ambiguous: 14 networks have these names.*relu.*silu.*pass --act"
    ):
        read_network(path)
    assert read_network(path, act="silu").network.activation == spec.SiLU()
    assert read_network(write(tmp_path / "b", "safetensors", network, state)).network.activation == spec.ReLU()


DILATED = {"replace_stride_with_dilation": (False, False, True)}


def test_options(tmp_path: Path) -> None:
    network, state = small("acon/resnet50", "acon_c")
    path = write(tmp_path / "a", "torch", network, state)
    dilated = create("acon/resnet50", "acon_c", 3, **DILATED)
    assert leaves(read_network(path).network) == leaves(network) != leaves(dilated)
    assert leaves(read_network(path, **DILATED).network) == leaves(dilated)
    assert leaves(read_network(path, "acon/resnet50", **DILATED).network) == leaves(dilated)
    for options, message in (
        ({"depth_wise": True}, r"a: network 'acon/resnet50': 'depth_wise' is not an option"),
        ({"replace_stride_with_dilation": 1}, r"cannot be made with replace_stride_with_dilation=1"),
        ({"num_classes": 3}, r"a: num_classes is not an option of a network in a file; omit it"),
    ):
        with pytest.raises(SpecError, match=message):
            read_network(path, **options)
    path = write(tmp_path / "b", "safetensors", create("acon/resnet50", "acon_c", 3, **DILATED), state)
    plain = {"replace_stride_with_dilation": (False, False, False)}
    assert leaves(read_network(path, **plain).network) == leaves(network)


@pytest.mark.parametrize("given", [{"act": "relu"}, {"num_classes": 3}, {"depth": 2}])
def test_own_function_takes_no_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, object]) -> None:
    monkeypatch.syspath_prepend(str(Path(own_networks.__file__).parent))
    with pytest.raises(SpecError, match=f"takes no {next(iter(given))}; set it inside the function, which takes no arguments"):
        create("own_networks:small", **given)  # type: ignore[arg-type]
    format_named("torch").codec.write(tmp_path / "a", spec.initial_state(small_of_one_s_own()), {})
    with pytest.raises(SpecError, match=r"a: .*takes no arguments|a: num_classes is not an option"):
        read_network(tmp_path / "a", "own_networks:small", **given)  # type: ignore[arg-type]


def test_refused_activations() -> None:
    """Recognition skips only these pairs, which have no spatial axes for a funnel activation."""
    refused = set()
    for name in filterfalse(keeps_activations, NETWORKS):
        for act in recognise.CANDIDATES:
            try:
                create(name, act, 3)
            except SpecError:
                refused.add((name, act))
    assert refused == {("repact/vit_base_patch16_224", act) for act in ("frelu", "acon_frelu")}


def test_candidates_with_equal_tensors() -> None:
    shapes = {}
    for act in recognise.CANDIDATES:
        nodes = [spec.bind(spec.activation(act), width) for width in (recognise.WIDTH, 24, 58, 1024)]
        shapes[act] = [{path: param.shape for path, param in spec.named_params(node).items()} for node in nodes]
    for first, (one, *others) in shapes.items():
        for second, (same, *more) in shapes.items():
            assert one != same or others == more, (first, second)
