"""Other sizes of the published networks: made by options, recognised from the shapes in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_checkpoints import same_bits, write_state

from acon_core import spec
from acon_core.checkpoint import NetworkQuery, convert, formats, read_network
from acon_core.checkpoint.formats import format_named
from acon_core.checkpoint.recognise import recognise
from acon_core.errors import SpecError, UnknownNetworkError
from acon_core.networks import Network, create

# Options that the shapes show, by network and activation.
SIZES: list[tuple[str, str | None, dict[str, Any]]] = [
    ("acon/resnet50", "acon_c", {"groups": 32, "width_per_group": 4}),
    ("acon/resnet50", "meta_acon", {"groups": 3, "width_per_group": 20, "repeats": (1, 2, 1, 1)}),
    ("acon/resnet101", "relu", {"groups": 32, "width_per_group": 8}),
    ("acon/resnet152", "acon_c", {"width_per_group": 128}),
    ("acon/resnet18", "acon_c", {"repeats": (1, 1, 2, 1), "cifar_stem": True}),
    ("acon/resnet34", "acon_c", {"cifar_stem": True, "in_channels": 1}),
    ("torchvision/resnet50", None, {"groups": 32, "width_per_group": 4}),
    ("torchvision/resnet50", None, {"width_per_group": 128, "cifar_stem": True}),
    ("acon/shufflenet_v2_x1_5", "acon_c", {"in_channels": 4}),
    ("acon/tfnet_0_5", "acon_frelu", {"in_channels": 1}),
    ("repact/shufflenet_v2_x0_5", "repact", {"repeats": (1, 3, 2), "channels": (24, 176, 352, 704, 1024)}),
    ("repact/shufflenet_v2_x1_0", "repact", {"repeats": (2, 3, 1)}),
    ("repact/mobilenet_v3_large", "repact", {"reduced_tail": True}),
    ("torchvision/mobilenet_v3_small", None, {"reduced_tail": True, "in_channels": 1}),
    ("repact/swin_tiny_patch4_window7_224", "repact", {"depths": (2, 2, 18, 2), "embed_dim": 128}),
    ("repact/swin_tiny_patch4_window7_224", "repact", {"depths": (1, 2, 1, 1), "embed_dim": 48, "num_heads": (2, 3, 4, 6)}),
    ("repact/swin_tiny_patch4_window7_224", "repact", {"depths": (1, 1, 1, 1), "window_size": 5, "patch_size": 2}),
    ("timm/swin_tiny_patch4_window7_224", None, {"depths": (2, 2, 18, 2), "embed_dim": 128, "window_size": 12}),
    ("repact/vit_base_patch16_224", "repact", {"patch_size": 32, "depth": 2}),
    ("repact/vit_base_patch16_224", "relu", {"embed_dim": 1024, "depth": 24}),
    (
        "repact/vit_base_patch16_224",
        "repact",
        {"image_size": 32, "patch_size": 4, "embed_dim": 192, "depth": 3, "in_channels": 1},
    ),
    ("timm/vit_base_patch16_224", None, {"patch_size": 32}),
]
IDS = [f"{name.rpartition('/')[2]}-{index}" for index, (name, _, _) in enumerate(SIZES)]
# Names and shapes are those of several networks; the error asks.
ASKED = {"torchvision/mobilenet_v3_small", "timm/swin_tiny_patch4_window7_224", "timm/vit_base_patch16_224"}


def native_shapes(network: Network, format: str) -> dict[str, tuple[int, ...]]:
    return format_named(format).layout.native_shapes(network.graph)


@pytest.mark.parametrize("format", ["torch", "jax", "paddle", "megengine"])
@pytest.mark.parametrize(("name", "act", "options"), SIZES, ids=IDS)
def test_recognised(name: str, act: str | None, options: dict[str, Any], format: str) -> None:
    network = create(name, act, 5, **options)
    dialect = "timm" if name.startswith("timm/swin") else None
    layout = format_named(format)
    query = NetworkQuery(name if name in ASKED else None, act)
    _, found = recognise(layout, native_shapes(network, format), query)
    assert (found.name, found.num_classes, dict(found.options)) == (name, 5, options), dialect
    assert native_shapes(found, format) == native_shapes(network, format)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_published_depths_have_no_options(name: str) -> None:
    network = create(f"acon/{name}")
    assert not recognise(format_named("torch"), native_shapes(network, "torch"), NetworkQuery())[1].options
    with pytest.raises(UnknownNetworkError):
        recognise(format_named("torch"), native_shapes(network, "torch"), NetworkQuery("acon/resnet50", act="relu"))


# As torchvision and timm state them, for 1000 classes: ResNeXt-50 32x4d, -101 32x8d and -101 64x4d,
# Wide ResNet-50-2 and -101-2, Swin-S, -B and -L, ViT-B/32, -L/16 and -L/32. With windows of 12, the
# tables of the 376 heads of Swin-B have 23^2 - 13^2 more rows.
PARAMETERS: list[tuple[str, dict[str, Any], int]] = [
    ("torchvision/resnet50", {"groups": 32, "width_per_group": 4}, 25_028_904),
    ("torchvision/resnet101", {"groups": 32, "width_per_group": 8}, 88_791_336),
    ("torchvision/resnet101", {"groups": 64, "width_per_group": 4}, 83_455_272),
    ("torchvision/resnet50", {"width_per_group": 128}, 68_883_240),
    ("torchvision/resnet101", {"width_per_group": 128}, 126_886_696),
    ("timm/swin_tiny_patch4_window7_224", {"depths": (2, 2, 18, 2)}, 49_606_258),
    ("timm/swin_tiny_patch4_window7_224", {"depths": (2, 2, 18, 2), "embed_dim": 128}, 87_768_224),
    (
        "timm/swin_tiny_patch4_window7_224",
        {"depths": (2, 2, 18, 2), "embed_dim": 128, "window_size": 12},
        87_768_224 + 360 * 376,
    ),
    ("timm/swin_tiny_patch4_window7_224", {"depths": (2, 2, 18, 2), "embed_dim": 192}, 196_532_476),
    ("timm/vit_base_patch16_224", {"patch_size": 32}, 88_224_232),
    ("timm/vit_base_patch16_224", {"depth": 24, "embed_dim": 1024}, 304_326_632),
    ("timm/vit_base_patch16_224", {"depth": 24, "embed_dim": 1024, "patch_size": 32}, 306_535_400),
]


@pytest.mark.parametrize(("name", "options", "parameters"), PARAMETERS)
def test_published_counts(name: str, options: dict[str, Any], parameters: int) -> None:
    assert spec.count(create(name, **options).graph).parameters == parameters


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("acon/resnet18", {"groups": 2}, "basic blocks, which have one group of width 64"),
        ("acon/resnet50", {"groups": 0}, "expected positive groups"),
        ("acon/resnet50", {"repeats": (1, 1, 1)}, "expected 4 repeats"),
        ("acon/resnet50", {"in_channels": 0}, "at least one channel"),
        ("repact/shufflenet_v2_x0_5", {"channels": (24, 49, 96, 192, 1024)}, "expected 5 channels, those of stages even"),
        ("repact/swin_tiny_patch4_window7_224", {"num_heads": (3, 6, 12)}, "expected 3 depths"),
        ("repact/swin_tiny_patch4_window7_224", {"num_heads": (5, 6, 12, 24)}, "5 heads do not divide the 96 channels"),
        ("repact/swin_tiny_patch4_window7_224", {"window_size": 0}, "expected window_size of at least 1"),
        ("repact/vit_base_patch16_224", {"num_heads": 7}, "7 heads do not divide embed_dim 768"),
        ("repact/vit_base_patch16_224", {"patch_size": 15}, "expected an image_size that is a multiple of 15"),
        ("acon/dcn", {"groups": 2}, "'groups' is not an option"),
    ],
)
def test_impossible_sizes(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        create(name, **options)


def test_round_trip(tmp_path: Path) -> None:
    """Through every format: those without metadata are recognised by their shapes again."""
    options = {"groups": 3, "width_per_group": 8, "repeats": (1, 1, 1, 1), "cifar_stem": True, "in_channels": 2}
    state = spec.initial_state(create("acon/resnet50", "acon_c", 3, **options).graph, 5)
    path = write_state(tmp_path / "a.pth", state)
    for index, format in enumerate(("megengine", "jax", "safetensors", "paddle", "npz", "torch")):
        convert(path, tmp_path / f"{index}", format)
        path = tmp_path / f"{index}"
        found = read_network(path)
        assert found.network.options == options
        assert found.network.input_shape == (1, 2, 224, 224)
    for name, array in state.items():
        assert name.endswith("num_batches_tracked") or same_bits(found.state[name], array), name
    assert any("3x3 stem is taken to have stride 1" in note for note in found.notes)


def test_heads_are_an_option(tmp_path: Path) -> None:
    sizes = {"image_size": 8, "patch_size": 4, "embed_dim": 96, "depth": 1}
    network = create("repact/vit_base_patch16_224", "repact", 3, **sizes)
    write_state(tmp_path / "a.pth", spec.initial_state(network.graph))
    taken = read_network(tmp_path / "a.pth", act="repact")
    assert any("attention heads: taken as 1; pass num_heads" in note for note in taken.notes)
    said = read_network(tmp_path / "a.pth", act="repact", num_heads=4)
    assert said.network.options == {**sizes, "num_heads": 4}
    assert not any("heads" in note for note in said.notes)
    convert(tmp_path / "a.pth", tmp_path / "b.safetensors", query=NetworkQuery(act="repact", options={"num_heads": 4}))
    assert read_network(tmp_path / "b.safetensors").network.options == said.network.options


@pytest.mark.parametrize(
    "shape", [(0, 3, 4, 4), (96, 3, 0, 0), (10**6, 3, 4, 4), (96, 3, 4), (96,), (), (96, 10**6, 4, 4)], ids=str
)
def test_shapes_that_make_no_network(shape: tuple[int, ...]) -> None:
    for name in ("repact/swin_tiny_patch4_window7_224", "repact/vit_base_patch16_224"):
        shapes = {**native_shapes(create(name), "torch"), "patch_embed.proj.weight": shape}
        with pytest.raises(UnknownNetworkError, match="no network has exactly"):
            recognise(format_named("torch"), shapes, NetworkQuery(name))
    shapes = {**native_shapes(create("acon/resnet50"), "torch"), "layer1.0.conv1.weight": shape, "conv1.weight": shape}
    with pytest.raises(UnknownNetworkError, match="no network has exactly"):
        recognise(format_named("torch"), shapes, NetworkQuery())


def test_large_windows_are_not_made() -> None:
    network = create("repact/swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1))
    shapes = {**native_shapes(network, "torch")}
    for name in shapes:
        if name.endswith("bias_table"):
            shapes[name] = (599**2, shapes[name][1])
    with pytest.raises(UnknownNetworkError, match="no network has exactly"):
        recognise(format_named("torch"), shapes, NetworkQuery())


def test_metadata_of_sizes(tmp_path: Path) -> None:
    options = {"depths": (1, 1, 1, 1), "embed_dim": 32, "num_heads": (1, 1, 2, 4), "window_size": 3}
    network = create("repact/swin_tiny_patch4_window7_224", "repact", 3, **options)
    write_state(tmp_path / "a.pth", spec.initial_state(network.graph))
    convert(tmp_path / "a.pth", tmp_path / "b.safetensors", query=NetworkQuery(act="repact"))
    again = read_network(tmp_path / "b.safetensors")
    assert again.network.options == options
    assert formats()["safetensors"].codec.read(tmp_path / "b.safetensors").metadata["network"] == network.name
    assert np.isfinite(again.state["head.weight"]).all()
