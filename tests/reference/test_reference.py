"""The reference against finite differences, mpmath, exact identities and the published outputs."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import DATA

from acon_core import spec
from acon_core.backends import Vjp
from acon_core.checkpoint import read_network
from acon_core.conformance.cases import Case, load_cases
from acon_core.errors import OneValuePerChannelError, SpecError, StateError
from acon_core.reference import forward

LAYERS = [case for case in load_cases() if case.scope == "layer" and not case.raises and case.gradients]
# Cases for finite differences: no kink between the points, no value much smaller than the step.
SMOOTH = [case for case in LAYERS if not case.values or case.name.startswith("sigmoid")]


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.name)
def test_gradients_against_finite_differences(case: Case) -> None:
    """Compare along a random direction of the input, and of each parameter, with four points."""
    # A step must not reach the next kink. The near-ties of a max pool need a smaller step.
    node, step = case.build(), 1e-7 if "max_pool2d" in case.name else 1e-5
    state = {path: array.astype(np.float64) for path, array in case.state(node).items()}
    # Move away from the kinks, where many values that are exact in 16 bits lie.
    x = case.x(0) + np.random.default_rng(1).uniform(1e-3, 2e-3, case.batches[0])
    result = forward(node, state, [x], case.train)
    cotangent = case.cotangent(0, result.values[0].shape).astype(np.float64)
    back = result.vjp((cotangent,))
    random = np.random.default_rng(0)
    for path in ["", *back.params]:
        gradient = back.params[path] if path else back.inputs[0]
        scale = back.scales[path] if path else back.input_scales[0]
        direction = random.choice([-1.0, 1.0], gradient.shape)

        def at(t: float, path: str = path, direction: np.ndarray = direction) -> float:
            moved = {**state, **({path: state[path] + t * direction} if path else {})}
            y = forward(node, moved, [x if path else x + t * direction], case.train).values[0]
            return float((cotangent * y).sum())

        quotient = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)
        assert abs(quotient - (gradient * direction).sum()) <= 2e-8 * max(scale.sum(), 1e-3), path


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_scales_bound_gradients(case: Case) -> None:
    node = case.build()
    result = forward(node, case.state(node), [case.x(0)], case.train)
    back = result.vjp((case.cotangent(0, result.values[0].shape).astype(np.float64),))
    assert set(back.params) == set(back.scales)
    for path, gradient in back.params.items():
        assert (np.abs(gradient) <= back.scales[path] * (1 + 1e-9) + 1e-300).all(), path
    assert (np.abs(back.inputs[0]) <= back.input_scales[0] * (1 + 1e-9) + 1e-300).all()


def gate(*values: float) -> list[np.ndarray]:
    return [np.full((1, 1, 1, 1), value) for value in values]


def acon(x: np.ndarray, p1: float, p2: float, beta: float) -> Vjp:
    node = spec.AconC(1)
    state = dict(zip(("p1", "p2", "beta"), gate(p1, p2, beta), strict=True))
    result = forward(node, state, [x.reshape(1, 1, -1)])
    back = result.vjp((np.ones((1, 1, x.size)),))
    return Vjp(result.values[0].reshape(-1), back.inputs[0].reshape(-1), back.params)


def thousandths(limit: int) -> st.SearchStrategy[float]:
    """Make values for which the numerical derivative of mpmath is accurate."""
    return st.integers(-1000 * limit, 1000 * limit).map(lambda n: n / 1000)


@given(x=thousandths(30), p1=thousandths(3), p2=thousandths(3), beta=thousandths(5))
@settings(max_examples=200, deadline=None)
def test_acon_c_against_mpmath(x: float, p1: float, p2: float, beta: float) -> None:
    with mpmath.workdps(60):
        a, b, k, t = (mpmath.mpf(value) for value in (p1, p2, beta, x))

        def f(t: mpmath.mpf, a: mpmath.mpf, b: mpmath.mpf, k: mpmath.mpf) -> mpmath.mpf:
            return (a - b) * t / (1 + mpmath.exp(-k * (a - b) * t)) + b * t

        expected = [f(t, a, b, k), *(mpmath.diff(f, (t, a, b, k), order) for order in ORDERS)]
        found = acon(np.array([x]), p1, p2, beta)
        gradients = [found.dx[0], *(found.dparams[name].item() for name in ("p1", "p2", "beta"))]
        slope = abs(p1) + abs(p2)
        scales = [abs(x) * slope, slope, abs(x), abs(x), (x * (p1 - p2)) ** 2]
        curvature = 1 + abs(beta * (p1 - p2) * x)
        for value, exact, scale in zip([found.y[0], *gradients], expected, scales, strict=True):
            assert abs(value - exact) <= 2e-15 * curvature * scale + 1e-50


ORDERS = [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]


def test_identities_of_acon_c() -> None:
    x = np.linspace(-7.3, 6.1, 401)
    p1, p2, beta = 1.2, -0.8, 1.7
    y = acon(x, p1, p2, beta).y
    a = p1 - p2
    sigmoid = 1 / (1 + np.exp(-beta * a * x))
    for other in (
        acon(x, p2, p1, beta).y,
        (p1 + p2) * x - acon(x, p1, p2, -beta).y,
        (p1 + p2) * x + acon(-x, p1, p2, beta).y,
        acon(2 * x, p1, p2, beta / 2).y / 2,
        (p1 + p2) * x / 2 + a * x / 2 * np.tanh(beta * a * x / 2),
        p1 * x * sigmoid + p2 * x * (1 - sigmoid),
    ):
        np.testing.assert_allclose(other, y, rtol=0, atol=6e-15)
    np.testing.assert_array_equal(acon(x, p1, p2, 0.0).y, x * (p2 + a * 0.5))
    np.testing.assert_allclose(acon(x, 1.0, 0.0, 1.0).y, x / (1 + np.exp(-x)), rtol=1e-15)
    np.testing.assert_allclose(acon(x, p1, p2, 1e6).y, np.maximum(p1 * x, p2 * x), atol=1e-9)


def test_published_bounds_of_the_derivative() -> None:
    """The maximum of f' is k p1 + (1 - k) p2 with k = 1.0998..., at beta (p1 - p2) x = 2.3993...

    Source: Ma et al. 2021, section 3.2.
    """
    kappa, peak = 1.099839320128866917, 2.3993572805154676678
    p1, p2, beta = 1.2, -0.8, 0.9
    x = np.append(np.linspace(-40, 40, 20001), peak / (beta * (p1 - p2)))
    slope = acon(x, p1, p2, beta).dx
    assert slope[-1] == pytest.approx(kappa * p1 + (1 - kappa) * p2, rel=1e-15)
    assert slope.max() <= slope[-1] * (1 + 1e-15)
    assert slope.min() >= kappa * p2 + (1 - kappa) * p1 - 1e-15


def test_conv2d_against_loops() -> None:
    node = spec.Conv2d(4, 6, (2, 3), (1, 2), (1, 0), (2, 1), groups=2)
    random = np.random.default_rng(1)
    x, w, b = random.normal(size=(2, 4, 5, 7)), random.normal(size=(6, 2, 2, 3)), random.normal(size=6)
    y = forward(node, {"weight": w, "bias": b}, [x]).values[0]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    for n, o, h, v in np.ndindex(y.shape):
        first = 2 * (o // 3)
        terms = [w[o, i, u, t] * padded[n, first + i, h + 2 * u, 2 * v + t] for i, u, t in np.ndindex(2, 2, 3)]
        assert y[n, o, h, v] == pytest.approx(b[o] + sum(terms), rel=1e-13, abs=1e-13)


def test_batch_norm_by_hand() -> None:
    """The three values have mean 2, biased variance 2/3 and unbiased variance 1."""
    node = spec.BatchNorm(1, eps=0.0, decay=0.9)
    state = {"weight": np.array([3.0]), "bias": np.array([0.5]), "running_mean": np.array([10.0])}
    state |= {"running_var": np.array([4.0]), "num_batches_tracked": np.array(7)}
    result = forward(node, state, [np.array([[1.0], [2.0], [3.0]])], train=True)
    np.testing.assert_allclose(result.values[0][:, 0], 0.5 + 3 * np.array([-1, 0, 1]) / np.sqrt(2 / 3))
    assert result.statistics["running_mean"].item() == pytest.approx(0.9 * 10 + 0.1 * 2)
    assert result.statistics["running_var"].item() == pytest.approx(0.9 * 4 + 0.1 * 1)
    assert result.statistics["num_batches_tracked"].item() == 8


def test_interleaved_split_is_shuffle_and_halves() -> None:
    x = np.random.default_rng(2).normal(size=(2, 10, 3))
    even, odd = forward(spec.Split(2, interleaved=True), {}, [x]).values
    shuffled = forward(spec.ChannelShuffle(5), {}, [x]).values[0]
    first, second = forward(spec.Split(2, interleaved=False), {}, [shuffled]).values
    np.testing.assert_array_equal(even, x[:, 0::2])
    np.testing.assert_array_equal(np.concatenate([even, odd], 1), np.concatenate([first, second], 1))


@pytest.mark.parametrize("name", ["max_pool2d/ties", "relu/kink"])
def test_gradients_at_kinks(name: str) -> None:
    if name == "relu/kink":
        back = forward(spec.ReLU(), {}, [np.array([[0.0, -0.0, 1e-300, -1e-300]])]).vjp((np.ones((1, 4)),))
        assert back.inputs[0].tolist() == [[0.0, 0.0, 1.0, 0.0]]
        return
    x = np.array([2.0, 2.0, 1.0, 2.0]).reshape(1, 1, 2, 2)
    back = forward(spec.MaxPool2d(2, 1), {}, [x]).vjp((np.full((1, 1, 1, 1), 5.0),))
    assert back.inputs[0].reshape(-1).tolist() == [5.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["shufflenetv2_acon_0.5x", "tfnet_0.5"])
def test_published_logits(name: str) -> None:
    checkpoint = read_network(DATA / f"{name}.pth.tar")
    with np.load(DATA / "photos_bgr_224.npz") as photos, np.load(DATA / f"{name}.out.npz") as published:
        logits = forward(checkpoint.network.graph, checkpoint.state, [photos["images"]]).values[0]
        assert np.abs(logits - published["logits"]).max() <= 1e-14 * np.abs(published["logits"]).max()


def test_errors_name_the_path() -> None:
    node = spec.sequential(spec.Conv2d(3, 4, 1), spec.BatchNorm(4), spec.Dropout(0.5))
    state = spec.initial_state(node)
    with pytest.raises(OneValuePerChannelError, match=r"^1: training needs more than one value per channel"):
        forward(node, state, [np.ones((1, 3, 1, 1))], train=True)
    with pytest.raises(SpecError, match=r"^2: Dropout"):
        forward(node, state, [np.ones((2, 3, 1, 1))], train=True)
    with pytest.raises(StateError, match=r"^0\.bias: missing"):
        forward(node, {path: array for path, array in state.items() if path != "0.bias"}, [np.ones((2, 3, 1, 1))])
    with pytest.raises(StateError, match=r"^0\.weight: expected shape \(4, 3, 1, 1\), found \(3, 4, 1, 1\)"):
        forward(node, state | {"0.weight": np.ones((3, 4, 1, 1))}, [np.ones((2, 3, 1, 1))])
