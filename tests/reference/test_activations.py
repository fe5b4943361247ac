"""The activations against mpmath, identities, their formulas and the maxima that they smooth."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_core import spec
from acon_core.reference import forward
from acon_core.surgery.bounds import KAPPA, bounds_of

mp = mpmath.mp

with mpmath.workdps(50):
    SCALE = mp.mpf("1.0507009873554804934193349852946")
# The textbook formulas, for mpmath at 50 digits.
FORMULAS = {
    spec.Identity(): lambda x: x,
    spec.ReLU(): lambda x: max(x, 0),
    spec.ReLU6(): lambda x: min(max(x, 0), 6),
    spec.LeakyReLU(slope=0.25): lambda x: x if x > 0 else x / 4,
    spec.ELU(alpha=1.5): lambda x: x if x > 0 else (mp.exp(x) - 1) * 3 / 2,
    spec.SELU(): lambda x: SCALE * (x if x > 0 else mp.mpf("1.6732632423543772848170429916717") * (mp.exp(x) - 1)),
    spec.CELU(alpha=1.75): lambda x: x if x > 0 else (mp.exp(x * 4 / 7) - 1) * 7 / 4,
    spec.GELU(): lambda x: x * (1 + mp.erf(x / mp.sqrt(2))) / 2,
    spec.GELU(approximate="tanh"): lambda x: (
        x * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3))) / 2
    ),
    spec.SiLU(): lambda x: x / (1 + mp.exp(-x)),
    spec.Mish(): lambda x: x * mp.tanh(mp.log(1 + mp.exp(x))),
    spec.Softplus(beta=1.75): lambda x: mp.log(1 + mp.exp(x * 7 / 4)) * 4 / 7,
    spec.HardSwish(): lambda x: x * min(max(x + 3, 0), 6) / 6,
    spec.HardSigmoid(): lambda x: min(max(x + 3, 0), 6) / mp.mpf(6),
    spec.Sigmoid(): lambda x: 1 / (1 + mp.exp(-x)),
}  # fmt: skip
# The gradient at the kinks of a formula, as the docstrings of the spec define it.
KINKS = {
    spec.ReLU(): {0.0: 0.0},
    spec.ReLU6(): {0.0: 0.0, 6.0: 0.0},
    spec.LeakyReLU(slope=0.25): {0.0: 0.25},
    spec.ELU(alpha=1.5): {0.0: 1.5},
    spec.SELU(): {0.0: 1.7580993408473768599402175208123},
    spec.CELU(alpha=1.75): {0.0: 1.0},
    spec.HardSwish(): {-3.0: 0.0, 3.0: 1.0},
    spec.HardSigmoid(): {-3.0: 0.0, 3.0: 0.0},
}


def test_every_elementwise_function_is_tested() -> None:
    assert {type(node) for node in FORMULAS} == {
        kind for kind in spec.ACTIVATIONS.values() if issubclass(kind, spec.Elementwise)
    }


def reference(node: spec.Node, x: float, **state: float) -> tuple[float, float]:
    """Compute the value and the derivative at one point."""
    values = {name: np.full(param.shape, state[name]) for name, param in spec.named_params(node).items()}
    result = forward(node, values, [np.full((1, 1), x)])
    return float(result.values[0][0, 0]), float(result.vjp((np.ones((1, 1)),)).inputs[0][0, 0])


@pytest.mark.parametrize("node", FORMULAS, ids=str)
@given(thousandths=st.integers(-100_000, 100_000))
@settings(max_examples=60, deadline=None)
def test_values_and_derivatives_against_mpmath(node: spec.Node, thousandths: int) -> None:
    """Compare at points that are not kinks."""
    x = thousandths / 1000 + 0.0003
    y, slope = reference(node, x)
    with mpmath.workdps(50):
        exact, derivative = FORMULAS[node](mpmath.mpf(x)), mpmath.diff(FORMULAS[node], mpmath.mpf(x))
        assert abs(y - exact) <= 4e-16 * max(abs(x), 1)
        assert abs(slope - derivative) <= 4e-15


@pytest.mark.parametrize("node", FORMULAS, ids=str)
def test_gradients_at_kinks_of_elementwise_functions(node: spec.Node) -> None:
    for x, slope in KINKS.get(node, {}).items():
        for signed in {x, -x} if x == 0 else {x}:
            assert reference(node, signed)[1] == pytest.approx(slope, abs=1e-15), (node, signed)


@pytest.mark.parametrize("node", FORMULAS, ids=str)
def test_finite_for_large_inputs(node: spec.Node) -> None:
    for x in (1e30, -1e30, 3e38, -3e38, 1e4, -1e4, 710.0, -745.2):
        y, slope = reference(node, x)
        assert math.isfinite(y), x
        assert math.isfinite(slope), x


values = st.integers(-4000, 4000).map(lambda n: n / 1000)
gates = st.integers(-2500, 2500).map(lambda n: n / 1000)


@given(x=values, p2=gates, beta=gates)
@settings(max_examples=80, deadline=None)
def test_acon_a_b_and_swish_are_special_cases_of_acon_c(x: float, p2: float, beta: float) -> None:
    assert reference(spec.AconA(1), x, beta=beta) == reference(spec.AconC(1), x, p1=1.0, p2=0.0, beta=beta)
    assert reference(spec.AconB(1), x, p2=p2, beta=beta) == reference(spec.AconC(1), x, p1=1.0, p2=p2, beta=beta)
    assert reference(spec.Swish(), x, weight=beta) == reference(spec.AconC(1), x, p1=1.0, p2=0.0, beta=beta)


def smooth_maximum(arguments: list[np.ndarray], beta: float) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    names = [f"x{i}" for i in range(len(arguments))]
    node = spec.graph(", ".join(names), [f"y = s({', '.join(names)})"], "y", {"s": spec.SmoothMaximum(beta)})
    result = forward(node, {}, arguments)
    return result.values[0], result.vjp((np.ones_like(arguments[0]),)).inputs


@given(x=st.lists(values, min_size=2, max_size=5), beta=gates)
@settings(max_examples=80, deadline=None)
def test_smooth_maximum_against_mpmath(x: list[float], beta: float) -> None:
    y, slopes = smooth_maximum([np.full((1, 1), each) for each in x], beta)

    def exact(*arguments: mpmath.mpf) -> mpmath.mpf:
        powers = [mp.exp(mpmath.mpf(beta) * each) for each in arguments]
        return sum(each * power for each, power in zip(arguments, powers, strict=True)) / sum(powers)

    with mpmath.workdps(40):
        points = [mpmath.mpf(each) for each in x]
        assert abs(y[0, 0] - exact(*points)) <= 1e-14
        for index, slope in enumerate(slopes):
            order = tuple(int(i == index) for i in range(len(x)))
            assert abs(slope[0, 0] - mpmath.diff(exact, tuple(points), order)) <= 1e-13


def test_limits_of_smooth_maximum() -> None:
    """Compare with maxima for large beta, with ACON-A and -B for any, and with the mean for 0."""
    x = np.random.default_rng(0).uniform(-3, 3, (2, 1, 4, 5))
    pairs = {"relu": 0 * x, "prelu": 0.25 * x, "frelu": np.roll(x, 1, 3)}
    for other in pairs.values():
        near, _ = smooth_maximum([x, other], 400.0)
        np.testing.assert_allclose(near, np.maximum(x, other), atol=0.2785 / 400)
        np.testing.assert_allclose(smooth_maximum([x, other], 0.0)[0], (x + other) / 2, atol=1e-15)
        np.testing.assert_allclose(smooth_maximum([x, other], -400.0)[0], np.minimum(x, other), atol=0.2785 / 400)
    state = {"beta": np.full((1, 1, 1, 1), 1.7)}
    np.testing.assert_allclose(smooth_maximum([x, 0 * x], 1.7)[0], forward(spec.AconA(1), state, [x]).values[0], atol=1e-15)
    state["p2"] = np.full((1, 1, 1, 1), 0.25)
    np.testing.assert_allclose(smooth_maximum([x, 0.25 * x], 1.7)[0], forward(spec.AconB(1), state, [x]).values[0], atol=1e-15)


def test_smooth_maximum_does_not_overflow() -> None:
    a, b = np.array([[1e300, -1e300, 1e4]]), np.array([[1e299, 1e300, -1e4]])
    y, slopes = smooth_maximum([a, b], 2.0)
    np.testing.assert_array_equal(y, np.maximum(a, b))
    np.testing.assert_array_equal(slopes[0], (a > b).astype(float))


def test_gradient_of_maximum_at_ties() -> None:
    node = spec.graph("a, b", ["y = max(a, b)"], "y", {"max": spec.Maximum()})
    result = forward(node, {}, [np.array([[1.0, 2.0, -3.0, 0.0]]), np.array([[1.5, 2.0, -4.0, -0.0]])])
    np.testing.assert_array_equal(result.values[0], [[1.5, 2.0, -3.0, 0.0]])
    first, second = result.vjp((np.array([[8.0, 8.0, 8.0, 8.0]]),)).inputs
    np.testing.assert_array_equal(first, [[0.0, 4.0, 8.0, 4.0]])
    np.testing.assert_array_equal(second, [[8.0, 4.0, 0.0, 4.0]])


def test_dyrelu_with_theta_0_is_relu() -> None:
    """The two lines are x and 0, so the gradient at the tie x = 0 is 1/2."""
    for variant in ("A", "B"):
        node = spec.DyReLU(5, variant=variant)  # type: ignore[arg-type]
        table = spec.named_params(node)
        state = {path: p.init.draw(p.shape, None) if p.kind == "derived" else np.zeros(p.shape) for path, p in table.items()}  # type: ignore[arg-type]
        x = np.array([-2.0, -0.5, 0.0, 0.5, 3.0]).reshape(1, 5)
        result = forward(node, state, [x])
        np.testing.assert_array_equal(result.values[0], np.maximum(x, 0))
        np.testing.assert_array_equal(result.vjp((np.ones_like(x),)).inputs[0], [[0, 0, 0.5, 1, 1]])


@given(p1=gates, p2=gates, beta=gates, x=st.lists(st.floats(-50, 50), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_derivative_within_bounds(p1: float, p2: float, beta: float, x: list[float]) -> None:
    state = {name: np.full((1, 1, 1, 1), value) for name, value in {"p1": p1, "p2": p2, "beta": beta}.items()}
    found = bounds_of(spec.AconC(1), state)
    slopes = forward(spec.AconC(1), state, [np.array(x).reshape(1, 1, -1)]).vjp((np.ones((1, 1, len(x))),)).inputs[0]
    assert (slopes >= found.low[0] - 1e-12).all()
    assert (slopes <= found.high[0] + 1e-12).all()


def test_derivative_bounds_are_tight() -> None:
    """The extremes are at z = +-2.3993572805154677, where the second derivative is 0."""
    assert pytest.approx((2.3993572805154676678 + 2) / 4, abs=1e-15) == KAPPA
    state = {"p1": np.full((1, 1, 1, 1), 1.2), "p2": np.full((1, 1, 1, 1), -0.8), "beta": np.full((1, 1, 1, 1), 1.5)}
    found = bounds_of(spec.AconC(1), state)
    ends = [reference(spec.AconC(1), z / 3.0, p1=1.2, p2=-0.8, beta=1.5)[1] for z in (-2.3993572805154677, 2.3993572805154677)]
    assert ends == pytest.approx([found.low[0], found.high[0]], abs=1e-14)
    flat = bounds_of(spec.AconC(1), state | {"beta": np.zeros((1, 1, 1, 1))})
    assert (flat.low[0], flat.high[0], flat.linear[0]) == (pytest.approx(0.2), pytest.approx(0.2), True)


def test_channel_axis() -> None:
    """A channelwise activation gives the same values, transposed, for every channel axis."""
    x = np.random.default_rng(2).uniform(-3, 3, (3, 6, 4, 5))
    for name, kind in spec.ACTIVATIONS.items():
        if not issubclass(kind, spec.ChannelwiseActivation):
            continue
        first = spec.activation(name, 6)
        state = {path: np.asarray(value, np.float64) for path, value in spec.initial_state(first, 4).items()}
        expected = forward(first, state, [x]).values[0]
        for axis in (1, 2, 3, -1, -2):
            turned = np.moveaxis(x, 1, axis)
            found = forward(spec.activation(name, 6, channel_axis=axis), state, [turned]).values[0]
            np.testing.assert_array_equal(np.moveaxis(found, axis, 1), expected, err_msg=f"{name} {axis}")


def sigma(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def acon(x: np.ndarray, p1: np.ndarray | float, p2: np.ndarray | float, beta: np.ndarray) -> np.ndarray:
    """Compute ACON-C with the operations of the released code."""
    return (p1 * x - p2 * x) * sigma(beta * (p1 * x - p2 * x)) + p2 * x


def norm(x: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Apply batch normalisation in evaluation mode."""
    w, b, m, v = (state[f"{name}.{key}"].reshape(1, -1, 1, 1) for key in ("weight", "bias", "running_mean", "running_var"))
    return w * (x - m) / np.sqrt(v + 1e-5) + b


def layer_norm(x: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    w, b = (state[f"{name}.{key}"].reshape(1, -1, 1, 1) for key in ("weight", "bias"))
    return w * (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) + b


def full(x: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Apply a 1x1 convolution to one pixel, or a linear layer."""
    weight = state[f"{name}.weight"].reshape(len(state[f"{name}.bias"]), -1)
    flat = x.reshape(len(x), -1)
    return (flat @ weight.T + state[f"{name}.bias"]).reshape(len(x), -1, 1, 1)


def funnel(x: np.ndarray, state: dict[str, np.ndarray], stride: int = 1) -> np.ndarray:
    """Apply a depthwise 3x3 convolution with padding 1, pixel by pixel."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = (range(0, size, stride) for size in x.shape[2:])
    windows = np.stack([np.stack([padded[:, :, i : i + 3, j : j + 3] for j in columns], 2) for i in rows], 2)
    return (windows * state["conv_frelu.weight"][:, 0][:, None, None]).sum((4, 5)) + state["conv_frelu.bias"].reshape(
        1, -1, 1, 1
    )


def pooled(x: np.ndarray) -> np.ndarray:
    """Apply a 3x3 max pool with stride 2 and padding 1, pixel by pixel."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    rows, columns = (range(0, size, 2) for size in x.shape[2:])
    return np.stack([np.stack([padded[:, :, i : i + 3, j : j + 3].max((2, 3)) for j in columns], 2) for i in rows], 2)


def dynamic(x: np.ndarray, s: dict[str, np.ndarray]) -> np.ndarray:
    theta = full(np.maximum(full(x.mean((2, 3)), s, "fc1"), 0), s, "fc2")
    a1, a2, b1, b2 = np.moveaxis((2 * sigma(theta) - 1).reshape(len(x), -1, 4) * [1, 1, 0.5, 0.5] + [1, 0, 0, 0], 2, 0)
    a1, a2, b1, b2 = (each[:, :, None, None] for each in (a1, a2, b1, b2))
    return np.maximum(a1 * x + b1, a2 * x + b2)


def generated(x: np.ndarray, s: dict[str, np.ndarray], beta: np.ndarray) -> np.ndarray:
    return acon(x, s["p1"], s["p2"], sigma(beta))


# Every activation with parameters, in evaluation mode, from the papers and the released code.
WRITTEN_OUT = {
    "swish": lambda x, s: x * sigma(s["weight"] * x),
    "prelu": lambda x, s: np.maximum(x, 0) + s["weight"] * np.minimum(x, 0),
    "prelu(shared=false)": lambda x, s: np.maximum(x, 0) + s["weight"].reshape(1, -1, 1, 1) * np.minimum(x, 0),
    "arelu": lambda x, s: np.maximum(x, 0) * (1 + sigma(s["beta"])) - np.maximum(-x, 0) * np.clip(s["alpha"], 0.01, 0.99),
    "dyrelu(variant=A)": dynamic,
    "dyrelu(variant=B)": dynamic,
    "frelu": lambda x, s: np.maximum(x, norm(funnel(x, s), s, "bn_frelu")),
    "acon_a": lambda x, s: x * sigma(s["beta"] * x),
    "acon_b": lambda x, s: acon(x, 1.0, s["p2"], s["beta"]),
    "acon_c": lambda x, s: acon(x, s["p1"], s["p2"], s["beta"]),
    "acon_c(shared=true)": lambda x, s: acon(x, s["p1"].item(), s["p2"].item(), s["beta"].item()),
    "meta_acon(reduction=4)": lambda x, s: generated(
        x, s, norm(full(norm(full(x.mean((2, 3)), s, "fc1"), s, "bn1"), s, "fc2"), s, "bn2")
    ),
    "meta_acon(reduction=4, norm=none)": lambda x, s: generated(x, s, full(full(x.mean((2, 3)), s, "fc1"), s, "fc2")),
    "meta_acon(reduction=4, norm=layer)": lambda x, s: generated(
        x, s, layer_norm(full(layer_norm(full(x.mean((2, 3)), s, "fc1"), s, "ln1"), s, "fc2"), s, "ln2")
    ),
    "meta_acon(level=layer)": lambda x, s: generated(x, s, x.sum((1, 2, 3), keepdims=True)),
    "meta_acon(level=layer, reduce=mean)": lambda x, s: generated(x, s, x.mean((1, 2, 3), keepdims=True)),
    "meta_acon(level=pixel)": lambda x, s: generated(x, s, x),
    "acon_frelu": lambda x, s: norm(acon(1.0, x, norm(funnel(x, s), s, "bn1"), 1.0), s, "bn2"),
    "acon_frelu(stride=2)": lambda x, s: norm(acon(1.0, pooled(x), norm(funnel(x, s, 2), s, "bn1"), 1.0), s, "bn2"),
}
INITIAL = {
    "swish": {"weight": 0.25},
    "prelu": {"weight": 0.25},
    "arelu": {"alpha": 0.9, "beta": 2.0},
    "acon_a": {"beta": 1.0},
    "acon_b": {"p2": 0.25, "beta": 1.0},
    "acon_c": {"beta": 1.0},
    "acon_c(init=paper)": {"p1": 1.0, "p2": 0.0, "beta": 1.0},
    "acon_c(init=paper, shared=true)": {"p1": 1.0, "p2": 0.0, "beta": 1.0},
    "meta_acon(init=paper)": {"p1": 1.0, "p2": 0.0},
    "repact": {"weights": 0.25, "alpha": 0.25},
    "fused_repact": {"identity": 0.3125, "relu": 0.4375, "hardswish": 0.25},
}


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_activations_against_their_formulas(name: str) -> None:
    random = np.random.default_rng(5)
    node = spec.bind(spec.activation(name), 6)
    state = {
        path: param.init.draw(param.shape, None) if param.kind == "derived" else random.uniform(0.3, 1.4, param.shape)  # type: ignore[arg-type]
        for path, param in spec.named_params(node).items()
    }
    state = {path: -value if path in ("p2", "fc2.weight", "fc1.bias") else value for path, value in state.items()}
    x = random.uniform(-3, 3, (3, 6, 4, 5)) * (0.05 if name == "meta_acon(level=layer)" else 1.0)
    found = forward(node, state, [x]).values[0]
    np.testing.assert_allclose(found, WRITTEN_OUT[name](x, state), rtol=0, atol=2e-14)


def test_every_activation_with_parameters_has_a_formula() -> None:
    """The formulas of RepAct are in `tests/spec/test_fusion.py`."""
    kinds = {type(spec.activation(name)) for name in WRITTEN_OUT}
    assert kinds | {spec.RepAct, spec.FusedRepAct} == {
        kind for kind in spec.ACTIVATIONS.values() if issubclass(kind, spec.Activation)
    }


@pytest.mark.parametrize("name", INITIAL)
def test_initial_values(name: str) -> None:
    state = spec.initial_state(spec.bind(spec.activation(name), 6), 1, "float64")
    for path, value in INITIAL[name].items():
        np.testing.assert_array_equal(state[path], value)


def test_initial_slopes_are_standard_normal() -> None:
    for name in ("acon_c", "meta_acon"):
        state = spec.initial_state(spec.activation(name, 4000), 1, "float64")
        for path in ("p1", "p2"):
            assert abs(state[path].mean()) < 0.08
            assert abs(state[path].std() - 1) < 0.06
