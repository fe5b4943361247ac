"""Run a backend through the conformance cases.

Passed, failed, waived and unsupported cases are counted separately. No case is skipped silently.
"""

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
from acon_core.errors import AconError, BackendError, SpecError
from acon_core.numerics import scaled_error
from acon_core.spec import Node
from acon_core.tensors import check_names

Status = Literal["pass", "fail", "waived", "unsupported"]


@dataclass(frozen=True)
class Check:
    """The comparison of one array with its golden numbers.

    Parameters
    ----------
    quantity : {"y", "dx", "dparams", "running_mean", "running_var"}
        What the array is.
    key : str
        Its key in the golden numbers, such as ``dparams/0/weight``.
    error, bound : float
        The largest error, and the largest allowed one, as fractions of the scale.
    """

    quantity: str
    key: str
    error: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the error is within the bound."""
        return self.error <= self.bound


@dataclass(frozen=True)
class CaseResult:
    """The result of one case in one dtype.

    Parameters
    ----------
    case, dtype : str
        The case and the dtype it ran in.
    status : {"pass", "fail", "waived", "unsupported"}
        ``unsupported``: the backend does not compute this type of node, in this dtype or compiled.
    worst : dict of str to float
        The largest error of each quantity, as a fraction of its scale.
    message : str
        Why the case failed, was waived or is not supported.
    """

    case: str
    dtype: str
    status: Status
    worst: dict[str, float] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class BackendResult:
    """The results of one backend in one environment.

    Parameters
    ----------
    backend : str
        The name of the backend.
    compiled : bool
        Whether the cases ran through the framework's compiler.
    environment : dict of str to str
        The versions of Python, NumPy and the framework.
    results : list of CaseResult
        One result per case and dtype.
    """

    backend: str
    compiled: bool
    environment: dict[str, str]
    results: list[CaseResult]

    @property
    def counts(self) -> Counter[str]:
        """The number of results of each status."""
        return Counter(result.status for result in self.results)

    @property
    def failed(self) -> bool:
        """Whether any case failed."""
        return self.counts["fail"] > 0

    def to_json(self) -> dict[str, Any]:
        """Return the results and their counts as plain data."""
        return asdict(self) | {"counts": dict(self.counts)}


def _peak(golden: Golden, key: str) -> float:
    if f"peak/{key}" in golden:
        return float(golden[f"peak/{key}"])
    finite = golden[key][np.isfinite(golden[key])]
    return float(np.abs(finite).max(initial=0.0))


def run_steps(case: Case, model: Model, golden: Golden, dtype: str) -> Iterator[Check]:
    """Run the batches of a case in order, and compare everything that has golden numbers."""

    def check(quantity: Quantity, key: str, found: NDArray, scale: float) -> Check:
        return Check(quantity, key, scaled_error(found, golden[key], scale), TOLERANCES[case.scope, quantity, dtype].bound)

    for step in range(len(case.batches)):
        x = case.placed(case.x(step).astype(dtype))
        if case.gradients:
            shape = case.build().out_shapes(x.shape)[0]
            back = model.vjp(x, case.cotangent(step, shape).astype(dtype), train=case.train)
            y = back.y
            yield check("dx", f"dx/{step}", sampled(case, f"dx/{step}", back.dx), float(golden[f"scale/{step}"]))
            expected = [key.split("/", 2)[2] for key in golden if key.startswith(f"dparams/{step}/")]
            check_names(expected, back.dparams, "gradients")
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
            if name == "num_batches_tracked":  # only PyTorch stores it
                continue
            variance = golden[key.removesuffix(name) + "running_var"]
            scale = float(np.sqrt(variance.max())) if name == "running_mean" else float(variance.max())
            yield check("running_mean" if name == "running_mean" else "running_var", key, state[path], scale)


def run_case(backend: Backend, case: Case, golden: Golden, dtype: str, compiled: bool) -> CaseResult:
    """Run one case in one dtype. Any exception of the backend is a failure, with its message."""
    if dtype not in backend.dtypes:
        return CaseResult(case.name, dtype, "unsupported", message=f"{backend.name} does not compute in {dtype}")
    try:
        return _check_case(backend, case, golden, dtype, compiled)
    except Exception as error:
        return CaseResult(case.name, dtype, "fail", message=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _check_case(backend: Backend, case: Case, golden: Golden, dtype: str, compiled: bool) -> CaseResult:
    node = case.build()
    try:
        model = backend.build(node, dtype=dtype, seed=None, compiled=compiled)
    except (SpecError, NotImplementedError) as error:
        text = " ".join(str(error).split()) or f"{type(node).__name__} in {dtype}"
        return CaseResult(case.name, dtype, "unsupported", message=f"{backend.name} does not build it: {text[:300]}")
    state = {path: array if array.dtype == np.int64 else array.astype(dtype) for path, array in case.state(node).items()}
    model.load(state)
    if case.raises:
        return _must_raise(case, model, dtype, node)
    checks = list(run_steps(case, model, golden, dtype))
    worst = {quantity: max(c.error for c in checks if c.quantity == quantity) for quantity in {c.quantity for c in checks}}
    waivers = {waiver.quantity: waiver for waiver in backend.waivers if waiver.case == case.name}
    bad = [check for check in checks if not check.holds]
    unneeded = set(waivers) - {check.quantity for check in bad}
    unwaived = [check for check in bad if check.quantity not in waivers]
    if unneeded:
        return CaseResult(case.name, dtype, "fail", worst, f"the waiver of {sorted(unneeded)[0]} is not needed; remove it")
    if unwaived:
        first = max(unwaived, key=lambda check: check.error / max(check.bound, 1e-300))
        text = f"{first.key}: error {first.error:.2e} of scale, allowed {first.bound:.0e}"
        text += f" ({len(unwaived)} of {len(checks)} checks)"
        return CaseResult(case.name, dtype, "fail", worst, text)
    if bad:
        return CaseResult(case.name, dtype, "waived", worst, "; ".join(_reason(each) for each in waivers.values()))
    return CaseResult(case.name, dtype, "pass", worst)


def _reason(waiver: Waiver) -> str:
    return f"{waiver.quantity}: {waiver.reason}"


def _must_raise(case: Case, model: Model, dtype: str, node: Node) -> CaseResult:
    """Pass the case if its error is raised and no statistic has changed."""
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
    changed = [path for path, array in model.state().items() if not np.array_equal(array, before[path])]
    if changed:
        return CaseResult(case.name, dtype, "fail", message=f"{changed[0]} changed although {raised} was raised")
    return CaseResult(case.name, dtype, "pass")


def run_backend(
    name: str,
    *,
    select: str = "",
    compiled: bool = False,
    on_progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> BackendResult:
    """Run a backend through the conformance cases.

    Parameters
    ----------
    name : str
        The name of the backend.
    select : str
        Run only the cases whose name contains this.
    compiled : bool
        Whether to run through the framework's compiler. Then only cases marked ``compiled`` run.
    on_progress : callable
        Called with (cases done, cases in total, current case) before each case.

    Returns
    -------
    BackendResult
        One result per case and dtype, and one failure per waiver of an unknown case.

    Raises
    ------
    BackendError
        If the backend is unknown, its framework is not installed, or no case is selected.

    Examples
    --------
    >>> from acon_core.conformance.runner import run_backend
    >>> run_backend("numpy", select="relu/kink").counts
    Counter({'pass': 2})
    """
    cases = [case for case in load_cases() if select in case.name and (case.compiled or not compiled)]
    if not cases:
        raise BackendError(f"no case has {select!r} in its name; leave out --case to run all")
    backend = backends.get(name)  # first: it fails fast, while making golden numbers may take minutes
    goldens = of_cases(cases)
    results = []
    for index, case in enumerate(cases):
        on_progress(index, len(cases), f"{name} {case.name}")
        results += [run_case(backend, case, goldens[case.name], dtype, compiled) for dtype in case.dtypes]
    unknown = {waiver.case for waiver in backend.waivers} - {case.name for case in load_cases()}
    results += [CaseResult(case, "", "fail", message="there is a waiver, but no such case") for case in sorted(unknown)]
    return BackendResult(name, compiled, _environment(name), results)


def _environment(name: str) -> dict[str, str]:
    """Return the versions of Python, NumPy and the framework."""
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    framework = formats()[name].codec.FRAMEWORK if name in formats() else ""
    for distribution in importlib.metadata.packages_distributions().get(framework, [])[:1]:
        versions[name] = importlib.metadata.version(distribution)
    return versions
