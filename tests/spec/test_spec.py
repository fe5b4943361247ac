"""The spec: published counts and names, initial values, activation names, invalid programs."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from pinned_schemas import SCHEMAS, current_schemas
from repository import DATA

from acon_core import spec
from acon_core.checkpoint import read_file
from acon_core.conformance.cases import NODE_TYPES
from acon_core.errors import SpecError
from acon_core.networks import create, shufflenet_v2
from acon_core.networks.network import resolve_activation
from acon_core.random import Stream
from acon_core.reference.core import evaluate


def test_names_and_shapes_of_the_published_checkpoint() -> None:
    _, file = read_file(DATA / "shufflenetv2_acon_0.5x.pth.tar")
    table = spec.named_params(create("acon/shufflenet_v2_x0_5", "acon_c").graph)
    assert {name: array.shape for name, array in file.tensors.items()} == {name: p.shape for name, p in table.items()}
    assert list(file.tensors) == list(table)


def test_pinned_schemas() -> None:
    """A change of a path, shape, kind or decay flag would break existing checkpoints."""
    assert current_schemas() == json.loads(SCHEMAS.read_text()), (
        "if the change is meant: python tests/helpers/pinned_schemas.py"
    )


def test_weight_decay_only_for_conv_and_linear_weights() -> None:
    graph = create("acon/shufflenet_v2_x0_5", "meta_acon").graph
    kinds = {spec.join(path, name): type(node) for path, node in spec.walk(graph) for name in node.params}
    for path, param in spec.named_params(graph).items():
        assert param.decay == (kinds[path] in (spec.Conv2d, spec.Linear) and path.endswith(".weight")), path


@pytest.mark.parametrize(("width", "reduction"), [(0.5, 8), (1.0, 16), (1.5, 16), (2.0, 16)])
def test_meta_acon_published_reduction(width: float, reduction: int) -> None:
    assert shufflenet_v2(width, "meta_acon").activation == spec.MetaAconC(reduction=reduction)
    assert shufflenet_v2(width, "meta_acon(reduction=4)").activation == spec.MetaAconC(reduction=4)


def test_deterministic_removes_dropout() -> None:
    wide = create("acon/shufflenet_v2_x2_0", "meta_acon").graph
    still = spec.deterministic(wide)
    assert [node.rate for _, node in spec.walk(still) if isinstance(node, spec.Dropout)] == [0.0]
    assert list(spec.named_params(still)) == list(spec.named_params(wide))


def test_published_initial_values() -> None:
    state = spec.initial_state(create("acon/shufflenet_v2_x1_0", "meta_acon").graph, seed=7, dtype="float64")
    close = {
        "first_conv.0.weight": 0.01,
        "first_conv.2.fc1.weight": 0.01,  # its name contains `first` too
        "features.3.branch_main.0.weight": 1 / 58,
        "features.3.branch_main.3.weight": 1.0,  # depthwise: one input channel
        "conv_last.0.weight": 1 / 464,
        "conv_last.2.fc2.weight": 1 / 64,
        "classifier.0.weight": 0.01,
        "conv_last.2.p1": 1.0,
    }
    for path, std in close.items():
        sample = state[path]
        assert abs(sample.std() / std - 1) < 5 / np.sqrt(sample.size), path
        assert abs(sample.mean()) < 5 * std / np.sqrt(sample.size), path
    for path, array in state.items():
        expected = {"bias": 0.0, "running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0}
        name = path.rpartition(".")[2]
        norm = path.replace(name, "running_var") in state
        if name in expected and not (norm and name == "bias"):
            assert (array == expected[name]).all(), path
        if norm and name in ("weight", "bias"):
            assert (array == {"weight": 1.0, "bias": 0.0001}[name]).all(), path


def test_initial_state_depends_on_seed_and_path() -> None:
    graph = create("acon/shufflenet_v2_x0_5").graph
    first, again, other = (spec.initial_state(graph, seed) for seed in (3, 3, 4))
    assert all((first[path] == again[path]).all() for path in first)
    assert (first["conv_last.2.p1"] != other["conv_last.2.p1"]).all()
    assert (first["conv_last.2.p1"] != first["conv_last.2.p2"]).all()


def test_stream_values_are_pinned() -> None:
    """By hand from NumPy's Philox: the same numbers in every version and on every machine."""
    assert Stream("pinned", 1).unit((3,)).tolist() == PINNED


PINNED = [0.39447676232655504, 0.6441114547079752, 0.907999743314471]


@pytest.mark.parametrize(
    ("norm", "generator"),
    [("batch", ["fc1", "bn1", "fc2", "bn2"]), ("none", ["fc1", "fc2"])],
)
def test_meta_acon_parameter_order(norm: spec.Norm, generator: list[str]) -> None:
    """The published order of the state: p1, p2, then fc1, bn1, fc2, bn2."""
    node = spec.MetaAconC(10, reduction=3, norm=norm)
    owners = dict.fromkeys(path.rpartition(".")[0] or path for path in spec.named_params(node))
    assert list(owners) == ["p1", "p2", *generator]
    assert spec.named_params(node)["fc1.weight"].shape == (3, 10, 1, 1)
    assert spec.named_params(node)["fc2.weight"].shape == (10, 3, 1, 1)
    assert node.out_shapes((2, 10, 5)) == ((2, 10, 5),)


@pytest.mark.parametrize("size", [(32, 32), (61, 97), (448, 448), (192, 192)])
def test_any_input_size(size: tuple[int, int]) -> None:
    assert create("acon/shufflenet_v2_x0_5").graph.out_shapes((2, 3, *size)) == ((2, 1000),)


def test_lower_keeps_names() -> None:
    graph = create("acon/shufflenet_v2_x0_5", "meta_acon").graph
    lowered = spec.lower(graph)
    assert not any(isinstance(node, spec.Layer) for _, node in spec.walk(lowered))
    assert list(spec.named_params(lowered)) == list(spec.named_params(graph))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: spec.Attention(0), "Attention: expected at least one head, found 0"),
        (lambda: spec.WindowAttention(3, 1, heads=0), "WindowAttention: expected at least one head, found 0"),
        (lambda: spec.WindowAttention(3, 3, heads=2), "WindowAttention: expected a shift from 0 to below the window 3"),
    ],
)
def test_invalid_attention_is_refused(make: Callable[[], spec.Node], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (["y = relu(z)"], "'z', which no earlier line makes"),
        (["y = relu(x)", "y = silu(x)"], "'y' occurs twice"),
        (["a = relu(x)", "y = relu(a)"], "'relu' occurs twice"),
        (["y = relu(x)"], "'silu' is called but not defined, or defined but never called"),
        (["y is relu(x)"], "expected `values = child"),
        (["a = relu(x)", "b = silu(a)"], "no line makes the output 'y'"),
    ],
)
def test_invalid_program_is_refused(program: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("(", r"\(")):
        spec.graph("x", program, "y", {"relu": spec.ReLU(), "silu": spec.SiLU()})


def test_type_without_a_rule_is_refused() -> None:
    class Unheard(spec.Primitive):
        pass

    with pytest.raises(SpecError, match="reference has no rule for Unheard"):
        evaluate(Unheard())


def test_every_primitive_has_a_rule_in_the_reference() -> None:
    for kind in NODE_TYPES.values():
        if issubclass(kind, spec.Primitive):
            assert kind in evaluate, f"reference/layers.py: {kind.__name__}"


def test_parameterless_primitives_have_function_names() -> None:
    rules_of_their_own = {spec.Acon, spec.RepActFunction, spec.Dropout, spec.DropPath}
    primitives = {kind for kind in NODE_TYPES.values() if issubclass(kind, spec.Primitive)}
    stateless = {kind for kind in primitives if kind.params is spec.Node.params}
    assert set(spec.PARAMETERLESS) == stateless - rules_of_their_own
    assert all(name.isidentifier() and name.islower() for name in spec.PARAMETERLESS.values())
    assert len(set(spec.PARAMETERLESS.values())) == len(spec.PARAMETERLESS)


def test_rules_are_not_inherited() -> None:
    class Wider(spec.Conv2d):
        pass

    with pytest.raises(SpecError, match="no rule for Wider"):
        evaluate(Wider(3, 4, 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("acon_c", spec.AconC()),
        ("acon_c(init=paper)", spec.AconC(init="paper")),
        ("meta_acon(reduction=8, norm=none)", spec.MetaAconC(reduction=8, norm="none")),
        ("relu", spec.ReLU()),
        ("leaky_relu(slope=0.2)", spec.LeakyReLU(slope=0.2)),
        ("prelu(shared=false)", spec.PReLU(shared=False)),
        ("meta_acon(reduction=16, level=layer, reduce=mean)", spec.MetaAconC(level="layer", reduce="mean")),
        ("ACONC", spec.AconC()),
        ("DYReLU", spec.DyReLU()),
        ("LReLU", spec.LeakyReLU()),
        ("HardSwish", spec.HardSwish()),
        ("RepAct_Softmax", spec.RepAct(variant=2)),
        ("RepAct_BN", spec.RepAct(variant=3)),
        ("repact_1", spec.RepAct()),
        ("fused_repact(shift=true)", spec.FusedRepAct(shift=True)),
    ],
)
def test_activation_name_round_trip(text: str, expected: spec.Node) -> None:
    assert spec.activation(text) == expected
    assert resolve_activation("a network", spec.activation_name(expected), 1, reduction=99) == expected


@pytest.mark.parametrize(
    "text",
    [
        "aconz", "acon_c(beta=2)", "meta_acon(reduction=0)", "meta_acon(norm=group)", "meta_acon(level=row)", "relu(", "",
        "repact(variant=4)", "prelu(shared=maybe)", "celu(alpha=x)", "celu(alpha=0)", "softplus(beta=-1)", "dyrelu(variant=C)",
    ],
)  # fmt: skip
def test_unknown_activation_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        spec.activation(text)


@pytest.mark.parametrize("axis", [1, -1])
def test_has_steps(axis: int) -> None:
    """Activations that apply several functions in turn; moving an axis does not count."""
    several = ("meta_acon", "meta_acon(level=pixel)", "meta_acon(level=layer)", "frelu", "acon_frelu", "dyrelu", "repact_3")
    one = ("acon_a", "acon_b", "acon_c", "prelu(shared=false)", "swish", "arelu", "repact_1", "repact_2", "fused_repact")
    for names, expected in ((several, True), (one, False)):
        for name in names:
            assert spec.activation(name, 6, channel_axis=axis).has_steps is expected, name


def test_tap_producer() -> None:
    graph = create("acon/shufflenet_v2_x0_5").graph
    assert spec.producer(graph, "features.3") == ("features.3", 0)
    assert spec.producer(graph, "features.1.odd") == ("features.1.split", 1)
    with pytest.raises(SpecError, match="no value 'nothing' there; values: first_conv"):
        spec.producer(graph, "nothing")


def test_shape_error_names_the_layer() -> None:
    graph = create("acon/shufflenet_v2_x0_5").graph
    with pytest.raises(SpecError, match=r"first_conv: 0: Conv2d: expected shape|first_conv: 0: Conv2d: expected"):
        graph.out_shapes((2, 4, 32, 32))
