"""The Pallas kernels, on a GPU if there is one, else in Pallas's interpreter."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from acon_jax import functional, pallas_kernels
from gated_formulas import LAYOUTS, Array, X, evaluate, gates_of

from acon_core.kernels import geometry

pytestmark = pytest.mark.backend("jax")
INTERPRET = jax.default_backend() == "cpu"
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53, "bfloat16": 2.0**-8, "float16": 2.0**-11}
LEAST = {"float32": 1e-37, "float64": 1e-300, "bfloat16": 1e-37, "float16": 1e-7}
RULES = {
    "acon": functional._ACON,
    "slopes": functional._PRELU,
    "branches": functional._REPACT,
    "two_lines": functional._LINE_MAXIMUM,
}
C_ORDER = [name for name, (_, _, order, _) in LAYOUTS.items() if order is None]
ONE_STEP, STEPS = (1024, 2048), (256, 1)
CASES = [("float32", layout, ONE_STEP) for layout in C_ORDER]
CASES += [("float32", layout, STEPS) for layout in ("mixed", "pixels", "tokens")]
CASES += [(dtype, "pixels", STEPS) for dtype in ("float64", "bfloat16", "float16")]


def check(found: Any, expected: tuple[Array, Array], unit: float, least: float, what: str) -> None:
    value, scale = (np.broadcast_to(each, found.shape) for each in expected)
    error = np.abs(np.asarray(found).astype(float) - value)
    assert (error <= unit * scale + least).all(), (what, (error / (unit * scale + least)).max())


@pytest.mark.parametrize(("dtype", "layout", "tile"), CASES)
@pytest.mark.parametrize("function", RULES)
def test_values_and_gradients(
    function: str, dtype: str, layout: str, tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pallas_kernels, "TILE", tile[0])
    monkeypatch.setattr(pallas_kernels, "ENOUGH", tile[1])
    shape, axis, _, _ = LAYOUTS[layout]
    rng = np.random.default_rng(5)
    with jax.enable_x64(dtype == "float64"):
        x, g = (jnp.asarray(rng.normal(0, scale, shape), dtype) for scale in (3, 1))
        shapes = gates_of(function, layout)
        wide = "float64" if dtype == "float64" else "float32"
        gates = [jnp.asarray(rng.normal(0.3, 0.8, each), dtype if each == shape else wide) for each in shapes]
        only_channels = tuple(size if each == axis else 1 for each, size in enumerate(shape))
        plan = geometry(
            function, dtype, shape, tuple(shape[axis : axis + 1] if s == only_channels else s for s in shapes), axis
        )
        assert plan is not None
        run = jax.jit(partial(pallas_kernels.run, RULES[function], plan, interpret=INTERPRET))
        (y,) = run(x, gates)
        dx, *dgates = run(x, gates, g)
        again = run(x, gates, g)
        for one, two in zip((dx, *dgates), again, strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(two))
    exact = [np.asarray(each).astype(float) for each in (x, g, *gates)]
    expected = evaluate(function, exact[0], exact[2:], exact[1])
    unit, half = UNIT[wide], 0.0 if dtype == wide else UNIT[dtype]
    check(y, expected.y, 8 * unit + half, LEAST[dtype], "y")
    check(dx, expected.dx, 10 * unit + half, LEAST[dtype], "dx")
    for k, (found, wanted) in enumerate(zip(dgates, expected.dgates, strict=True)):
        whole = half if shapes[k] == shape else 0.0
        check(found, wanted, 12 * unit + whole, LEAST[dtype] if whole else LEAST["float32"], f"gate {k}")


def test_constant_gates_and_infinite_ones() -> None:
    rng = np.random.default_rng(6)
    x, g = (jnp.asarray(rng.normal(0, 2, X), "float32") for _ in range(2))
    beta = jnp.asarray([0.5, 1.0, jnp.inf, 2.0, 3.0])
    plan = geometry("acon", "float32", X, (0.75, -0.125, (5,)), 1)
    assert plan is not None
    dx, dbeta = pallas_kernels.run(RULES["acon"], plan, x, [beta], g, interpret=INTERPRET)
    ranked = [np.full((1, 1, 1, 1), each) for each in (0.75, -0.125)]
    with np.errstate(invalid="ignore"):
        wanted = evaluate("acon", np.asarray(x).astype(float), [*ranked, np.asarray(beta).reshape(1, 5, 1, 1)], np.asarray(g))
    finite = np.array([0, 1, 3, 4])
    check(dx[:, finite], tuple(each[:, finite] for each in wanted.dx), 1e-6, 1e-37, "dx")
    assert np.isfinite(dx).all()  # the slopes beside an infinite beta are 0.75 and -0.125
    check(dbeta[finite], tuple(each.ravel()[finite] for each in wanted.dgates[2]), 1e-6, 1e-37, "beta")
