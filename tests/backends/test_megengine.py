"""MegEngine modules: deterministic gradients, repeated calls, trace, kinks, mge.save's files."""

from __future__ import annotations

import numpy as np
import pytest

from acon_core.errors import OneValuePerChannelError, SpecError

pytestmark = pytest.mark.backend("megengine")


def gradients(module, x, times: int = 1):  # type: ignore[no-untyped-def]
    from megengine.autodiff import GradManager

    with GradManager().attach([x, *module.parameters()]) as gm:
        y = x
        for _ in range(times):
            y = module(y)
        gm.backward(y.sum())
    found = [tensor.grad.numpy().copy() for tensor in (x, *module.parameters())]
    for tensor in (x, *module.parameters()):
        tensor.grad = None
    return found


def test_gradients_of_a_module_called_twice() -> None:
    """MegEngine's Function mixes up its calls when an instance is used twice."""
    import acon_megengine
    import megengine as mge
    import megengine.functional as F
    import megengine.module as M

    module = acon_megengine.AconC(5)

    class Plain(M.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p1, self.p2, self.beta = (mge.Parameter(getattr(module, n).numpy()) for n in ("p1", "p2", "beta"))

        def forward(self, x):  # type: ignore[no-untyped-def]
            slope = self.p1 - self.p2
            return slope * x * F.sigmoid(self.beta * slope * x) + self.p2 * x

    x = mge.Tensor(np.random.default_rng(0).normal(size=(3, 5, 4, 2)).astype(np.float32))
    plain = Plain()
    order = [name for name, _ in module.named_parameters()]
    assert order == [name for name, _ in plain.named_parameters()]
    for found, expected in zip(gradients(module, x, 2), gradients(plain, x, 2), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_gradients_are_deterministic() -> None:
    """MegEngine's reductions to a broadcast shape race in eager mode; ours sum axis by axis."""
    import acon_megengine
    import megengine as mge

    module = acon_megengine.create("acon/shufflenet_v2_x0_5", act="acon_c", num_classes=5)
    module.eval()
    x = mge.Tensor(np.random.default_rng(0).normal(size=(2, 3, 32, 64)).astype(np.float32))
    first = gradients(module, x)
    for _ in range(5):
        assert all((one == two).all() for one, two in zip(first, gradients(module, x), strict=True))


def test_one_value_per_channel_keeps_the_statistics() -> None:
    import acon_megengine
    import megengine as mge
    from megengine.jit import trace

    module = acon_megengine.MetaAconC(8, reduction=4)
    module.train()
    before = {name: array.copy() for name, array in module.state_dict().items()}
    one = mge.Tensor(np.ones((1, 8, 3, 4), np.float32))
    for run in (module, trace(module, symbolic=True)):
        with pytest.raises(OneValuePerChannelError, match=r"bn1: training needs more than one value"):
            run(one)
    for name, array in module.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_megengine_save_and_load_round_trip(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import acon_megengine
    import megengine as mge

    from acon_core.checkpoint import read_network

    model = acon_megengine.create("acon/shufflenet_v2_x0_5", act="meta_acon", seed=3)
    mge.save(model.state_dict(), str(tmp_path / "a.pkl"))
    assert read_network(tmp_path / "a.pkl").network.name == "acon/shufflenet_v2_x0_5"
    again = acon_megengine.load(tmp_path / "a.pkl")
    loaded = again.state_dict()
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)


def test_features_match_the_whole_network(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import acon_megengine
    import megengine as mge
    from acon_megengine.backend import MegEngineModel

    from acon_core.networks import create

    network = create("acon/shufflenet_v2_x0_5")
    whole = acon_megengine.create("acon/shufflenet_v2_x0_5", seed=3)
    mge.save(whole.state_dict(), str(tmp_path / "a.pkl"))
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 64)).astype(np.float32)
    names = ("stage3", "stem", "stage2")
    taps = [network.stages[name] for name in names]
    expected = MegEngineModel(network.graph, whole)(x, taps=taps).taps
    for count in (1, 3):
        loaded = acon_megengine.load(tmp_path / "a.pkl", features=names[:count])
        created = acon_megengine.create("acon/shufflenet_v2_x0_5", features=names[:count], seed=3)
        created.eval()
        for backbone in (loaded, created):
            assert set(backbone.state_dict()) < set(whole.state_dict())
            stages = backbone(mge.Tensor(x))
            assert isinstance(stages, tuple)
            for tap, stage in zip(taps[:count], stages, strict=True):
                np.testing.assert_array_equal(stage.numpy(), expected[tap])
    with pytest.raises(SpecError, match="no stage 'stage9'"):
        acon_megengine.load(tmp_path / "a.pkl", features=["stage9"])


def test_grouped_weights_have_native_shape() -> None:
    import acon_megengine

    model = acon_megengine.create("acon/shufflenet_v2_x0_5")
    depthwise = model.features[1].branch_main[3]
    assert tuple(depthwise.weight.shape) == (24, 1, 1, 3, 3)
    assert tuple(depthwise.bias.shape) == (1, 24, 1, 1)


def value_and_gradients(function, *arrays, cotangent=None):  # type: ignore[no-untyped-def]
    """Return a function's value, and its gradients for `cotangent` (default: ones)."""
    import megengine as mge
    from megengine.autodiff import GradManager

    tensors = [mge.Tensor(np.asarray(array, np.float32)) for array in arrays]
    with GradManager().attach(tensors) as gm:
        y = function(*tensors)
        gm.backward(y, mge.Tensor(np.ones(y.shape, np.float32) if cotangent is None else cotangent))
    return y.numpy(), *(tensor.grad.numpy() for tensor in tensors)


SELU_SCALE, SELU_LEFT = 1.0507009873554805, 1.0507009873554805 * 1.6732632423543772
# By hand: function, options, and per point x, value and gradient; at kinks the spec's gradient.
POINTS: list[tuple[str, dict[str, object], list[tuple[float, float, float]]]] = [
    ("identity", {}, [(-2.0, -2.0, 1.0), (0.0, 0.0, 1.0)]),
    ("relu", {}, [(-2.0, 0.0, 0.0), (-0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1e-8, 1e-8, 1.0)]),
    ("relu6", {}, [(-1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (5.0, 5.0, 1.0), (6.0, 6.0, 0.0), (7.0, 6.0, 0.0)]),
    ("leaky_relu", {"slope": 0.25}, [(-4.0, -1.0, 0.25), (-0.0, 0.0, 0.25), (0.0, 0.0, 0.25), (1e-8, 1e-8, 1.0)]),
    ("elu", {"alpha": 1.5}, [(-100.0, -1.5, 0.0), (-1e-8, -1.5e-8, 1.5), (0.0, 0.0, 1.5), (2.0, 2.0, 1.0)]),
    ("selu", {}, [(-100.0, -SELU_LEFT, 0.0), (0.0, 0.0, SELU_LEFT), (2.0, 2 * SELU_SCALE, SELU_SCALE)]),
    ("celu", {"alpha": 2.0}, [(-100.0, -2.0, 0.0), (0.0, 0.0, 1.0), (-2.0, -1.2642411176571153, 0.36787944117144233)]),
    ("gelu", {}, [(0.0, 0.0, 0.5), (1.0, 0.8413447460685429, 1.0833154705876858), (-30.0, 0.0, 0.0)]),
    ("gelu", {"approximate": "tanh"}, [(0.0, 0.0, 0.5), (1.0, 0.8411919906082768, 1.0829640838457826), (-30.0, 0.0, 0.0)]),
    ("silu", {}, [(0.0, 0.0, 0.5), (1.0, 0.7310585786300049, 0.9276705118714869), (-88.5, 0.0, 0.0)]),
    ("mish", {}, [(0.0, 0.0, 0.6), (1.0, 0.86509838827, 1.0490362201), (-1.0, -0.30340146137, 0.059216755877)]),
    ("softplus", {"beta": 2.0}, [(0.0, 0.34657359027997264, 0.5), (40.0, 40.0, 1.0), (-10.0, 1.030576811e-9, 2.06115362e-9)]),
    ("hardswish", {}, [(-4.0, 0, 0), (-3.0, 0, 0), (0.0, 0, 0.5), (1.0, 2 / 3, 5 / 6), (3.0, 3, 1), (4.0, 4, 1)]),
    ("hardsigmoid", {}, [(-3.0, 0.0, 0.0), (0.0, 0.5, 1 / 6), (3.0, 1.0, 0.0), (9.0, 1.0, 0.0)]),
    ("sigmoid", {}, [(0.0, 0.5, 0.25), (2.0, 0.8807970779778823, 0.1049935854035065), (-100.0, 0.0, 0.0)]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "points"), POINTS, ids=[f"{name}{list(o.values())}" for name, o, _ in POINTS])
def test_pointwise(name: str, options: dict[str, object], points: list[tuple[float, float, float]]) -> None:
    """Values, kinks, an array longer than a vector register, and no NaN for finite input."""
    from acon_megengine import pointwise

    function = getattr(pointwise, name)
    x, value, slope = np.repeat(points, 37, axis=0).T
    y, dx = value_and_gradients(lambda x: function(x, **options), x)
    np.testing.assert_allclose(y, value, rtol=5e-7, atol=1e-12)
    np.testing.assert_allclose(dx, slope, rtol=5e-7, atol=1e-7)
    y, dx = value_and_gradients(lambda x: function(x, **options), np.repeat([1e30, -1e30, 3e38, -3e38], 37))
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()


def test_half_precision_is_computed_in_float32() -> None:
    import megengine as mge
    from acon_megengine import functional, pointwise

    x = np.linspace(-4, 4, 2001).astype(np.float16)
    wide = mge.Tensor(x.astype(np.float32))
    for function in (pointwise.mish, pointwise.gelu, pointwise.hardswish, lambda x: functional.smooth_maximum(x, -x)):
        y = function(mge.Tensor(x))
        assert y.dtype == np.float16
        # MegEngine rounds ties to float16 away from zero, NumPy to even.
        np.testing.assert_array_max_ulp(y.numpy(), function(wide).numpy().astype(np.float16), maxulp=1)


def gated() -> dict[str, tuple[object, list[tuple[int, ...]]]]:
    """Return every gated function, with the shapes of x (3, 5, 4, 2) and of its gates."""
    import megengine as mge
    from acon_megengine import functional as f

    x, channel, one, pixel = (3, 5, 4, 2), (1, 5, 1, 1), (1,), (3, 5, 4, 2)
    constants = [mge.Tensor(np.array(v, np.float32)) for v in ((1.0, 1.0, 0.5, 0.5), (1.0, 0.0, 0.0, 0.0))]
    return {
        "acon": (f.acon, [x, channel, channel, (3, 5, 1, 1)]),
        "acon_a": (lambda x, beta: f.acon(x, 1.0, 0.0, beta), [x, (5,)]),
        "acon_b": (lambda x, p2, beta: f.acon(x, 1.0, p2, beta), [x, channel, channel]),
        "acon_layer": (f.acon, [x, channel, channel, (3, 1, 1, 1)]),
        "acon_pixel": (f.acon, [x, channel, one, pixel]),
        "smooth_maximum": (lambda a, b, c, beta: f.smooth_maximum(a, b, c, beta=beta), [x, x, x, one]),
        "maximum": (f.maximum, [x, x]),
        "prelu": (f.prelu, [x, one]),
        "prelu_per_channel": (f.prelu, [x, (5,)]),
        "arelu": (f.arelu, [x, one, one]),
        "repact_coefficients": (lambda w, a: sum(f.repact_coefficients(w, a, softmax=True)[:2]), [(4,), one]),
        "repact": (f.repact, [x, one, one, one, one]),
        "dynamic_maximum_a": (lambda x, theta: f.dynamic_maximum(x, theta, *constants), [x, (3, 4)]),
        "dynamic_maximum_b": (lambda x, theta: f.dynamic_maximum(x, theta, *constants), [x, (3, 20)]),
    }


GATED = [
    "acon", "acon_a", "acon_b", "acon_layer", "acon_pixel", "smooth_maximum", "maximum", "prelu", "prelu_per_channel",
    "arelu", "repact_coefficients", "repact", "dynamic_maximum_a", "dynamic_maximum_b",
]  # fmt: skip


@pytest.mark.parametrize("name", GATED)
def test_gated_gradients_eager_and_traced(name: str) -> None:
    import megengine as mge
    from megengine.autodiff import GradManager
    from megengine.jit import trace

    function, shapes = gated()[name]
    rng = np.random.default_rng(GATED.index(name))
    arrays = [rng.uniform(0.2, 0.9, shape) if i else rng.uniform(-2, 2, shape) for i, shape in enumerate(shapes)]
    y, *found = value_and_gradients(function, *arrays)
    cotangent = rng.uniform(-1, 1, y.shape).astype(np.float32)
    y, *found = value_and_gradients(function, *arrays, cotangent=cotangent)
    for index, (array, gradient) in enumerate(zip(arrays, found, strict=True)):
        assert gradient.shape == array.shape
        way = rng.uniform(-1, 1, array.shape)
        step = 2e-3
        ends = []
        for sign in (1, -1):
            moved = [a + sign * step * way if i == index else a for i, a in enumerate(arrays)]
            values = function(*(mge.Tensor(a.astype(np.float32)) for a in moved)).numpy()  # type: ignore[operator]
            ends.append((values.astype(np.float64) * cotangent).sum())
        size = np.abs(gradient * way).sum() + 1e-2
        assert abs((ends[0] - ends[1]) / (2 * step) - (gradient * way).sum()) < 2e-2 * size, index

    @trace(symbolic=True)
    def traced(*tensors):  # type: ignore[no-untyped-def]
        with GradManager().attach(list(tensors)) as gm:
            y = function(*tensors)  # type: ignore[operator]
            gm.backward(y, mge.Tensor(cotangent))
        return [y, *(tensor.grad for tensor in tensors)]

    for _ in range(2):
        tensors = [mge.Tensor(array.astype(np.float32)) for array in arrays]
        for one, two in zip(traced(*tensors), [y, *found], strict=True):
            np.testing.assert_allclose(one.numpy(), two, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", [name for name in GATED if name != "repact_coefficients"])
def test_backward_pass_saves_only_its_inputs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from acon_megengine import gradient

    kept = []
    own = gradient._Function.backward

    def backward(self, g):  # type: ignore[no-untyped-def]
        kept.append(sum(int(np.prod(tensor.shape)) for value in vars(self).values() for tensor in tensors(value)))
        return own(self, g)

    def tensors(value):  # type: ignore[no-untyped-def]
        from megengine import Tensor

        return [each for each in (value if isinstance(value, list | tuple) else [value]) if isinstance(each, Tensor)]

    monkeypatch.setattr(gradient._Function, "backward", backward)
    function, shapes = gated()[name]
    value_and_gradients(function, *(np.full(shape, 0.5) for shape in shapes))
    sizes = [int(np.prod(shape)) for shape in shapes]
    # The lines are as many values as theta; they come from theta and 8 constants.
    lines = [sizes[-1] + 8] if name.startswith("dynamic") else []
    assert kept == [sum(sizes), *lines]


def test_gated_ties_and_kinks() -> None:
    from acon_megengine import functional as f

    x = np.array([[-3.0, 0.0, -0.0, 3.0, 1.0]])
    _, da, db = value_and_gradients(f.maximum, x, np.array([[-3.0, 0.0, 0.0, 2.0, 3e38]]))
    assert da.tolist() == [[0.5, 0.5, 0.5, 1.0, 0.0]]
    assert db.tolist() == [[0.5, 0.5, 0.5, 0.0, 1.0]]
    _, dx, dnegative = value_and_gradients(f.prelu, x, [0.25])
    assert dx.tolist() == [[0.25, 0.25, 0.25, 1.0, 1.0]]
    assert dnegative.tolist() == [-3.0]
    _, dx, *_ = value_and_gradients(f.repact, x, [2.0], [4.0], [6.0])
    assert dx.tolist() == [[2.0, 5.0, 5.0, 12.0, 11.0]]
    _, dx, dalpha, _ = value_and_gradients(f.arelu, x, [1.5], [0.0])
    np.testing.assert_allclose(dx, [[0.99, 0.99, 0.99, 1.5, 1.5]], rtol=1e-6)
    assert dalpha.tolist() == [0.0]
    import megengine as mge

    lambdas, start = mge.Tensor([1.0, 1.0, 0.5, 0.5]), mge.Tensor([1.0, 0.0, 0.0, 0.0])
    _, dx, _ = value_and_gradients(lambda x, theta: f.dynamic_maximum(x, theta, lambdas, start), x, np.zeros((1, 4)))
    assert dx.tolist() == [[0.0, 0.5, 0.5, 1.0, 1.0]]


def test_smooth_maximum_of_extreme_values() -> None:
    from acon_megengine import smooth_maximum

    a, b = np.array([3e38, 3e38, -3e38, 1000.0, 2.0]), np.array([-3e38, 3e38, -3e38, 1000.1, -1.0])
    for beta in (1.0, -2.0, 0.0, 1e6):
        y, da, db = value_and_gradients(lambda a, b, beta=beta: smooth_maximum(a, b, beta=beta), a, b)
        wide = [np.asarray(each, np.float32).astype(np.float64) for each in (a, b)]
        z = beta * (wide[0] - wide[1])
        s = np.exp(-np.logaddexp(0.0, -z))
        bend = np.where(np.abs(z) < 700, z * s * (1 - s), 0.0)
        np.testing.assert_allclose(y, wide[1] * (1 - s) + wide[0] * s, rtol=2e-7, atol=1e32)
        np.testing.assert_allclose(da, s + bend, atol=3e-6)
        np.testing.assert_allclose(db, 1 - s - bend, atol=3e-6)


def test_smooth_maximum_invalid_inputs() -> None:
    import megengine as mge
    from acon_megengine import smooth_maximum

    column, row = mge.Tensor(np.ones((3, 1), np.float32)), mge.Tensor(np.ones((1, 3), np.float32))
    for wrong in ((), (column,), (column, row), (column, column, row)):
        with pytest.raises(SpecError, match="expected two values or more of one shape"):
            smooth_maximum(*wrong)
    with pytest.raises(SpecError, match="beta of one element"):
        smooth_maximum(row, row, beta=row)


# x, gate, channel axis: gates that broadcast to a wrong channel count or shape, invalid axes.
WRONG_GATES = [
    ((2, 3, 4, 4), (4,), 1), ((2, 3, 4, 4), (3, 1, 1), 1), ((2, 3, 4, 4), (1, 4, 1, 1), 1), ((2, 3, 4, 4), (4, 4), 1),
    ((2, 1, 4, 4), (1, 3, 1, 1), 1), ((2, 3, 4, 4), (2, 3, 4, 1), 1), ((2, 4, 3), (4,), -1), ((2, 3, 4), (2,), 1),
    ((2, 3, 4), (2,), 0), ((2, 3, 4), (2,), -3), ((2, 3, 4), (3,), 3), ((3,), (3,), 1),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "gate", "axis"), WRONG_GATES)
def test_wrong_gate_shapes_are_refused(shape: tuple[int, ...], gate: tuple[int, ...], axis: int) -> None:
    import megengine as mge
    from acon_megengine import functional as f

    x, wrong = (mge.Tensor(np.ones(each, np.float32)) for each in (shape, gate))
    one = mge.Tensor(np.ones(1, np.float32))
    for call in (
        lambda: f.acon(x, wrong, 0.0, one, axis),
        lambda: f.acon(x, 1.0, wrong, one, axis),
        lambda: f.acon(x, 1.0, 0.0, wrong, axis),
        lambda: f.prelu(x, wrong, axis),
        lambda: f.arelu(x, one, wrong, axis),
        lambda: f.repact(x, one, wrong, one, channel_axis=axis),
        lambda: f.repact(x, one, one, one, wrong, axis),
    ):
        with pytest.raises(SpecError, match="expected a"):
            call()


def test_batch_norm_of_many_values() -> None:
    """MegEngine's kernel is off by 1e-3: RepAct III normalises the tensor as one channel."""
    import acon_megengine

    x = np.random.default_rng(0).normal(1.0, 2.0, (8, 16, 64, 64)).astype(np.float32)
    module = acon_megengine.RepAct(3)
    y, _ = value_and_gradients(module, x)
    branches = 0.3125 * x + 0.4375 * np.maximum(x, 0) + 0.25 * x * np.clip(x + 3.0, 0, 6) / 6
    wide = branches.astype(np.float64)
    np.testing.assert_allclose(y, (wide - wide.mean()) / np.sqrt(wide.var() + 1e-5), atol=4e-6)
    np.testing.assert_allclose(module.norm.running_var.numpy().item(), 0.9 + 0.1 * wide.var(ddof=1), rtol=1e-6)
