"""Files of torchvision, timm and PaddleClas: names, recognition and outputs.

The expected values are in published.json, which pin_published.py writes from those packages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from published_networks import CLASSES, PINNED, RUN, WHOLE, digest, filled, image

from acon_core import spec
from acon_core.checkpoint import NetworkQuery, convert, formats, read_file, read_network
from acon_core.checkpoint.convert import Checkpoint
from acon_core.checkpoint.dialects import DIALECTS
from acon_core.checkpoint.formats import Format, format_named
from acon_core.checkpoint.recognise import recognise
from acon_core.errors import AconError, CheckpointError, SpecError
from acon_core.networks import NETWORKS, create, keeps_activations
from acon_core.reference import forward

STORED = json.loads(PINNED.read_text())
RESNET, SWIN = "paddleclas/resnet18", "timm/swin_tiny_patch4_window7_224"
SMALL_SWIN = {"depths": (1, 2, 1, 2)}


def entry(name: str) -> str:
    """Return the registered name. PaddleClas's deeper ResNets are torchvision's."""
    return name if name in NETWORKS else name.replace("paddleclas", "torchvision")


def package_format(name: str, format: str = "") -> Format:
    """Return the package's own format and names, or its names in another format."""
    package = name.partition("/")[0]
    dialect = "" if package == "timm" and "swin" not in name else package
    given = format_named(format or ("paddle" if package == "paddleclas" else "torch"))
    return Format(given.name, given.codec, given.backend, DIALECTS.get(dialect))


def write_file(folder: Path, name: str, prefix: str = "", drawn: bool = False, **options: object) -> Path:
    """Write a file as the package would; `drawn` selects other values for every tensor."""
    format = package_format(name)
    shapes = format.layout.native_shapes(create(entry(name), num_classes=CLASSES, **options).graph)
    values = filled(shapes) if drawn else {key: np.full(shape, 0.5, np.float16) for key, shape in shapes.items()}
    values |= {key: np.array(5) for key in shapes if key.endswith("num_batches_tracked")}
    path = folder / f"{format.name}-{name.rpartition('/')[2]}"
    format.codec.write(path, {prefix + key: value for key, value in values.items()}, {})
    return path


@pytest.mark.parametrize("name", WHOLE)
def test_names_and_shapes(name: str) -> None:
    assert digest(package_format(name).layout.native_shapes(create(entry(name)).graph)) == STORED[name]["whole"]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_function(tmp_path: Path, name: str) -> None:
    """Compare with the outputs of the package's own module, in float64."""
    options, size = RUN[name]
    shapes = package_format(name).layout.native_shapes(create(entry(name), num_classes=CLASSES, **options).graph)
    assert digest(shapes) == STORED[name]["run"]
    found = read_network(write_file(tmp_path, name, drawn=True, **options), entry(name), **options)
    assert (found.network.name, found.network.num_classes) == (entry(name), CLASSES)
    outputs = forward(found.network.graph, found.state, [image(size)]).values[0].ravel()
    expected = np.array(STORED[name]["outputs"])
    # PaddleClas's norm keeps its eps as a float32.
    bound = 1e-11 if "paddle" in name else 1e-13
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=bound * np.abs(expected).max())
    assert np.abs(expected).min() > 1e-3 * np.abs(expected).max()


def test_recognised(tmp_path: Path) -> None:
    for name in (
        "torchvision/resnet18",
        "torchvision/shufflenet_v2_x1_5",
        "timm/swin_tiny_patch4_window7_224",
    ):
        found = read_network(write_file(tmp_path, name))
        assert (found.network.name, found.network.num_classes) == (name, CLASSES)
        dialect = DIALECTS["timm"] if "swin" in name else None
        assert found.format.dialect == dialect
        notes = ["recognised the tensor names of timm's Swin (dialect timm)"] if dialect else []
        assert list(found.notes) == notes
    for name in ("paddleclas/resnet34", "paddleclas/resnet50"):
        found = read_network(write_file(tmp_path, name))
        assert (found.network.name, found.network.num_classes) == (entry(name), CLASSES)
        assert found.notes[0] == "recognised the tensor names of PaddleClas's ResNet (dialect paddleclas)"


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("torchvision/mobilenet_v3_small", "repact/mobilenet_v3_small with identity or relu or .*"),
        ("torchvision/shufflenet_v2_x1_0", "repact/shufflenet_v2_x1_0 with identity or relu or .*"),
        ("timm/vit_base_patch16_224", "repact/vit_base_patch16_224 with identity or relu or .*"),
    ],
)
def test_ambiguous_networks(tmp_path: Path, name: str, others: str) -> None:
    options = {"depth": 1} if "vit" in name else {}
    path = write_file(tmp_path, name, **options)
    if not options:
        message = f"the tensors are ambiguous: .*: {others}; {name} as published; pass --network, and --act if several"
        with pytest.raises(AconError, match=message):
            read_network(path)
    assert read_network(path, name, **options).network.name == name
    # With `act`, only the network with the same tensors and a choice of activation matches.
    assert (
        read_network(path, name.replace(name.partition("/")[0], "repact"), "gelu", **options).network.activation == spec.GELU()
    )


def test_act_prefers_networks_that_are_published_with_it(tmp_path: Path) -> None:
    path = write_file(tmp_path, "torchvision/mobilenet_v3_large")
    assert read_network(path, act="relu").network.name == "repact/mobilenet_v3_large"
    found = read_network(write_file(tmp_path, "torchvision/resnet18"), act="silu").network
    assert (found.name, found.activation) == ("torchvision/resnet18", spec.SiLU())
    with pytest.raises(CheckpointError, match=r"nearest is torchvision/resnet18 with acon_c.* is missing"):
        read_network(write_file(tmp_path, "torchvision/resnet18"), act="acon_c")


# With torchvision's activation, and in timm's order of layers, these are the same graphs.
SAME = {
    "torchvision/shufflenet_v2_x0_5": "repact/shufflenet_v2_x0_5",
    "torchvision/mobilenet_v3_small": "repact/mobilenet_v3_small",
    "timm/vit_base_patch16_224": "repact/vit_base_patch16_224",
}


@pytest.mark.parametrize(
    ("name", "options", "places"),
    [
        ("torchvision/resnet18", {}, 16),
        ("torchvision/resnet50", {}, 16),
        ("torchvision/shufflenet_v2_x1_5", {}, 37),
        ("torchvision/shufflenet_v2_x0_5", {}, 37),
        ("torchvision/mobilenet_v3_small", {}, 23),
        ("timm/vit_base_patch16_224", {"depth": 2}, 2),
        (SWIN, SMALL_SWIN, 6),
        (RESNET, {}, 16),
    ],
)
def test_other_activations(tmp_path: Path, name: str, options: dict[str, object], places: int) -> None:
    """`act` stands in the places of the network above, and its files are recognised."""
    made = create(name, "acon_c", 3, **options)
    assert (made.name, made.activation, made.input) == (name, spec.AconC(), create(name, **options).input)
    assert sum(isinstance(node, spec.AconC) for _, node in spec.walk(made.graph)) == places
    published = spec.named_params(create(name, num_classes=3, **options).graph)
    with_acon = spec.named_params(made.graph)
    assert [path for path in with_acon if path in published] == list(published)
    format = package_format(name)
    shapes = format.layout.native_shapes(made.graph)
    format.codec.write(tmp_path / "a", filled(shapes), {})
    query = {"network": name, **options} if options else {}
    found = read_network(tmp_path / "a", **query).network
    assert (found.name, found.activation) == (SAME.get(name, name) if not options else name, spec.AconC())
    assert spec.named_params(found.graph) == with_acon


def test_torchvision_resnet_with_another_activation() -> None:
    """Options make `acon/resnet50` torchvision's graph, so that its weights can be loaded."""
    ours = create("acon/resnet50", "relu", bias=False, stride_on=3).graph
    assert spec.named_params(ours) == spec.named_params(create("torchvision/resnet50").graph)
    state = spec.initial_state(create("torchvision/resnet18", num_classes=3).graph, 2, "float64")
    x = image((48, 64))
    theirs, same = create("torchvision/resnet18", num_classes=3), create("acon/resnet18", "relu", 3, bias=False)
    left, right = (forward(each.graph, state, [x]).values[0] for each in (theirs, same))
    np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers(tmp_path: Path, prefix: str) -> None:
    found = read_network(write_file(tmp_path, RESNET, prefix))
    assert found.network.name == RESNET
    wrappers = {"module.": "DataParallel", "_orig_mod.": "torch.compile"}
    for each in prefix.rstrip(".").split("."):
        assert f"removed the prefix '{each}.' ({wrappers[each + '.']}) from all tensor names" in found.notes
    assert read_network(write_file(tmp_path, RESNET, "model.module.")).network.name == RESNET
    unknown = write_file(tmp_path, RESNET, "trunk.module.")
    with pytest.raises(CheckpointError, match="strip"):
        read_network(unknown)


@pytest.mark.parametrize("format", formats())
@pytest.mark.parametrize(("name", "options"), [(RESNET, {}), ("torchvision/resnet50", {}), (SWIN, SMALL_SWIN)])
def test_dialect_names_in_every_format(format: str, name: str, options: dict[str, object]) -> None:
    graph = create(name, num_classes=3, **options).graph
    plain = format_named(format).layout
    layout = package_format(name.replace("torchvision", "paddleclas"), format).layout
    kept = [native for path, _, native, _ in plain.table(graph) if native and not path.endswith("position_index")]
    shapes = layout.native_shapes(graph)
    assert len(shapes) == len(kept)
    assert sorted(shapes.values()) == sorted(shape for path, shape in plain.native_shapes(graph).items() if path in kept)
    whole = next(native for path, native, _ in layout.places(graph) if path == ("head" if "swin" in name else "layer2.1.conv2"))
    assert whole == ("head.fc" if "swin" in name else f"blocks.{3 if '18' in name else 4}.conv1.conv")


def assert_same_state(one: Checkpoint, other: Checkpoint) -> None:
    for path, array in one.state.items():
        assert path.endswith("num_batches_tracked") or array.tobytes() == other.state[path].tobytes(), path


def test_round_trip(tmp_path: Path) -> None:
    path = write_file(tmp_path, "paddleclas/resnet50", drawn=True)
    convert(path, tmp_path / "a.pth")
    assert list(read_file(tmp_path / "a.pth")[1].tensors)[:2] == ["conv1.weight", "bn1.weight"]
    assert_same_state(read_network(path), read_network(tmp_path / "a.pth"))
    convert(tmp_path / "a.pth", tmp_path / "b.pdparams", to_dialect="paddleclas")
    before, after = (read_file(each)[1].tensors for each in (path, tmp_path / "b.pdparams"))
    assert list(before) == list(after)
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_dialect_of_another_network_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path, "torchvision/resnet18")
    message = r"dialect paddleclas \(PaddleClas's ResNet\) does not apply to torchvision/resnet18; .* paddleclas/resnet\*"
    with pytest.raises(AconError, match=message):
        convert(path, tmp_path / "b.pdparams", to_dialect="paddleclas")
    assert not (tmp_path / "b.pdparams").exists()
    with pytest.raises(AconError, match=r"dialect timm .* does not apply to repact/swin_tiny_patch4_window7_224; .* --network"):
        read_network(write_file(tmp_path, SWIN), "repact/swin_tiny_patch4_window7_224", "gelu", "timm")


def test_act_in_a_dialect(tmp_path: Path) -> None:
    found = read_network(write_file(tmp_path, SWIN), act="gelu", dialect="timm").network
    assert (found.name, found.activation) == (SWIN, spec.GELU())


def test_act_that_the_nearest_network_refuses() -> None:
    torch = format_named("torch")
    shapes = torch.layout.native_shapes(create("timm/vit_base_patch16_224").graph) | {"more": (2,)}
    with pytest.raises(CheckpointError, match="the nearest is repact/vit_base_patch16_224"):
        recognise(torch, shapes, NetworkQuery(act="frelu"))


def test_nearest_network_in_error(tmp_path: Path) -> None:
    path = write_file(tmp_path, SWIN)
    with pytest.raises(CheckpointError, match=r"nearest is torchvision/resnet18, .*'conv1\.weight' is missing"):
        read_network(path, "torchvision/resnet18")


def test_inspect(tmp_path: Path) -> None:
    path = write_file(tmp_path, RESNET)
    command = [sys.executable, "-m", "acon_core.cli", "inspect", str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"network: {RESNET}, {CLASSES} classes" in told
    assert "notes: recognised the tensor names of PaddleClas's ResNet (dialect paddleclas)" in told
    assert "input: RGB, 0 to 1, mean (0.485, 0.456, 0.406)" in told


@pytest.mark.parametrize("act", ["meta_acon(reduction=16, norm=none, generator=first)", "meta_acon(reduction=16, norm=none)"])
def test_older_meta_acons(tmp_path: Path, act: str) -> None:
    """The first commit of the code and YOLOv5 use the names of the spec."""
    names = {"acon/resnet50": "acon/resnet50", "acon/shufflenet_v2_x1_0": "acon/shufflenet_v2_x1_0"}
    for name in names:
        made = create(name, act, 3)
        state = {path: np.full(param.shape, 0.5, np.float16) for path, param in spec.named_params(made.graph).items()}
        state |= {path: np.array(5) for path in state if path.endswith("tracked")}
        if "shufflenet" in name:
            assert state["first_conv.2.fc1.weight"].shape == (1 if "first" in act else 16, 24, 1, 1)
            assert ("first_conv.2.fc1.bias" in state) == ("first" not in act)
        format_named("torch").codec.write(tmp_path / "a.pth", state, {})
        found = read_network(tmp_path / "a.pth").network
        assert (found.name, found.activation) == (name, spec.activation(act))


def test_networks_that_keep_their_activations() -> None:
    families = {name.partition("/")[0] for name in NETWORKS if keeps_activations(name)}
    assert families == {"torchvision", "timm", "paddleclas"}
    assert all(create(name).activation is None for name in NETWORKS if keeps_activations(name))


@pytest.mark.parametrize(
    ("name", "size", "resize"),
    [
        ("timm/swin_tiny_patch4_window7_224", 448, 496),
        ("repact/swin_tiny_patch4_window7_224", 448, 512),
        ("timm/vit_base_patch16_224", 384, 425),
        ("repact/vit_base_patch16_224", 32, 37),
    ],
)
def test_preprocessing_of_another_size(name: str, size: int, resize: int) -> None:
    contract = create(name, image_size=size).input
    assert contract is not None
    assert (contract.size, contract.resize) == (size, resize)


@pytest.mark.parametrize("size", [32, 256, 280, 0])
def test_unsupported_size_of_swin(size: int) -> None:
    """For such sizes timm pads after the shift and RepAct pads before it, so the outputs differ."""
    with pytest.raises(SpecError, match=f"expected an image_size that is a multiple of 224, found {size}"):
        create(SWIN, image_size=size)
