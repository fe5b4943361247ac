"""The conformance runner: it detects each kind of wrong backend, and waivers are strict."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from acon_core import backends
from acon_core.backends import Outputs, Vjp, Waiver
from acon_core.conformance import golden
from acon_core.conformance.cases import Case, load_cases
from acon_core.conformance.runner import run_backend, run_case
from acon_core.conformance.tolerances import TOLERANCES
from acon_core.errors import BackendError
from acon_core.numerics import scaled_error
from acon_core.reference.backend import ReferenceBackend, ReferenceModel
from acon_core.spec import Node

CASES = {case.name: case for case in load_cases()}
TRAINING = "sequence/conv_norm_acon"


class Broken(ReferenceModel):
    """The reference with one defect."""

    spoil_vjp: Callable[[Vjp], Vjp] = staticmethod(lambda back: back)
    spoil_outputs: Callable[[Outputs], Outputs] = staticmethod(lambda outputs: outputs)
    spoil_state: Callable[[dict], dict] = staticmethod(lambda state: state)
    swallow = False

    def __call__(self, *args: object, **kwargs: object) -> Outputs:
        return self.spoil_outputs(super().__call__(*args, **kwargs))  # type: ignore[arg-type]

    def vjp(self, x: np.ndarray, cotangent: np.ndarray, *, train: bool = False) -> Vjp:
        if self.swallow:
            return Vjp(x, x, {})
        return self.spoil_vjp(super().vjp(x, cotangent, train=train))

    def state(self) -> dict[str, np.ndarray]:
        return self.spoil_state(super().state())


def backend_with(waivers: tuple[Waiver, ...] = (), **defects: object) -> ReferenceBackend:
    model = type("Model", (Broken,), {name: staticmethod(d) if callable(d) else d for name, d in defects.items()})

    class Backend(ReferenceBackend):
        def build(self, node: Node, **options: object) -> ReferenceModel:  # type: ignore[override]
            sound = super().build(node)
            return model(sound.node, sound.state())  # type: ignore[no-any-return]

    made = Backend()
    made.waivers = waivers
    return made


def status(backend: ReferenceBackend, name: str) -> tuple[str, str]:
    case = CASES[name]
    result = run_case(backend, case, golden.of_cases([case])[name], "float64", compiled=False)
    return result.status, result.message


def one(changed: dict[str, np.ndarray], path: str, factor: float) -> dict[str, np.ndarray]:
    return changed | {path: changed[path] * factor}


DEFECTS: dict[str, dict[str, object]] = {
    "y/0": {"spoil_vjp": lambda back: replace(back, y=back.y * (1 + 1e-13))},
    "dx/0": {"spoil_vjp": lambda back: replace(back, dx=-back.dx)},
    "dparams/0/2.beta": {"spoil_vjp": lambda back: replace(back, dparams=one(back.dparams, "2.beta", 1 + 1e-13))},
    "statistics/0/1.running_var": {"spoil_state": lambda state: one(state, "1.running_var", 1.01)},
    "statistics/0/4.running_mean": {"spoil_state": lambda state: one(state, "4.running_mean", 1.01)},
}


@pytest.mark.parametrize("key", DEFECTS)
def test_wrong_number_fails(key: str) -> None:
    assert status(backend_with(), TRAINING) == ("pass", "")
    found, message = status(backend_with(**DEFECTS[key]), TRAINING)
    assert found == "fail"
    assert re.sub(r"^(\w+)/\d", r"\1/0", message.split(":")[0]) == key


def test_missing_gradient_fails() -> None:
    backend = backend_with(spoil_vjp=lambda back: replace(back, dparams={k: v for k, v in back.dparams.items() if k != "2.p1"}))
    found, message = status(backend, TRAINING)
    assert found == "fail"
    assert "'2.p1' is missing" in message


def test_wrong_tap_or_shape_fails() -> None:
    name = "shufflenet_v2_x0_5/relu/96x64"
    spoiled = backend_with(spoil_outputs=lambda o: Outputs(o.y, o.taps | {"features.3": o.taps["features.3"][:, ::-1]}))
    assert status(spoiled, name)[1].startswith("tap/0/features.3")
    assert status(backend_with(spoil_outputs=lambda o: Outputs(o.y[:, :-1], o.taps)), name)[0] == "fail"


def test_missing_error_fails() -> None:
    assert status(backend_with(), "batch_norm/one_value")[0] == "pass"
    assert status(backend_with(swallow=True), "batch_norm/one_value") == (
        "fail",
        "expected OneValuePerChannelError, raised nothing",
    )


def test_waivers_are_strict() -> None:
    waiver = Waiver("max_pool2d/ties", "dx", "a reason")
    wrong = {"spoil_vjp": lambda back: replace(back, dx=back.dx + 1)}
    assert status(backend_with((waiver,), **wrong), "max_pool2d/ties") == ("waived", "dx: a reason")
    assert status(backend_with((waiver,)), "max_pool2d/ties")[1] == "the waiver of dx is not needed; remove it"
    assert status(backend_with((waiver,), **wrong), "max_pool2d/oblong")[0] == "fail"
    other = {"spoil_vjp": lambda back: replace(back, dx=back.dx + 1, y=back.y + 1)}
    assert status(backend_with((waiver,), **other), "max_pool2d/ties")[0] == "fail"


def test_counts_and_missing_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_backend("numpy", select="relu/kink")
    assert result.counts == {"pass": 2}
    assert not result.failed
    monkeypatch.setitem(sys.modules, "paddle", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "acon_paddle.backend", raising=False)
    with pytest.raises(BackendError, match="cannot be used here"):
        run_backend("paddle", select="relu/kink")


def test_scaled_error_of_non_finite_values() -> None:
    expected = np.array([1.0, np.nan, np.inf])
    assert scaled_error(expected.copy(), expected, 1.0) == 0.0
    with np.errstate(all="raise"):
        assert scaled_error(expected + np.array([0.5, 0.0, 0.0]), expected, 4.0) == 0.125
    for wrong in ([1.0, 2.0, np.inf], [1.0, np.nan, -np.inf], [np.nan, np.nan, np.inf], [1.0, np.nan, 3.0]):
        assert scaled_error(np.array(wrong), expected, 1.0) == np.inf
    assert scaled_error(np.array([1.0]), np.array([[1.0]]), 1.0) == np.inf


def test_tolerances_are_small() -> None:
    """The smallest defect, a biased running variance, is an error of 1e-3 or more."""
    assert all(each.reason for each in TOLERANCES.values())
    for (_, _, dtype), each in TOLERANCES.items():
        assert each.bound <= {"float64": 2e-12, "float32": 5e-4, "float16": 5e-4, "bfloat16": 4e-3}[dtype]


def test_cases_match_schema_and_golden_numbers() -> None:
    assert golden.check() == []
    assert sorted(CASES) == sorted(set(CASES))


def test_compare_finds_a_changed_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare reports a stored number that changed, and one that belongs to no case."""
    honest = {key: array for key, array in golden.stored().items() if key.startswith("acon_c/rank_4:")}
    cases = [CASES["acon_c/rank_4"]]
    monkeypatch.setattr(golden, "load_cases", lambda: cases)
    monkeypatch.setattr(golden, "stored", lambda: honest)
    assert golden.compare() == []
    changed = honest["acon_c/rank_4:dparams/0/beta"].copy()
    changed.reshape(-1)[3] *= 1 + 1e-6
    monkeypatch.setattr(golden, "stored", lambda: honest | {"acon_c/rank_4:dparams/0/beta": changed, "gone:y/0": changed})
    assert [line.split(": ")[0] for line in golden.compare()] == ["gone:y/0", "acon_c/rank_4:dparams/0/beta"]


def test_inputs_are_exact_and_asymmetric() -> None:
    for case in CASES.values():
        for step, shape in enumerate(case.batches):
            x = case.x(step)
            for dtype in case.dtypes:
                np.testing.assert_array_equal(x.astype(dtype).astype(np.float32), x)
            if case.scope == "layer" and not case.raises and "training_of" not in case.name and case.train is False:
                assert len(set(shape)) == len(shape) or 1 in shape or len(shape) == 5, (case.name, shape)


def test_discovery_by_entry_point() -> None:
    assert backends.packages()["numpy"] == "acon_core.reference"
    assert backends.get("numpy").name == "numpy"


@pytest.mark.parametrize("case", [CASES["batch_norm/training"], CASES["acon_c/rank_4"]], ids=lambda case: case.name)
def test_states_are_asymmetric(case: Case) -> None:
    for path, array in case.state(case.build()).items():
        if array.ndim:
            assert (array != 0).all(), path
            assert len(np.unique(array)) == array.size, path
