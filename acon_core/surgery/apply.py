"""Change a model step by step, and take the steps back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acon_core.surgery.modules import Modules
from acon_core.surgery.plan import Job
from acon_core.surgery.rewrite import rewrite, set_class


@contextmanager
def separated(modules: Modules, model: Any) -> Iterator[None]:
    """Run the body with an object of its own at each path of an activation with several paths.

    Parameters
    ----------
    modules : Modules
        Access to the framework's modules.
    model : Any
        A native model.

    Returns
    -------
    context manager
    """
    paths: dict[int, list[tuple[str, Any]]] = {}
    for path, site in (*modules.sites(model), *modules.references(model)):
        if path and (modules.node(site) is not None or modules.leaf(site)):
            paths.setdefault(id(site), []).append((path, site))
    shared = [pair for group in paths.values() if len(group) > 1 for pair in group]
    try:
        for path, site in shared:
            modules.replace(model, path, modules.copy(site))
        yield
    finally:
        for path, site in shared:
            modules.replace(model, path, site)


class Changes:
    """The changes of a model so far, which can be taken back.

    Parameters
    ----------
    modules : Modules
        Access to the framework's modules.
    model : Any
        A native model.
    """

    def __init__(self, modules: Modules, model: Any) -> None:
        self._modules, self._model = modules, model
        self._undo: list[Callable[[], None]] = []

    def put_all(self, jobs: Iterable[Job], writing: bool) -> None:
        """Put the old functions at their new places."""
        for job in jobs:
            self._enter(job)
            old = job.stand_in
            self.put(job, self._modules.writing(old) if writing and job.writes else old)

    def put(self, job: Job, module: Any) -> None:
        """Put a module at the place of a job, which `put_all` has prepared."""
        for path in (job.path, *job.aliases):
            self._modules.replace(self._model, path, module)

    def undo(self) -> None:
        """Take all changes back."""
        while self._undo:
            self._undo.pop()()

    def _enter(self, job: Job) -> None:
        modules, model = self._modules, self._model
        for path, site in job.before:
            self._undo.append(lambda path=path, site=site: modules.replace(model, path, site))  # type: ignore[misc]
        if job.edit is not None:
            owner, name, kind = job.owner, job.edit.attribute, type(job.owner)

            def restore() -> None:
                set_class(owner, kind)
                if not job.before and hasattr(owner, name):
                    modules.remove(owner, name)

            rewrite(owner, (job.edit,))
            self._undo.append(restore)


def relative_change(before: Sequence[NDArray] | None, after: Sequence[NDArray] | None) -> float | None:
    """Return the largest change of an array, relative to its norm; None if there are none.

    Parameters
    ----------
    before, after : sequence of ndarray or None
        The outputs of two runs.

    Returns
    -------
    float or None
        Infinity if the arrays are not of the same number, shapes and finite elements.
    """
    if not before or after is None:
        return None
    if [array.shape for array in before] != [array.shape for array in after]:
        return float("inf")
    largest = 0.0
    for one, other in zip(before, after, strict=True):
        old, new = one.astype(np.float64), other.astype(np.float64)
        finite = np.isfinite(old)
        if (finite != np.isfinite(new)).any():
            return float("inf")
        difference, norm = np.linalg.norm((new - old)[finite]), np.linalg.norm(old[finite])
        largest = max(largest, float(difference / norm) if norm else float("inf") if difference else 0.0)
    return largest
