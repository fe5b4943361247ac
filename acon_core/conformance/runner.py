"""Holds one backend to the cases. Pass, fail, waived and unsupported are counted apart; nothing is skipped in silence."""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from acon_core import backends
from acon_core.backends import Backend, Model, Waiver
from acon_core.checkpoint.formats import formats
from acon_core.conformance.cases import Case, load_cases
from acon_core.conformance.golden import Golden, of_cases, sampled
from acon_core.conformance.tolerances import TOLERANCES, Quantity
from acon_core.errors import AconError, BackendError
from acon_core.numerics import scaled_error
from acon_core.spec import Node

Status = Literal["pass", "fail", "waived", "unsupported"]


@dataclass(frozen=True)
class Check:
    """One number held to its golden: the error as a fraction of the scale, and the bound of the table."""

    quantity: str
    key: str
    error: float
    bound: float

    @property
    def holds(self) -> bool:
        return self.error <= self.bound


@dataclass(frozen=True)
class CaseResult:
    """What became of one case in one dtype: its status, its worst check, and a line that says what went wrong."""

    case: str
    dtype: str
    status: Status
    worst: dict[str, float] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class BackendResult:
    """All cases of one backend in one environment."""

    backend: str
    compiled: bool
    environment: dict[str, str]
    results: list[CaseResult]

    @property
    def counts(self) -> Counter[str]:
        return Counter(result.status for result in self.results)

    @property
    def failed(self) -> bool:
        return self.counts["fail"] > 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"counts": dict(self.counts)}


def _peak(golden: Golden, key: str) -> float:
    if f"peak/{key}" in golden:
        return float(golden[f"peak/{key}"])
    finite = golden[key][np.isfinite(golden[key])]
    return float(np.abs(finite).max(initial=0.0))


def run_steps(case: Case, model: Model, golden: Golden, dtype: str) -> Iterator[Check]:
    """Run the batches of a case one after the other, and compare whatever its golden numbers hold."""

    def check(quantity: Quantity, key: str, found: NDArray, scale: float) -> Check:
        return Check(quantity, key, scaled_error(found, golden[key], scale), TOLERANCES[case.scope, quantity, dtype].bound)

    for step in range(len(case.batches)):
        x = case.placed(case.x(step).astype(dtype))
        if case.gradients:
            shape = case.build().out_shapes(x.shape)[0]
            back = model.vjp(x, case.cotangent(step, shape).astype(dtype), train=case.train)
            y = back.y
            yield check("dx", f"dx/{step}", sampled(case, f"dx/{step}", back.dx), float(golden[f"scale/{step}"]))
            expected = {key.split("/", 2)[2] for key in golden if key.startswith(f"dparams/{step}/")}
            if expected != set(back.dparams):
                raise AconError(f"gradients: {sorted(expected ^ set(back.dparams))[0]!r} is missing or left over")
            for path, gradient in back.dparams.items():
                key = f"dparams/{step}/{path}"
                yield check("dparams", key, sampled(case, key, gradient), float(golden[f"scale/{step}/{path}"]))
        else:
            outputs = model(x, train=case.train, taps=case.taps)
            y = outputs.y
            for tap in case.taps:
                key = f"tap/{step}/{tap}"
                yield check("y", key, sampled(case, key, outputs.taps[tap]), _peak(golden, key))
        yield check("y", f"y/{step}", sampled(case, f"y/{step}", y), _peak(golden, f"y/{step}"))
        state = model.state() if case.train else {}
        for key in [key for key in golden if key.startswith(f"statistics/{step}/")]:
            path = key.split("/", 2)[2]
            name = path.rpartition(".")[2]
            if name == "num_batches_tracked":  # PyTorch's alone
                continue
            variance = golden[key.removesuffix(name) + "running_var"]
            scale = float(np.sqrt(variance.max())) if name == "running_mean" else float(variance.max())
            yield check("running_mean" if name == "running_mean" else "running_var", key, state[path], scale)


def run_case(backend: Backend, case: Case, golden: Golden, dtype: str, compiled: bool) -> CaseResult:
    """One case in one dtype. Whatever the backend raises is a failure of the case, with its message."""
    if dtype not in backend.dtypes:
        return CaseResult(case.name, dtype, "unsupported", message=f"{backend.name} does not compute in {dtype}")
    try:
        return _held(backend, case, golden, dtype, compiled)
    except Exception as error:
        return CaseResult(case.name, dtype, "fail", message=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _held(backend: Backend, case: Case, golden: Golden, dtype: str, compiled: bool) -> CaseResult:
    node = case.build()
    model = backend.build(node, dtype=dtype, seed=None, compiled=compiled)
    state = {path: array if array.dtype == np.int64 else array.astype(dtype) for path, array in case.state(node).items()}
    model.load(state)
    if case.raises:
        return _must_raise(case, model, dtype, node)
    checks = list(run_steps(case, model, golden, dtype))
    worst = {quantity: max(c.error for c in checks if c.quantity == quantity) for quantity in {c.quantity for c in checks}}
    waivers = {waiver.quantity: waiver for waiver in backend.waivers if waiver.case == case.name}
    bad = [check for check in checks if not check.holds]
    unneeded = set(waivers) - {check.quantity for check in bad}
    left = [check for check in bad if check.quantity not in waivers]
    if unneeded:
        return CaseResult(case.name, dtype, "fail", worst, f"the waiver of {sorted(unneeded)[0]} is not needed; take it out")
    if left:
        first = max(left, key=lambda check: check.error / max(check.bound, 1e-300))
        text = f"{first.key}: error {first.error:.2e} of scale, allowed {first.bound:.0e} ({len(left)} of {len(checks)} checks)"
        return CaseResult(case.name, dtype, "fail", worst, text)
    if bad:
        return CaseResult(case.name, dtype, "waived", worst, "; ".join(_reason(each) for each in waivers.values()))
    return CaseResult(case.name, dtype, "pass", worst)


def _reason(waiver: Waiver) -> str:
    return f"{waiver.quantity}: {waiver.reason}"


def _must_raise(case: Case, model: Model, dtype: str, node: Node) -> CaseResult:
    """The case passes when its error is raised and the statistics are as they were."""
    before = model.state()
    x = case.x(0).astype(dtype)
    try:
        model.vjp(x, case.cotangent(0, node.out_shapes(x.shape)[0]).astype(dtype), train=case.train)
    except AconError as error:
        raised = type(error).__name__
    else:
        raised = "nothing"
    if raised != case.raises:
        return CaseResult(case.name, dtype, "fail", message=f"expected {case.raises}, raised {raised}")
    moved = [path for path, array in model.state().items() if not np.array_equal(array, before[path])]
    if moved:
        return CaseResult(case.name, dtype, "fail", message=f"{moved[0]} changed although {raised} was raised")
    return CaseResult(case.name, dtype, "pass")


def run_backend(
    name: str,
    *,
    select: str = "",
    compiled: bool = False,
    tell: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> BackendResult:
    """Hold a backend to every case whose name contains `select`; compiled, to those that are marked for it.

    Raises BackendError when the backend is not known or its framework is not installed, or no case is selected.
    """
    cases = [case for case in load_cases() if select in case.name and (case.compiled or not compiled)]
    if not cases:
        raise BackendError(f"no case has {select!r} in its name")
    backend = backends.get(name)  # first: whether it is here takes no time, and the goldens may
    goldens = of_cases(cases)
    results = []
    for index, case in enumerate(cases):
        tell(index, len(cases), f"{name} {case.name}")
        results += [run_case(backend, case, goldens[case.name], dtype, compiled) for dtype in case.dtypes]
    unknown = {waiver.case for waiver in backend.waivers} - {case.name for case in load_cases()}
    results += [CaseResult(case, "", "fail", message="waived, but there is no such case") for case in sorted(unknown)]
    return BackendResult(name, compiled, _environment(name), results)


def _environment(name: str) -> dict[str, str]:
    """The versions that the numbers were made with: Python's, NumPy's, the framework's."""
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    framework = formats()[name].codec.FRAMEWORK if name in formats() else ""
    for distribution in importlib.metadata.packages_distributions().get(framework, [])[:1]:
        versions[name] = importlib.metadata.version(distribution)
    return versions
