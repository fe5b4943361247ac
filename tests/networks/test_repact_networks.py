"""The networks of the RepAct code: counts, names, initial values, accepted and refused options."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from acon_core import spec
from acon_core.errors import SpecError
from acon_core.networks import NETWORKS, create, swin_tiny, vit_base
from acon_core.reference import forward
from acon_core.surgery.bounds import bounds_of
from acon_core.surgery.preserve import preserve
from acon_core.verification.verify import input_shape

State = Mapping[str, np.ndarray]
REPACT = [name for name in NETWORKS if name.startswith("repact/")]
SWIN, VIT = "repact/swin_tiny_patch4_window7_224", "repact/vit_base_patch16_224"

# Counted on the modules of 2771096196/RepAct at c0e7194, with an activation without parameters:
# parameters at 1000 and at 100 classes, state keys, buffers, MACs, attention MACs, number of
# activations.
BASES = {
    "repact/shufflenet_v2_x0_5": (1_366_792, 444_292, 338, 7_952, 40_476_448, 0, 37),
    "repact/shufflenet_v2_x1_0": (2_278_604, 1_356_104, 338, 16_180, 144_907_992, 0, 37),
    "repact/mobilenet_v3_small": (2_542_856, 1_620_356, 244, 12_112, 56_510_400, 0, 23),
    "repact/mobilenet_v3_large": (5_483_032, 4_330_132, 312, 24_400, 216_589_760, 0, 31),
    SWIN: (28_288_354, 27_596_254, 185, 28_812, 4_350_425_088, 140_141_568, 12),
    VIT: (86_567_656, 85_875_556, 152, 0, 16_848_500_736, 715_327_488, 12),
}
# Per activation: the parameters, state keys and buffers that each use adds.
PER_PLACE = {
    "relu": (0, 0, 0), "hardswish": (0, 0, 0), "gelu": (0, 0, 0), "prelu": (1, 1, 0), "arelu": (2, 2, 0), "swish": (1, 1, 0),
    "acon_c(shared=true)": (3, 3, 0), "repact_1": (5, 2, 0), "repact_2": (5, 2, 0), "repact_3": (7, 7, 2),
}  # fmt: skip
# With FReLU and DyReLU: parameters at 1000 and at 100 classes, state keys, buffers, MACs. The
# published code cannot run the transformers with them, so their MACs are None.
WIDE: dict[tuple[str, str], tuple[int, int, int, int, int | None]] = {
    ("repact/shufflenet_v2_x0_5", "frelu"): (1_402_120, 479_620, 597, 13_840, 47_871_136),
    ("repact/shufflenet_v2_x0_5", "dyrelu"): (1_664_732, 742_232, 560, 8_248, 40_773_504),
    ("repact/shufflenet_v2_x1_0", "frelu"): (2_346_164, 1_423_664, 597, 27_440, 158_300_280),
    ("repact/shufflenet_v2_x1_0", "dyrelu"): (2_733_655, 1_811_155, 560, 16_476, 145_361_492),
    ("repact/mobilenet_v3_small", "frelu"): (2_608_712, 1_686_212, 405, 23_088, 67_927_008),
    ("repact/mobilenet_v3_small", "dyrelu"): (3_092_368, 2_169_868, 382, 12_296, 57_058_448),
    ("repact/mobilenet_v3_large", "frelu"): (5_614_936, 4_462_036, 529, 46_384, 251_008_928),
    ("repact/mobilenet_v3_large", "dyrelu"): (7_320_096, 6_167_196, 498, 24_648, 218_423_952),
    (SWIN, "frelu"): (28_500_322, 27_808_222, 269, 64_140, None),
    (SWIN, "dyrelu"): (36_936_658, 36_244_558, 257, 28_908, None),
    (VIT, "dyrelu"): (114_925_336, 114_233_236, 224, 96, None),
}


def published() -> dict[tuple[str, str], tuple[int, int, int, int, int | None, int]]:
    rows: dict[tuple[str, str], tuple[int, int, int, int, int | None, int]] = {}
    for name, (many, few, keys, buffers, macs, attention, places) in BASES.items():
        for act, (parameters, tensors, elements) in PER_PLACE.items():
            own = places * parameters
            rows[name, act] = many + own, few + own, keys + places * tensors, buffers + places * elements, macs, attention
    return rows | {(name, act): (*row, BASES[name][5]) for (name, act), row in WIDE.items()}


@pytest.mark.parametrize(("name", "act"), published())
def test_published_counts(name: str, act: str) -> None:
    network = create(name, act)
    counts, fewer = spec.count(network.graph, network.input_shape), spec.count(create(name, act, 100).graph)
    found = (counts.parameters, fewer.parameters, counts.state_keys, counts.buffers, counts.macs, counts.attention_macs)
    expected = published()[name, act]
    assert found[:4] == expected[:4]
    assert expected[4] is None or found[4:] == expected[4:]


# The first names of the published state, and some names whose order could differ.
NAMES = {
    "repact/shufflenet_v2_x0_5": (
        ["conv1.0.weight", "conv1.1.weight"],
        [
            "stage2.0.branch1.0.weight", "stage2.0.branch1.2.weight", "stage2.0.branch1.4.p1", "stage2.0.branch2.0.weight",
            "stage2.0.branch2.7.p1", "stage2.1.branch2.0.weight", "stage4.3.branch2.7.beta", "conv5.0.weight", "fc.weight",
        ],
    ),
    "repact/mobilenet_v3_small": (
        ["features.0.0.weight", "features.0.1.weight"],
        [
            "features.1.block.0.0.weight", "features.1.block.0.2.p1", "features.1.block.1.fc1.weight",
            "features.1.block.1.fc2.bias", "features.1.block.2.0.weight", "features.2.block.0.0.weight",
            "features.11.block.3.1.num_batches_tracked", "features.12.0.weight", "classifier.0.weight", "classifier.3.bias",
        ],
    ),
    SWIN: (
        ["patch_embed.proj.weight", "patch_embed.proj.bias", "patch_embed.norm.weight", "patch_embed.norm.bias"],
        [
            "layers.0.blocks.0.norm1.weight", "layers.0.blocks.0.attn.relative_position_bias_table",
            "layers.0.blocks.0.attn.relative_position_index", "layers.0.blocks.0.attn.qkv.weight",
            "layers.0.blocks.0.attn.proj.bias", "layers.0.blocks.0.norm2.weight", "layers.0.blocks.0.mlp.fc1.weight",
            "layers.0.blocks.0.mlp.act.p1", "layers.0.blocks.0.mlp.fc2.weight", "layers.0.blocks.1.norm1.weight",
            "layers.0.downsample.reduction.weight", "layers.0.downsample.norm.weight", "layers.3.blocks.1.mlp.fc2.bias",
            "norm.weight", "head.weight", "head.bias",
        ],
    ),
    VIT: (
        ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "blocks.0.norm1.weight"],
        [
            "blocks.0.attn.qkv.weight", "blocks.0.attn.proj.weight", "blocks.0.norm2.weight", "blocks.0.mlp.fc1.weight",
            "blocks.0.mlp.act.p1", "blocks.0.mlp.fc2.bias", "blocks.11.mlp.fc2.bias", "norm.weight", "head.weight", "head.bias",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_published_names(name: str) -> None:
    names = list(spec.named_params(create(name, "acon_c").graph))
    first, others = NAMES[name]
    assert names[: len(first)] == first
    assert [each for each in names if each in others] == others


def test_shared_acon_c() -> None:
    """A shared ACON-C has three numbers per layer and computes what ACON-C computes."""
    node = spec.AconC(6, shared=True)
    assert {name: param.shape for name, param in node.params.items()} == dict.fromkeys(("p1", "p2", "beta"), (1, 1, 1, 1))
    assert spec.activation("acon_c(shared=true)") == spec.AconC(shared=True)
    state = {"p1": 1.25, "p2": -0.25, "beta": 0.75}
    arrays = {name: np.full((1, 1, 1, 1), value) for name, value in state.items()}
    wide = {name: np.full((1, 6, 1, 1), value) for name, value in state.items()}
    x = np.random.default_rng(1).uniform(-3, 3, (2, 6, 5))
    shared, whole = forward(node, arrays, [x]), forward(spec.AconC(6), wide, [x])
    np.testing.assert_array_equal(shared.values[0], whole.values[0])
    for name in state:
        np.testing.assert_allclose(
            shared.vjp((x,)).params[name], whole.vjp((x,)).params[name].sum(1, keepdims=True), rtol=1e-13
        )
    assert bounds_of(node, arrays).low.shape == (1,)
    found = preserve(spec.SiLU(), {}, node, 50.0)
    assert found is not None
    assert {name: value.shape for name, value in found.values.items()} == dict.fromkeys(("p1", "p2", "beta"), (1, 1, 1, 1))
    slopes = {"weight": np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])}
    assert preserve(spec.PReLU(6, shared=False), slopes, node, 50.0) is None


def test_norms_dropout_and_drop_path() -> None:
    for name in REPACT:
        nodes = list(spec.walk(create(name, "frelu" if name != VIT else "relu").graph))
        norms = {(node.eps, node.decay) for path, node in nodes if type(node) is spec.BatchNorm and "bn_frelu" not in path}
        assert norms <= {(0.001, 0.99) if "mobilenet" in name else (1e-5, 0.9)}
        assert {node.eps for _, node in nodes if type(node) is spec.LayerNorm} <= {1e-6 if name == VIT else 1e-5}
        assert [node.rate for _, node in nodes if type(node) is spec.Dropout] == ([0.2] if "mobilenet" in name else [])
        rates = [node.rate for _, node in nodes if type(node) is spec.DropPath]
        assert rates == (pytest.approx(np.repeat(np.linspace(0, 0.1, 12), 2)) if name == SWIN else [])


def test_initial_values() -> None:
    """Standard deviations within 5 standard errors; constants exactly."""
    spreads = {
        "repact/shufflenet_v2_x0_5": {
            "conv1.0.weight": 1 / math.sqrt(3 * 27), "stage3.1.branch2.5.weight": 1 / math.sqrt(3 * 48),
            "fc.weight": 1 / math.sqrt(3 * 1024), "fc.bias": 1 / math.sqrt(3 * 1024),
        },
        "repact/mobilenet_v3_small": {
            "features.0.0.weight": math.sqrt(2 / (16 * 9)), "features.4.block.1.0.weight": math.sqrt(2 / (96 * 25)),
            "features.4.block.2.fc1.weight": math.sqrt(2 / 24), "classifier.0.weight": 0.01, "classifier.0.bias": 0,
            "features.4.block.2.fc1.bias": 0,
        },
        SWIN: {
            "patch_embed.proj.weight": 1 / math.sqrt(3 * 48), "layers.0.blocks.0.attn.relative_position_bias_table": 0.02,
            "layers.1.blocks.1.mlp.fc1.weight": 0.02, "layers.0.downsample.reduction.weight": 0.02, "head.bias": 0,
            "layers.1.blocks.1.attn.qkv.bias": 0,
        },
        VIT: {
            "cls_token": 0.02, "pos_embed": 0.02, "patch_embed.proj.weight": math.sqrt(2 / (768 * 256)),
            "blocks.0.mlp.fc1.weight": 0.01, "blocks.0.mlp.fc1.bias": 0, "patch_embed.proj.bias": 0,
        },
    }  # fmt: skip
    options = {SWIN: {"depths": (2, 2, 1, 1)}, VIT: {"depth": 1, "image_size": 48}}
    for name, expected in spreads.items():
        state = spec.initial_state(create(name, "relu", **options.get(name, {})).graph, 3, "float64")
        for path, std in expected.items():
            assert abs(state[path].std() - std) <= 5 * std / math.sqrt(state[path].size), (name, path)


def test_relative_position_index() -> None:
    state = spec.initial_state(swin_tiny("relu", 3).graph, None)
    indices = [array for path, array in state.items() if path.endswith("relative_position_index")]
    assert len(indices) == 12
    for index in indices:
        assert index.dtype == np.int64
        np.testing.assert_array_equal(index, spec.relative_position_index(7))


@pytest.mark.parametrize("name", REPACT)
def test_stage_shapes(name: str) -> None:
    """The stages of a 224x224 image have the expected sizes, and each tap the right channels."""
    network = create(name, "relu")
    sizes = {stage: shape[2:] for stage, shape in _stage_shapes(network.graph, network.stages).items()}
    halved = [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7), (7, 7)]
    expected = {
        SWIN: [(56, 56), *halved[1:5]],
        VIT: [(197,)] * 4,
        **{each: halved[1:] for each in REPACT if "shuffle" in each},
        **{each: halved for each in REPACT if "mobile" in each},
    }
    assert list(sizes.values()) == expected[name]


def _stage_shapes(graph: spec.Node, stages: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    found = {}
    for stage, tap in stages.items():
        node, shapes = graph, ((1, 3, 224, 224),)
        *path, value = tap.split(".")
        for name in path:
            assert isinstance(node, spec.Graph)
            values = node.shapes(*shapes)
            step = next(step for step in node.steps if step.child == name)
            node, shapes = node.members[name], tuple(values[each] for each in step.inputs)
        assert isinstance(node, spec.Graph)
        found[stage] = node.shapes(*shapes)[value]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("act", spec.ACTIVATIONS)
@pytest.mark.parametrize("name", [SWIN, VIT])
def test_every_activation_on_tokens(name: str, act: str, base: dict[str, State]) -> None:
    options = SMALL[name]
    if name == VIT and act in ("frelu", "acon_frelu"):
        with pytest.raises(SpecError, match=rf"vit_base: {act}.* needs images \(N, C, H, W\), but tokens are"):
            create(name, act, 5, **options)
        return
    graph = create(name, act, 5, **options).graph
    state = dict(base[name])
    for path, node in spec.walk(graph):
        if path.endswith("mlp.act"):
            state |= {f"{path}.{own}": values for own, values in spec.initial_state(node, 2, "float64").items()}
    x = np.random.default_rng(3).uniform(-1, 1, (2, 3, 32, 32 if name == VIT else 48))
    result = forward(spec.deterministic(graph), state, [x], train=True)
    assert result.values[0].shape == (2, 5)
    assert np.isfinite(result.values[0]).all()
    assert np.abs(result.values[0][0] - result.values[0][1]).max() > 0


SMALL = {SWIN: {"depths": (1, 1, 1, 1)}, VIT: {"image_size": 32, "depth": 1}}


@pytest.fixture(scope="module")
def base() -> dict[str, State]:
    """Draw the states of the two small transformers, without their activations, once."""
    return {
        name: spec.initial_state(create(name, "identity", 5, **options).graph, 1, "float64") for name, options in SMALL.items()
    }


@pytest.mark.parametrize("size", [(225, 224), (224, 232), (112, 448), (448, 112), (32, 32)])
def test_vit_refuses_other_image_sizes(size: tuple[int, int]) -> None:
    graph = vit_base("relu").graph
    with pytest.raises(SpecError, match=r"image_size: ImageSize: expected \(N, C, 224, 224\)"):
        graph.out_shapes((1, 3, *size))
    assert graph.out_shapes((2, 3, 224, 224)) == ((2, 1000),)
    assert vit_base("relu", 10, image_size=32).graph.out_shapes((2, 3, 32, 32)) == ((2, 10),)
    assert input_shape(vit_base("relu", 10, image_size=32)) == (5, 3, 32, 32)
    assert input_shape(create("acon/shufflenet_v2_x0_5")) == (5, 3, 64, 96)


def test_vit_stages() -> None:
    for depth, blocks in ((1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (6, [1, 2, 4, 5]), (12, [2, 5, 8, 11])):
        stages = vit_base("relu", depth=depth).stages
        assert stages == {f"stage{index}": f"blocks.{block}" for index, block in enumerate(blocks, 1)}


@pytest.mark.parametrize("name", [name for name in REPACT if name != VIT])
@pytest.mark.parametrize("size", [(32, 32), (61, 97), (160, 192)])
def test_any_input_size_and_class_count(name: str, size: tuple[int, int]) -> None:
    for classes in (10, 100):
        assert create(name, "repact_1", classes).graph.out_shapes((2, 3, *size)) == ((2, classes),)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (VIT, {"image_size": 200}, "expected an image_size that is a multiple of 16, found 200"),
        (VIT, {"depth": 0}, "expected at least one block, found depth 0"),
        (SWIN, {"depths": (2, 2, 6), "num_heads": (3, 6, 12, 24)}, r"expected 4 depths, each at least 1, found \(2, 2, 6\)"),
        (SWIN, {"depths": (2, 0, 6, 2)}, "expected 4 depths"),
        (VIT, {"num_classes": 0}, "vit_base: expected at least one class, found 0"),
        ("repact/mobilenet_v3_small", {"num_classes": 0}, "mobilenet_v3: expected at least one class"),
    ],
)
def test_invalid_options_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        create(name, "relu", **options)  # type: ignore[arg-type]
