"""The networks of the ACON code: counts, names, strides, initial values, features, docs table."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import filterfalse
from typing import Any

import numpy as np
import pytest
from network_counts import PRINTED, verdict
from repository import DATA, ROOT

from acon_core import spec
from acon_core.checkpoint import read_file
from acon_core.errors import SpecError
from acon_core.networks import NETWORKS, Network, create, dcn, keeps_activations, resnet, tfnet
from acon_core.reference import forward

DOCS = ROOT / "docs" / "networks.md"

# Counted by hooks on the published code: parameters, p1/p2/beta, conv biases, buffers, state keys,
# decayed weights, MACs.
PUBLISHED = {
    ("acon/shufflenet_v2_x0_5", "relu"): (1_370_768, 0, 3_976, 7_952, 394, 1_357_840, 40_476_448),
    ("acon/shufflenet_v2_x0_5", "acon_c"): (1_379_600, 8_832, 3_976, 7_952, 505, 1_357_840, 40_476_448),
    ("acon/shufflenet_v2_x0_5", "meta_acon"): (1_686_620, 5_888, 7_372, 14_744, 986, 1_657_616, 40_776_224),
    ("acon/shufflenet_v2_x1_0", "relu"): (2_287_850, 0, 8_090, 16_180, 394, 2_262_580, 145_814_296),
    ("acon/shufflenet_v2_x1_0", "acon_c"): (2_304_740, 16_890, 8_090, 16_180, 505, 2_262_580, 145_814_296),
    ("acon/shufflenet_v2_x1_0", "meta_acon"): (2_596_384, 11_260, 14_360, 28_720, 986, 2_541_044, 146_092_760),
    ("acon/shufflenet_v2_x1_5", "relu"): (3_519_440, 0, 11_720, 23_440, 394, 3_483_280, 298_970_656),
    ("acon/shufflenet_v2_x1_5", "acon_c"): (3_543_440, 24_000, 11_720, 23_440, 505, 3_483_280, 298_970_656),
    ("acon/shufflenet_v2_x1_5", "meta_acon"): (3_953_842, 16_000, 20_414, 40_828, 986, 3_875_600, 299_362_976),
    ("acon/shufflenet_v2_x2_0", "relu"): (7_420_458, 0, 16_858, 33_716, 394, 7_368_884, 590_783_000),
    ("acon/shufflenet_v2_x2_0", "acon_c"): (7_455_588, 35_130, 16_858, 33_716, 505, 7_368_884, 590_783_000),
    ("acon/shufflenet_v2_x2_0", "meta_acon"): (8_437_946, 23_420, 29_398, 58_796, 986, 8_325_332, 591_739_448),
    ("acon/resnet50", "relu"): (25_583_592, 0, 26_560, 53_120, 373, 25_502_912, 3_857_973_248),
    ("acon/resnet50", "acon_c"): (25_594_920, 11_328, 26_560, 53_120, 421, 25_502_912, 3_857_973_248),
    ("acon/resnet50", "meta_acon"): (25_773_368, 7_552, 30_640, 61_280, 629, 25_672_896, 3_858_143_232),
    ("acon/resnet101", "relu"): (44_601_832, 0, 52_672, 105_344, 730, 44_442_816, 7_570_194_432),
    ("acon/resnet101", "acon_c"): (44_626_216, 24_384, 52_672, 105_344, 829, 44_442_816, 7_570_194_432),
    ("acon/resnet101", "meta_acon"): (44_953_448, 16_256, 61_376, 122_752, 1_258, 44_752_064, 7_570_503_680),
    ("acon/resnet152", "relu"): (60_268_520, 0, 75_712, 151_424, 1_087, 60_040_384, 11_282_415_616),
    ("acon/resnet152", "acon_c"): (60_304_424, 35_904, 75_712, 151_424, 1_237, 60_040_384, 11_282_415_616),
    ("acon/resnet152", "meta_acon"): (60_763_032, 23_936, 88_528, 177_056, 1_887, 60_472_512, 11_282_847_744),
    ("acon/tfnet_0_5", "acon_frelu"): (1_344_504, 0, 5_792, 17_488, 636, 1_320_224, 42_450_560),
    ("acon/tfnet_1_0", "acon_frelu"): (1_923_336, 0, 9_536, 28_832, 636, 1_883_968, 134_805_760),
    ("acon/tfnet_1_5", "acon_frelu"): (2_778_904, 0, 13_280, 40_176, 636, 2_724_448, 278_541_184),
    ("acon/tfnet_2_0", "acon_frelu"): (3_911_208, 0, 17_024, 51_520, 636, 3_841_664, 473_656_832),
    # The notebook's network: parameters as printed by Paddle; buffers and keys by hand.
    ("acon/dcn", "relu"): (158_913, 0, 224, 0, 12, 158_624, 7_493_696),
    ("acon/dcn", "acon_c"): (159_105, 192, 224, 0, 15, 158_624, 7_493_696),
    ("acon/dcn", "meta_acon"): (161_329, 128, 304, 160, 28, 160_672, 7_495_744),
}


@pytest.mark.parametrize(("name", "act"), PUBLISHED)
def test_published_counts(name: str, act: str) -> None:
    network = create(name, act)
    table = spec.named_params(network.graph)
    gates = sum(math.prod(p.shape) for path, p in table.items() if path.rpartition(".")[2] in ("p1", "p2", "beta"))
    counts = spec.count(network.graph, network.input_shape)
    found = (counts.parameters, gates, counts.biases, counts.buffers, counts.state_keys, counts.decayed, counts.macs)
    assert found == PUBLISHED[name, act]


@pytest.mark.parametrize(("depth", "without_biases"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_relu_resnets_have_torchvision_parameter_counts(depth: int, without_biases: int) -> None:
    counts = spec.count(create(f"acon/resnet{depth}", "relu").graph)
    assert counts.parameters - counts.biases == without_biases


def test_resnet_names() -> None:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    conv, acon = ("weight", "bias"), ("p1", "p2", "beta")

    def block(depth: int, prefix: str) -> list[str]:
        return [path.removeprefix(prefix) for path in spec.named_params(resnet(depth).graph) if path.startswith(prefix)]

    def names(parts: dict[str, tuple[str, ...]]) -> list[str]:
        return [f"{part}.{name}" for part, each in parts.items() for name in each]

    end = {"conv3": conv, "bn3": norm, "downsample.0": conv, "downsample.1": norm}
    assert block(50, "layer1.0.") == names({"conv1": conv, "bn1": norm, "conv2": conv, "bn2": norm, "acon": acon, **end})
    basic = {"conv1": conv, "bn1": norm, "acon1": acon, "conv2": conv, "bn2": norm, "acon2": acon}
    assert block(18, "layer1.0.") == names(basic)
    assert block(18, "layer2.0.") == names(basic | {"downsample.0": conv, "downsample.1": norm})
    paths = list(spec.named_params(resnet(50).graph))
    assert paths[:3] == ["conv1.weight", "conv1.bias", "bn1.weight"]
    assert paths[-2:] == ["fc.weight", "fc.bias"]


def test_tfnet_names_and_shapes() -> None:
    _, file = read_file(DATA / "tfnet_0.5.pth.tar")
    table = spec.named_params(tfnet(0.5).graph)
    assert [(name, array.shape) for name, array in file.tensors.items()] == [(name, p.shape) for name, p in table.items()]


def test_dcn_names() -> None:
    layers = dict.fromkeys(path.partition(".")[0] for path in spec.named_params(dcn().graph))
    assert list(layers) == ["conv1", "conv2", "conv3", "acon1", "conv4", "linear1", "linear2"]


def test_dropout_rates() -> None:
    rates = {
        name: [node.rate for _, node in spec.walk(create(name).graph) if isinstance(node, spec.Dropout)]
        for name in NETWORKS
        if name.startswith("acon/")
    }
    wide = {"acon/shufflenet_v2_x2_0", "acon/tfnet_1_0", "acon/tfnet_1_5", "acon/tfnet_2_0"}
    assert rates == {name: [0.2] if name in wide else [] for name in rates}


def convolutions(network: Network) -> dict[str, spec.Conv2d]:
    return {path: node for path, node in spec.walk(network.graph) if isinstance(node, spec.Conv2d)}


def test_resnet_stride_and_activation_positions() -> None:
    network = resnet(50)
    strided = [path for path, node in convolutions(network).items() if node.stride == (2, 2)]
    assert strided == ["conv1", *(f"layer{i}.0.{name}" for i in (2, 3, 4) for name in ("conv1", "downsample.0"))]
    replaced = [path for path, node in spec.walk(network.graph) if isinstance(node, spec.AconC)]
    assert replaced == [f"layer{i + 1}.{j}.acon" for i, count in enumerate((3, 4, 6, 3)) for j in range(count)]
    rows = [row.path for row in spec.summarise(network.graph, (1, 3, 64, 96)) if row.path.startswith("layer2.1.")]
    assert [path.removeprefix("layer2.1.") for path in rows] == [
        "conv1", "bn1", "relu1", "conv2", "bn2", "acon", "acon.acon", "conv3", "bn3", "add", "relu3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("replaced", "sizes", "dilations"),
    [
        ((False, False, False), [(8, 12), (4, 6), (2, 3)], [(1, 1), (1, 1), (1, 1)]),
        ((False, False, True), [(8, 12), (4, 6), (4, 6)], [(1, 1), (1, 1), (1, 2)]),
        ((False, True, True), [(8, 12), (8, 12), (8, 12)], [(1, 1), (1, 2), (2, 4)]),
        ((True, False, True), [(16, 24), (8, 12), (8, 12)], [(1, 2), (2, 2), (2, 4)]),
    ],
)
def test_resnet_dilation(replaced: tuple[bool, ...], sizes: list[tuple[int, int]], dilations: list[tuple[int, int]]) -> None:
    """For stages 2, 3 and 4: sizes at 64x96, and the dilations of the first and second block."""
    network = resnet(50, num_classes=7, replace_stride_with_dilation=replaced)
    shapes = network.features(["stage2", "stage3", "stage4"]).graph.out_shapes((2, 3, 64, 96))
    assert [shape[2:] for shape in shapes] == sizes
    found = convolutions(network)
    for index, (first, second) in enumerate(dilations):
        for place, expected in ((0, first), (1, second)):
            conv = found[f"layer{index + 2}.{place}.conv2"]
            assert (conv.dilation, conv.padding) == ((expected, expected), (expected, expected))
    assert spec.named_params(network.graph) == spec.named_params(resnet(50, num_classes=7).graph)


def test_tfnet_keeps_downsampling_activations() -> None:
    acts = [node for _, node in spec.walk(tfnet(1.5, "prelu").graph) if isinstance(node, (spec.AconFReLU, spec.PReLU))]
    assert [node for node in acts if isinstance(node, spec.AconFReLU)] == [
        spec.AconFReLU(2 * channels, stride=2) for channels in (24, 48, 96, 192)
    ]
    assert sum(isinstance(node, spec.PReLU) for node in acts) == 29


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: resnet(42), "expected a depth in [18, 34, 50, 101, 152], found 42"),
        (lambda: resnet(50, num_classes=0), "at least one class, found 0"),
        (
            lambda: resnet(34, replace_stride_with_dilation=(False, False, True)),
            "depth 34 has only basic blocks, which cannot be dilated",
        ),
        (
            lambda: resnet(50, stride_on=2),
            "expected stride_on 1 or 3, the size of the convolution that has it, found 2",
        ),
        (lambda: create("torchvision/mobilenet_v3_small", num_classes=0), "at least one class, found 0"),
        (lambda: create("torchvision/shufflenet_v2_x1_0", num_classes=0), "at least one class, found 0"),
        (lambda: resnet(50, replace_stride_with_dilation=(True,)), "for stages 2, 3 and 4, found (True,)"),
        (lambda: tfnet(0.75), "expected a width in [0.5, 1.0, 1.5, 2.0], found 0.75"),
        (lambda: tfnet(0.5, num_classes=0), "at least one class, found 0"),
        (lambda: dcn(num_classes=0), "at least one class, found 0"),
        (lambda: dcn().graph.out_shapes((2, 3, 64, 96)), "image_size: ImageSize: expected (N, C, 32, 32), the one size"),
        (lambda: create("acon/resnet50", depth_wise=True), "'acon/resnet50': 'depth_wise' is not an option; expected one of"),
        (lambda: create("acon/tfnet_0_5", repeats=(2, 3, 8)), "expected 4 repeats, each at least 1, found (2, 3, 8)"),
        (lambda: create("acon/shufflenet_v2_x0_5", repeats=(4, 8, 4, 1)), "expected 3 repeats, each at least 1"),
        (lambda: create("torchvision/shufflenet_v2_x1_0", repeats=(4, 0, 4)), "torchvision/shufflenet_v2: expected 3 repeats"),
        (lambda: resnet(50).features(["stage9"]), "no stage 'stage9'; did you mean stage1 or stage2"),
        (lambda: resnet(50).features([]), "expected at least one stage, found none; stages: stem"),
        (lambda: spec.select(resnet(18).graph, ["layer1.9"]), "no child makes the value '9'; children: 0, 1"),
        (lambda: spec.select(resnet(18).graph, ["layer9"]), "no child makes the value 'layer9'; children: conv1"),
        (lambda: spec.select(resnet(18).graph, ["conv1.y"]), "no value 'conv1.y': Conv2d has no children"),
    ],
)
def test_invalid_options_are_refused(make: object, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        make()  # type: ignore[operator]
    assert message in str(raised.value)


def test_defaults_are_the_published_ones() -> None:
    assert create("acon/dcn").num_classes == 1
    assert create("acon/tfnet_1_0").activation == spec.AconFReLU()
    assert create("acon/resnet50", "meta_acon").activation == spec.MetaAconC(reduction=16)
    assert (create("acon/resnet50").activation, create("acon/resnet50").num_classes) == (spec.AconC(), 1000)


def near(sample: np.ndarray, std: float) -> bool:
    return abs(sample.std() / std - 1) < 5 / math.sqrt(sample.size) and abs(sample.mean()) < 5 * std / math.sqrt(sample.size)


def test_initial_values() -> None:
    """ResNet: `kaiming_normal_` (fan out) for convolutions, PyTorch's defaults elsewhere.

    DCN: Paddle's defaults. TFNet: by parameter name.
    """
    state = spec.initial_state(resnet(50, "meta_acon", 11).graph, dtype="float64")
    assert near(state["conv1.weight"], math.sqrt(2 / (64 * 49)))
    assert near(state["layer2.0.conv2.weight"], math.sqrt(2 / (128 * 9)))
    assert near(state["layer2.1.acon.fc1.weight"], math.sqrt(2 / 16))
    assert np.abs(state["layer3.0.conv1.bias"]).max() == pytest.approx(1 / math.sqrt(512), rel=0.05)
    assert np.abs(state["fc.weight"]).max() == pytest.approx(1 / math.sqrt(2048), rel=0.05)
    assert (state["layer4.1.bn3.weight"] == 1).all()
    assert (state["layer4.1.bn3.bias"] == 0).all()
    state = spec.initial_state(dcn("meta_acon").graph, dtype="float64")
    assert near(state["conv2.weight"], math.sqrt(2 / (32 * 9)))
    assert near(state["acon1.fc2.weight"], math.sqrt(2 / 16))
    assert np.abs(state["linear1.weight"]).max() == pytest.approx(math.sqrt(6 / 1088), rel=0.01)
    assert (state["linear1.bias"] == 0).all()
    state = spec.initial_state(tfnet(1.0).graph, dtype="float64")
    assert near(state["first_conv.0.weight"], 0.01)
    assert near(state["features.3.acon.conv_frelu.weight"], 0.01)
    assert near(state["features.6.branch_main.3.weight"], 1 / 128)
    assert near(state["classifier.0.weight"], 0.01)
    assert (state["features.3.acon.bn2.bias"] == 0.0001).all()
    assert (state["features.3.acon.conv_frelu.bias"] == 0).all()


# Image sizes for the tests: the only one that a network accepts, where it accepts one.
SIZES = {"acon/dcn": (32, 32), "repact/vit_base_patch16_224": (224, 224)}


@pytest.mark.parametrize("name", [*filterfalse(keeps_activations, NETWORKS)])
def test_features_match_the_whole_network(name: str) -> None:
    options: dict[str, Any] = {"depth": 4} if "vit" in name else {}  # one block per stage
    network = create(name, num_classes=3, **options)
    random = np.random.default_rng(0)
    state = {}
    for path, param in spec.named_params(network.graph).items():
        if param.kind in ("weight", "statistic"):
            scale = 1 / math.sqrt(math.prod(param.shape[1:])) if len(param.shape) > 1 and param.decay else 0.5
            array = random.standard_normal(param.shape, np.float32) * np.float32(scale)
            state[path] = np.abs(array) + np.float32(0.5) if path.endswith("running_var") else array
        else:
            state[path] = param.init.draw(param.shape, None).astype(np.int64 if param.integer else np.float32)  # type: ignore[arg-type]
    x = random.uniform(0.0, 1.0, (1, 3, *SIZES.get(name, (32, 48))))
    taps = forward(network.graph, state, [x]).taps
    stages = list(network.stages)
    for names in (stages[::-1], stages[:1], stages[1:2]):
        part = network.features(names)
        paths = list(spec.named_params(part.graph))
        assert paths == [path for path in state if path in paths]
        found = forward(part.graph, {path: state[path] for path in paths}, [x])
        assert len(found.values) == len(names)
        for stage, value in zip(names, found.values, strict=True):
            np.testing.assert_array_equal(value, taps[network.stages[stage]])
        assert set(found.taps) <= set(taps)
        assert not any(path.startswith(f"{network.head}.") for path in paths)
        again = part.features(names[-1:])
        assert list(spec.named_params(again.graph)) == list(spec.named_params(network.features(names[-1:]).graph))
        (value,) = forward(again.graph, {path: state[path] for path in spec.named_params(again.graph)}, [x]).values
        np.testing.assert_array_equal(value, taps[network.stages[names[-1]]])
    assert len(spec.named_params(network.features(stages[:1]).graph)) < len(state) / 3


def test_features_drop_unused_steps() -> None:
    network = create("acon/shufflenet_v2_x0_5", num_classes=3)
    middle = network.features(["stage2", "stem"])
    assert list(middle.graph.members) == ["first_conv", "maxpool", "features"]
    assert list(middle.graph.members["features"].children) == ["0", "1", "2", "3"]
    assert [str(step) for step in middle.graph.steps] == [
        "first_conv = first_conv(x)", "maxpool = maxpool(first_conv)", "features.3 = features(maxpool)",
    ]  # fmt: skip
    assert middle.graph.outputs == ("features.3", "maxpool")
    assert (middle.head, middle.num_classes, list(middle.stages)) == (None, None, ["stage2", "stem"])
    ends = network.features(["stage3", "conv_last"])
    assert [str(step) for step in ends.graph.steps[2:]] == [
        "features, features.11 = features(maxpool)", "conv_last = conv_last(features)",
    ]  # fmt: skip


def test_features_gradients() -> None:
    """Two outputs share a value: its gradient is the sum of their gradients."""
    network = create("acon/tfnet_0_5", "acon_c")
    state = spec.initial_state(network.graph, 5, "float64")
    x = np.random.default_rng(2).normal(size=(2, 3, 33, 50))
    part = network.features(["stage4", "stage3"])
    kept = {path: state[path] for path in spec.named_params(part.graph)}
    last, inner = forward(part.graph, kept, [x]).values
    both = forward(part.graph, kept, [x]).vjp((np.ones_like(last), np.ones_like(inner))).inputs[0]
    alone = [
        forward(network.features([name]).graph, kept, [x]).vjp((np.ones_like(value),)).inputs[0]
        for name, value in (("stage4", last), ("stage3", inner))
    ]
    assert min(np.abs(each).max() for each in alone) > 0
    np.testing.assert_allclose(both, alone[0] + alone[1], rtol=0, atol=1e-12 * np.abs(both).max())


def test_printed_parameter_counts() -> None:
    """The README counts conv and linear weights: all 18 rows agree.

    The number of all trainable parameters would round to another value in nine rows.
    """
    networks = {key: create(*key) for key in PRINTED}
    lines = {key: verdict(spec.count(made.graph, made.input_shape), *PRINTED[key]) for key, made in networks.items()}
    assert len(lines) == 18
    assert sum("weights" in line for line in lines.values()) == 0
    assert sum("parameters" in line for line in lines.values()) == 9
    assert {name for (name, _), line in lines.items() if "MACs" in line} == {"acon/shufflenet_v2_x0_5", "acon/tfnet_0_5"}


def test_networks_page_table_is_current() -> None:
    command = [sys.executable, ROOT / "tools" / "network_counts.py"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed in DOCS.read_text(), "docs/networks.md: insert the output of `python tools/network_counts.py`"
