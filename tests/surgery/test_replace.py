"""Which parameters preserve an old activation's function in a new one; input and option checks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from acon_core import spec
from acon_core.errors import SpecError
from acon_core.reference import forward
from acon_core.surgery.preserve import preserve

OLD = {
    "relu": (spec.ReLU(), {}),
    "identity": (spec.Identity(), {}),
    "leaky_relu": (spec.LeakyReLU(slope=0.125), {}),
    "prelu": (spec.PReLU(), {"weight": np.array([0.3])}),
    "prelu per channel": (spec.PReLU(4, shared=False), {"weight": np.array([0.3, -0.2, 1.0, 1.5])}),
    "steep": (spec.LeakyReLU(slope=2.0), {}),
    "hardswish": (spec.HardSwish(), {}),
    "silu": (spec.SiLU(), {}),
    "swish": (spec.Swish(), {"weight": np.array([0.7])}),
    "gelu": (spec.GELU(), {}),
}
RECTIFIERS = ("relu", "identity", "leaky_relu", "prelu", "steep")
EXACT = {
    *((old, new) for old in ("silu", "swish") for new in ("acon_a", "acon_b", "acon_c", "swish")),
    *((old, new) for old in (*RECTIFIERS, "hardswish") for new in ("repact", "fused_repact")),
    *((old, "prelu") for old in RECTIFIERS),
    ("identity", "acon_b"), ("identity", "acon_c"),
}  # fmt: skip
BOUNDED = {
    ("relu", "acon_a"),
    *((old, new) for old in ("relu", "leaky_relu", "prelu", "steep", "prelu per channel") for new in ("acon_b", "acon_c")),
}


@pytest.mark.parametrize("new", spec.ACTIVATIONS)
@pytest.mark.parametrize("old", OLD)
def test_preserve_bound_holds(old: str, new: str) -> None:
    before, old_state = OLD[old]
    after = spec.activation(new, 4)
    found = preserve(before, old_state, after, beta=50.0)
    expected = {True: 0.0}.get((old, new) in EXACT, 0.278464542761074 / 50 if (old, new) in BOUNDED else None)
    assert (None if found is None else found.bound) == expected
    if found is None:
        return
    state = spec.initial_state(after, 0, "float64") | found.values
    x = np.random.default_rng(1).uniform(-8, 8, (3, 4, 5, 6))
    x.reshape(-1)[:5] = [0.0, -3.0, 3.0, 1.278 / 50, -1.278 / 50]
    difference = forward(after, state, [x]).values[0] - forward(before, old_state, [x]).values[0]
    assert np.abs(difference).max() <= found.bound + 1e-14
    if found.bound:
        assert np.abs(difference).max() > found.bound / 100, "the bound says nothing"


def test_preserve_per_channel_parameters() -> None:
    old, state = OLD["prelu per channel"]
    for name in ("acon_b", "acon_c", "prelu(shared=false)"):
        new = spec.activation(name)
        assert preserve(old, state, spec.bind(new, 4), 50.0) is not None
        assert preserve(old, state, spec.bind(new, 6), 50.0) is None, "another width"
        assert preserve(old, state, replace(new, channels=4, channel_axis=-1), 50.0) is None, "another axis"  # type: ignore[call-arg]
    swish = spec.AconA(4), {"beta": np.array([0.5, 1.0, 1.5, 2.0]).reshape(1, 4, 1, 1)}
    assert preserve(*swish, spec.AconC(4), 50.0).bound == 0
    assert preserve(*swish, spec.AconC(4, channel_axis=2), 50.0) is None


def test_preserve_with_repact_variants_2_and_3() -> None:
    node = spec.RepAct(variant=3)
    found = preserve(spec.HardSwish(), {}, node, 50.0)
    state = spec.initial_state(node, 0, "float64") | found.values
    x = np.random.default_rng(1).uniform(-8, 8, (3, 4, 5, 6))
    np.testing.assert_allclose(forward(node, state, [x]).values[0], forward(spec.HardSwish(), {}, [x]).values[0], atol=1e-14)
    assert preserve(spec.HardSwish(), {}, spec.RepAct(variant=2), 50.0) is None


@pytest.mark.parametrize("shape", [(2, 4), (2, 7, 6), (6,), (), (6, 2)])
def test_wrong_channel_count_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match=r"AconC: expected an input with 6 channels at axis 1, found shape"):
        spec.check_input(spec.AconC(6), shape)


def test_valid_inputs_are_accepted() -> None:
    spec.check_input(spec.AconC(6), (2, 6))
    spec.check_input(spec.AconC(6, channel_axis=-1), (2, 9, 6))
    spec.check_input(spec.AconC(6), (-1, 6, -1, -1))
    spec.check_input(spec.RepAct(), (3,))
    spec.check_input(spec.FReLU(6), (2, 6, 3, 3))
    with pytest.raises(SpecError, match="FReLU: expected an input of rank 4"):
        spec.check_input(spec.FReLU(6), (2, 6, 3))


@pytest.mark.parametrize("gate", [(4,), (6, 1, 1), (1, 4, 1, 1), (2, 6, 3, 1), (3, 6, 1, 1)])
def test_broadcasting_gate_is_refused(gate: tuple[int, ...]) -> None:
    """(6, 1, 1) beside (6, 6, 3, 3) would silently broadcast along the batch."""
    for x in ((2, 6, 3, 5), (6, 6, 3, 3)):
        if gate == (3, 6, 1, 1) or x[0] == 2 or gate == (6, 1, 1):
            with pytest.raises(SpecError, match="expected a gate of shape"):
                spec.check_gate(gate, x, 1)


def test_valid_gates_and_invalid_axes() -> None:
    for gate in ((1,), (6,), (1, 6, 1, 1), (2, 6, 1, 1), (2, 1, 1, 1), (1, 1, 1, 1), (2, 6, 3, 5)):
        spec.check_gate(gate, (2, 6, 3, 5), 1)
    spec.check_gate((6,), (2, 9, 6), -1)
    spec.check_gate((2, 9, 6), (2, 9, 6), -1)
    with pytest.raises(SpecError, match="expected a gate"):
        spec.check_gate((2, 6, 9), (2, 9, 6), -1)
    for axis in (0, 4, -4, 9):
        with pytest.raises(SpecError, match=f"channel_axis {axis}: expected an axis"):
            spec.check_gate((6,), (2, 6, 3, 5), axis)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: spec.AconC(6, channel_axis=0), "AconC: expected channel_axis 1"),
        (lambda: spec.AconC(0), "AconC: expected a whole number of channels"),
        (lambda: spec.AconC("6"), "AconC: expected a whole number of channels"),
        (lambda: spec.MetaAconC(6, reduction=0), "MetaAconC: expected a reduction"),
        (lambda: spec.MetaAconC(6, reduce="foo"), "MetaAconC: expected reduce in sum, mean"),
        (lambda: spec.MetaAconC(6, level="pixel", norm="foo"), "MetaAconC: expected norm in batch, none, layer"),
    ],
)
def test_meaningless_options_are_refused(make, match: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SpecError, match=match):
        make()
