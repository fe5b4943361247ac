"""Input shapes, channel axes and gate shapes that are refused or accepted in JAX."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest

from acon_core import spec
from acon_core.errors import SpecError

pytestmark = pytest.mark.backend("jax")

WRONG_INPUTS = [
    ("AconC", {}, (2, 4, 5)), ("AconC", {}, (6,)), ("AconC", {}, (2, 6, 4)), ("AconC", {"channel_axis": 1}, (2, 4, 6)),
    ("AconC", {"channel_axis": 3}, (2, 6)), ("AconC", {"channel_axis": -2}, (6, 4)), ("AconA", {}, (2, 3, 1)),
    ("MetaAconC", {}, (2, 5, 5, 4)), ("DyReLU", {}, (2, 5, 5, 4)), ("PReLU", {"shared": False}, (2, 5)),
    ("FReLU", {}, (2, 4, 6)), ("FReLU", {}, (2, 6)), ("AconFReLU", {}, (2, 4, 4, 4, 6)), ("AconFReLU", {}, (2, 4, 4, 5)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "shape"), WRONG_INPUTS)
def test_wrong_input_shape_is_refused(name: str, options: dict[str, object], shape: tuple[int, ...]) -> None:
    import acon_jax
    import jax.numpy as jnp
    from flax import nnx

    module, x = getattr(acon_jax, name)(6, rngs=nnx.Rngs(0), **options), jnp.zeros(shape)
    for run in (module, partial(nnx.jit(lambda module, x: module(x)), module)):
        with pytest.raises(
            SpecError, match=f"{name}: expected an input.* with 6 channels .*found shape {re.escape(str(shape))}"
        ):
            run(x)


def test_input_with_any_channel_axis() -> None:
    import acon_jax
    import jax.numpy as jnp
    from acon_jax.backend import backend
    from flax import nnx

    for axis, shape in (
        (-1, (2, 6)),
        (1, (2, 6)),
        (1, (0, 6, 3)),
        (2, (2, 3, 6, 4)),
        (-2, (2, 3, 6, 4)),
        (-1, (2, 3, 4, 5, 6)),
    ):
        assert acon_jax.AconC(6, channel_axis=axis, rngs=nnx.Rngs(0))(jnp.zeros(shape)).shape == shape
    own = backend.build(spec.AconC(6, channel_axis=-1))  # the axis counts in (N, C, ...), as in every spec
    assert own(np.zeros((2, 9, 7, 6), np.float32)).y.shape == (2, 9, 7, 6)
    with pytest.raises(SpecError, match=r"6 channels at axis -1, found shape \(2, 6, 7, 9\)"):
        own(np.zeros((2, 6, 7, 9), np.float32))


def test_invalid_channel_axis_and_missing_rngs() -> None:
    import acon_jax
    import jax.numpy as jnp
    from flax import nnx

    for axis in (0, "last"):
        for make in (
            acon_jax.AconC,
            acon_jax.PReLU,
            partial(acon_jax.activation, "acon_c"),
            partial(acon_jax.activation, "prelu"),
        ):
            with pytest.raises(SpecError, match=f"expected channel_axis 1 .* found {axis!r}"):
                make(6, channel_axis=axis, rngs=nnx.Rngs(0))
    with pytest.raises(SpecError, match=r"channel_axis 3: expected an axis of x \(2, 5\)"):
        acon_jax.PReLU(channel_axis=3, rngs=nnx.Rngs(0))(jnp.zeros((2, 5)))
    for axis in (0, 4, -4, -5):
        with pytest.raises(SpecError, match=f"channel_axis {axis}: expected an axis of x"):
            acon_jax.acon(jnp.zeros((2, 3, 4, 5)), 1.0, 0.0, 1.0, channel_axis=axis)
    with pytest.raises(TypeError, match="rngs"):
        acon_jax.AconC(6)


def test_gate_shapes() -> None:
    import jax
    import jax.numpy as jnp
    from acon_jax import acon
    from acon_jax import functional as F

    # (5, 1, 1) would broadcast along the batch; 2 x 3 positions are not 6 channels; 5 columns are
    # not 5 channels, although the sizes agree.
    wrong = [
        ((5, 3, 4, 5), -1, (5, 1, 1)), ((5, 3, 4, 5), -1, (3, 4, 5)), ((4, 2, 3, 6), -1, (4, 2, 3, 1)), ((2, 3, 5), -1, (3, 5)),
        ((2, 3, 5, 5), -1, (2, 1, 5, 1)), ((2, 3, 4, 5), -1, (2, 5, 1, 1)), ((2, 5, 3, 4), 1, (2, 1, 1, 5)),
        ((2, 3, 4, 5), -1, (4,)), ((2, 3, 4, 5), -1, (3, 1, 1, 5)), ((2, 3, 4, 5), 1, (5,)),
    ]  # fmt: skip
    for shape, axis, gate in wrong:
        for function in (partial(acon, channel_axis=axis), lambda x, *g, axis=axis: F.prelu(x, g[-1], channel_axis=axis)):
            with pytest.raises(SpecError, match=re.escape(f"found {gate} beside x {shape}")):
                jax.jit(function)(jnp.zeros(shape), 1.0, 0.0, jnp.zeros(gate))
    right = [
        ((2, 3, 4, 5), -1, (2, 1, 1, 1)), ((2, 5, 3, 4), 1, (2, 5, 1, 1)), ((2, 3, 5), -1, (2, 1, 1, 5)), ((5,), -1, (5,)),
        ((2, 5, 3), 1, (1, 5, 1, 1)), ((2, 3, 5), 1, (2, 3, 1)), ((), -1, ()), ((5,), -1, (1,)), ((2, 5), -1, (2, 1, 1, 5)),
    ]  # fmt: skip
    for shape, axis, gate in right:
        assert acon(jnp.zeros(shape), 1.0, 0.0, jnp.zeros(gate), channel_axis=axis).shape == shape


def test_smooth_maximum_invalid_inputs() -> None:
    import jax.numpy as jnp
    from acon_jax import smooth_maximum

    for shapes in ([], [(2, 3)], [(2, 3), (3,)], [(2, 3), (2, 3), (2, 1)]):
        with pytest.raises(SpecError, match="smooth_maximum: expected two values or more of one shape"):
            smooth_maximum(*map(jnp.zeros, shapes))
