"""Paddle layers: frozen inputs, to_static, buffers, signatures, saved memory, views."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from acon_core import spec
from acon_core.errors import OneValuePerChannelError, SpecError
from acon_core.networks import create
from acon_core.spec import named_params

pytestmark = pytest.mark.backend("paddle")


def values(stop: tuple[int, ...] = (), dtype: str = "float64"):  # type: ignore[no-untyped-def]
    import paddle

    random = np.random.default_rng(0)
    shapes = [(3, 5, 4, 2), (1, 5, 1, 1), (1, 5, 1, 1), (3, 5, 1, 1)]
    return [paddle.to_tensor(random.normal(size=s).astype(dtype), stop_gradient=i in stop) for i, s in enumerate(shapes)]


@pytest.mark.parametrize("frozen", [(), (0,), (1,), (3,), (0, 2), (1, 2, 3)])
def test_gradients_with_frozen_inputs(frozen: tuple[int, ...]) -> None:
    import paddle
    from acon_paddle import acon

    found, expected = values(frozen), values(frozen)
    acon(*found).sum().backward()
    x, p1, p2, beta = expected
    ((p1 - p2) * x * paddle.nn.functional.sigmoid(beta * (p1 - p2) * x) + p2 * x).sum().backward()
    for index, (first, second) in enumerate(zip(found, expected, strict=True)):
        if index in frozen:
            assert first.grad is None
        else:
            assert first.grad.shape == second.grad.shape
            np.testing.assert_allclose(first.grad.numpy(), second.grad.numpy(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_silu_gradient_is_finite(dtype: str) -> None:
    import paddle
    from acon_paddle.pointwise import silu

    points = [-3e38, -1e4, -720.0, -100.0, -89.0, -88.0, -85.0, 0.0, 100.0, 1e4, 3e38]
    x = paddle.to_tensor(np.resize(np.array(points, dtype), 64), stop_gradient=False)
    silu(x).sum().backward()
    gradient = x.grad.numpy()[: len(points)]
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[[0, 1, 7, 8, 9, 10]], [0, 0, 0.5, 1, 1, 1], atol=1e-6)


def test_statistics_are_buffers() -> None:
    import acon_paddle

    network = create("acon/shufflenet_v2_x0_5", "meta_acon")
    model = acon_paddle.create("acon/shufflenet_v2_x0_5", act="meta_acon")
    weights = [path for path, param in named_params(network.graph).items() if param.kind == "weight"]
    assert [name for name, _ in model.named_parameters()] == weights
    assert all(not parameter.stop_gradient for parameter in model.parameters())


def test_one_value_per_channel_error_names_the_layer() -> None:
    import acon_paddle
    import paddle

    module = acon_paddle.MetaAconC(8, reduction=4)
    module.train()
    one = paddle.ones([1, 8, 3, 4])
    for run in (module, paddle.jit.to_static(module)):
        with pytest.raises(OneValuePerChannelError, match=r"bn1: training needs more than one value"):
            run(one)


def test_paddle_save_and_load_round_trip(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import acon_paddle
    import paddle

    from acon_core.checkpoint import read_network

    model = acon_paddle.create("acon/shufflenet_v2_x0_5", act="meta_acon", seed=3)
    paddle.save(model.state_dict(), str(tmp_path / "a.pdparams"))
    checkpoint = read_network(tmp_path / "a.pdparams")
    assert checkpoint.network.name == "acon/shufflenet_v2_x0_5"
    again = acon_paddle.load(tmp_path / "a.pdparams")
    loaded = again.state_dict()
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(loaded[name].numpy(), tensor.numpy(), err_msg=name)


def test_features_match_the_whole_network(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import acon_paddle
    import paddle
    from acon_paddle.backend import backend

    network = create("acon/shufflenet_v2_x0_5", "acon_c")
    whole = backend.build(network.graph, seed=3)
    names = ("stage3", "stem")
    x = np.random.default_rng(8).normal(size=(2, 3, 64, 96)).astype("float32")
    expected = whole(x, taps=[network.stages[name] for name in names]).taps
    paddle.save(whole.native.state_dict(), str(tmp_path / "whole.pdparams"))
    made = acon_paddle.create("acon/shufflenet_v2_x0_5", features=names, seed=3)
    made.eval()
    loaded = acon_paddle.load(tmp_path / "whole.pdparams", act="acon_c", features=names)
    for stages in (made, loaded):
        values = stages(paddle.to_tensor(x))
        assert isinstance(values, tuple)
        for name, value in zip(names, values, strict=True):
            np.testing.assert_array_equal(value.numpy(), expected[network.stages[name]])
    assert not [name for name, _ in made.named_parameters() if name.startswith(("conv_last", "classifier"))]


def test_single_stage_is_a_tuple_after_fuse() -> None:
    import acon_paddle
    import paddle

    stage = acon_paddle.create("repact/shufflenet_v2_x0_5", "repact", features=("stage2",), repeats=(2, 1, 1))
    stage.eval()
    x = paddle.randn([2, 3, 64, 96])
    (before,), (after,) = stage(x), acon_paddle.fuse(stage)(x)
    np.testing.assert_allclose(after.numpy(), before.numpy(), rtol=1e-4, atol=1e-5)


CLASSES = [
    "AReLU",
    "AconA",
    "AconB",
    "AconC",
    "AconFReLU",
    "DyReLU",
    "FReLU",
    "FusedRepAct",
    "MetaAconC",
    "PReLU",
    "RepAct",
    "Swish",
]


@pytest.mark.parametrize("name", CLASSES)
def test_class_signature_and_build(name: str) -> None:
    import acon_paddle
    from acon_paddle.build import BuildContext, make

    made, kind = getattr(acon_paddle, name), getattr(spec, name)
    channelwise = issubclass(kind, spec.ChannelwiseActivation)
    parameters = inspect.signature(made).parameters
    own = [each for each, parameter in parameters.items() if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert own == [each for each in inspect.signature(kind).parameters if each != "channel_axis"]
    assert list(parameters)[len(own) :] == (["channel_axis"] if channelwise else []) + ["dtype", "path"]
    assert inspect.getdoc(made).startswith(inspect.getdoc(kind).splitlines()[0])
    node = kind(6) if channelwise else kind()
    layer = make(node, BuildContext("float64"))
    assert type(layer) is made
    assert layer.spec == node
    with pytest.raises(TypeError, match="no_such"):
        made(*([6] if channelwise else []), no_such=1)
    if channelwise and name != "PReLU":
        with pytest.raises(TypeError, match="channels"):
            made()


def test_activation_by_name() -> None:
    import acon_paddle

    layer = acon_paddle.activation("meta_acon", 6, level="pixel", channel_axis=-1, dtype="float64", path="here")
    assert isinstance(layer, acon_paddle.MetaAconC)
    assert layer.spec == spec.MetaAconC(6, level="pixel", channel_axis=-1)
    assert len(set(layer.p1.numpy().ravel())) == 6
    assert acon_paddle.activation("LReLU", slope=0.2).spec == spec.LeakyReLU(0.2)


def test_dyrelu_constants_are_buffers() -> None:
    import acon_paddle

    layer = acon_paddle.DyReLU(6, "B")
    assert [name for name, _ in layer.named_parameters()] == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert layer.state_dict()["lambdas"].numpy().tolist() == [1.0, 1.0, 0.5, 0.5]


def saved_bytes(layer: Any, x: Any) -> int:
    """Count the bytes saved for the backward pass, without x, parameters and buffers."""
    import paddle

    known = {id(x), *(id(each) for each in (*layer.parameters(), *layer.buffers()))}
    held = {x.data_ptr(), *(each.data_ptr() for each in (*layer.parameters(), *layer.buffers()))}
    total = 0

    def pack(tensor: Any) -> Any:
        nonlocal total
        if id(tensor) not in known and tensor.data_ptr() not in held:
            total += tensor.numel().item() * tensor.element_size()
        return tensor

    with paddle.autograd.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    return total


@pytest.mark.parametrize(
    "name", ["acon_a", "acon_b", "acon_c", "swish", "prelu", "arelu", "repact(variant=1)", "repact(variant=2)", "fused_repact"]
)
def test_saved_memory_is_the_input_only(name: str) -> None:
    """x has 122880 bytes; the rest is at most RepAct's weights, their softmax and their sums."""
    import acon_paddle
    import paddle

    layer = acon_paddle.activation(name, 6)
    x = paddle.randn([4, 6, 32, 40])
    x.stop_gradient = False
    assert saved_bytes(layer, x) <= 128
    assert saved_bytes(paddle.nn.Sigmoid(), x) == 122880, "the measure sees what Paddle's own sigmoid keeps"


@pytest.mark.parametrize("name", ["silu", "gelu", "selu", "hardswish", "leaky_relu", "softplus"])
def test_pointwise_functions_save_no_memory(name: str) -> None:
    import acon_paddle
    import paddle

    x = paddle.randn([4, 6, 32, 40])
    x.stop_gradient = False
    assert saved_bytes(acon_paddle.activation(name), x) == 0


@pytest.mark.parametrize(
    "name", ["acon_c", "meta_acon", "prelu(shared=false)", "dyrelu(variant=B)", "repact(variant=3)", "frelu"]
)
def test_channel_axes_views_and_empty_batches(name: str) -> None:
    """Channels last, a non-contiguous view, and an empty batch give the same function."""
    import acon_paddle
    import paddle

    first, last = (acon_paddle.activation(name, 6, channel_axis=axis, dtype="float64") for axis in (1, -1))
    last.set_state_dict(first.state_dict()) if name != "repact(variant=3)" else None
    for layer in (first, last):
        layer.eval()
    x = paddle.to_tensor(np.random.default_rng(4).normal(size=(3, 5, 4, 6)))
    view = x.transpose([0, 3, 1, 2])
    assert not view.is_contiguous()
    y = first(view)
    np.testing.assert_array_equal(y.numpy(), first(paddle.to_tensor(view.numpy())).numpy())
    if name != "repact(variant=3)":
        np.testing.assert_allclose(last(x).numpy(), y.numpy().transpose(0, 2, 3, 1), rtol=1e-12, atol=1e-14)
    if name not in ("meta_acon", "frelu"):  # Paddle refuses their convolutions
        assert first(paddle.zeros([0, 6, 5, 4], "float64")).shape == [0, 6, 5, 4]


CHANNELWISE = ["AconA", "AconB", "AconC", "MetaAconC", "FReLU", "AconFReLU", "DyReLU", "PReLU"]


@pytest.mark.parametrize("name", CHANNELWISE)
def test_wrong_input_shape_is_refused(name: str) -> None:
    """A single channel would broadcast; a wrong channel axis shows only where the sizes differ."""
    import acon_paddle
    import paddle

    options = {"shared": False} if name == "PReLU" else {}
    layer = getattr(acon_paddle, name)(6, **options)
    layer.eval()
    shapes = [(2, 1, 4, 4), (2, 7, 4, 4), (2, 4, 4, 6), (6,), ()]
    if "FReLU" in name:
        shapes += [(2, 6), (2, 6, 4), (2, 6, 4, 4, 4)]
    for run in (
        layer,
        paddle.jit.to_static(plain_function(layer), full_graph=True),
        paddle.jit.to_static(plain_function(layer)),
    ):
        for shape in shapes:
            with pytest.raises(SpecError, match=f"{name}: expected an input"):
                run(paddle.ones(shape))
        assert run(paddle.ones([2, 6, 4, 4])).shape == [2, 6, 4, 4]
    last = getattr(acon_paddle, name)(6, channel_axis=-1, **options)
    last.eval()
    with pytest.raises(SpecError, match="at axis -1"):
        last(paddle.ones([2, 6, 4, 4]))
    assert last(paddle.ones([2, 4, 4, 6])).shape == [2, 4, 4, 6]


def test_dynamic_input_shape() -> None:
    import acon_paddle
    import paddle
    from paddle.static import InputSpec

    layer = acon_paddle.AconC(6)
    run = paddle.jit.to_static(
        plain_function(layer), full_graph=True, input_spec=[InputSpec([None, None, None, None], "float32")]
    )
    for shape in ([2, 6, 4, 4], [3, 6, 5, 2]):
        x = paddle.randn(shape)
        # Where two terms cancel, the trace's formula and the kernel differ by a rounding of one.
        np.testing.assert_allclose(run(x).numpy(), layer(x).numpy(), rtol=1e-6, atol=2e-7)


def plain_function(layer: Any) -> Any:
    """Wrap a layer in a plain function, which to_static handles more reliably."""

    def run(x: Any) -> Any:
        return layer(x)

    return run
