"""Replace the activations of a user's model: run it, change it, and look at what it does then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acon_core.errors import AconError
from acon_core.spec import Graph, Layer
from acon_core.surgery.apply import Changes, relative_change, separated
from acon_core.surgery.axes import Axes
from acon_core.surgery.modules import Modules, Observed
from acon_core.surgery.plan import Job, Plan
from acon_core.surgery.report import Replacements
from acon_core.surgery.wanted import Value, Wanted, Where


def replace_activations(
    modules: Modules,
    model: Any,
    replacements: Mapping[Any, Value],
    example: Any,
    *,
    channel_axis: Axes,
    beta: float | None,
    where: Where = None,
) -> Replacements:
    """Replace activations of a model in place.

    Parameters
    ----------
    modules : Modules
        Access to the framework's modules.
    model : Any
        A native model.
    replacements : mapping
        Old activations to new ones. An old name matches any options, or those that it states.
    example : Any
        Input, tuple of arguments or dictionary of keyword arguments, that the model is run on.
    channel_axis : int, mapping from str to int or None
        Axis of the channels in the inputs of the activations, of all or by path. None: as the run
        shows it.
    beta : float or None
        The beta of ACON where it replaces ReLU or PReLU; they differ by 0.2785 / `beta` at most.
        None: 100 over the root mean square of the inputs at each place.
    where : str, iterable of str, callable or None
        The paths that count, by patterns of the shell or a function.

    Returns
    -------
    Replacements
        What was done.

    Raises
    ------
    SpecError
        If a name does not exist.
    AconError
        If the model is itself an activation, if its modules cannot be changed, if `beta` is not
        positive, or if the channel axis of a place is unknown.
    """
    wanted = Wanted(replacements, where)
    if beta is not None and beta <= 0:
        raise AconError(f"replace_activations: expected beta above 0, found {beta}")
    if isinstance(channel_axis, int) and modules.channel_axis not in (1, channel_axis):
        raise AconError(f"replace_activations: expected channel_axis {modules.channel_axis} here, found {channel_axis}")
    if reason := modules.unfit(model):
        raise AconError(f"replace_activations: {reason}")
    node = modules.node(model)
    if not isinstance(node, Graph | Layer) and wanted.rule("", model, node) is not None:
        raise AconError("replace_activations: the model is itself an activation; make the new one with activation(...)")
    with separated(modules, model):
        before = modules.observe(model, example)
    plan = Plan(modules, model, wanted, before, channel_axis, beta)
    change = _carry_out(modules, model, example, plan, before) if plan.jobs else None
    functional = tuple(dict.fromkeys(plan.functional))
    has = plan.has if plan.unmet else ""
    return Replacements(tuple(plan.sites()), functional, tuple(plan.unmet), has, change, plan.unchecked)


def _carry_out(modules: Modules, model: Any, example: Any, plan: Plan, before: Observed) -> float | None:
    """Change the model and return by how much its output changed, if that says something.

    What fails is taken back.
    """
    changes = Changes(modules, model)
    try:
        # The old functions at the new places compute what the model did, or the places are wrong.
        _settle_places(modules, model, example, plan, before, changes)
        for job in plan.jobs:
            changes.put(job, modules.writing(job.new) if job.writes else job.new)
        after = modules.observe(model, example, as_used=True)
        dead = [job for job in plan.jobs if job.calls and not _called(after, job)]
        change = relative_change(before.outputs, after.outputs)
        reason, exact = "", all(job.bound == 0.0 for job in plan.jobs) and not plan.unchecked
        if dead:
            reason = f"in use, the model computes {', '.join(job.path for job in dead)} in another way than in its modules"
        elif change is not None and change > plan.tolerance and exact:
            reason = f"the output changed by {100 * change:.2g} %, which it should not"
        if reason:
            _give_up(plan, changes, reason)
            return None
    except BaseException:
        changes.undo()
        raise
    return None if plan.unchecked else change


def _settle_places(modules: Modules, model: Any, example: Any, plan: Plan, before: Observed, changes: Changes) -> None:
    """Put the old functions at the new places; drop what is not called or changes the output."""
    changes.put_all(plan.jobs, writing=False)
    seen = modules.observe(model, example)
    for job in [job for job in plan.jobs if job.calls and not _called(seen, job)]:
        plan.drop(job, "it is called through a reference that no attribute of a module holds; use the module by its attribute")
        changes.undo()
        changes.put_all(plan.jobs, writing=False)
        seen = modules.observe(model, example)
    if _agree(plan, before, seen):
        return
    # Its input is used after a call in place.
    if any(job.in_place for job in plan.jobs):
        changes.undo()
        for job in plan.jobs:
            job.writes = job.in_place
        changes.put_all(plan.jobs, writing=True)
        if _agree(plan, before, modules.observe(model, example)):
            return
    changes.undo()
    if not _agree(plan, before, modules.observe(model, example)):
        plan.unchecked = "it differs from run to run"
        changes.put_all(plan.jobs, writing=True)
        return
    # Find those that change it, one by one.
    for job in list(plan.jobs):
        changes.put_all([job], writing=True)
        if not _agree(plan, before, modules.observe(model, example)):
            plan.drop(job, "with a module of its own there, the model's output changes; make it a module in the model's code")
        changes.undo()
    changes.put_all(plan.jobs, writing=True)
    if not _agree(plan, before, modules.observe(model, example)):
        for job in list(plan.jobs):
            plan.drop(job, "undone: with modules of their own in all places, the model's output changes")
        changes.undo()


def _agree(plan: Plan, one: Observed, other: Observed) -> bool:
    change = relative_change(one.outputs, other.outputs)
    return change is None or change <= plan.tolerance


def _called(observed: Observed, job: Job) -> bool:
    return any(path in observed.calls for path in (job.path, *job.aliases))


def _give_up(plan: Plan, changes: Changes, reason: str) -> None:
    for job in list(plan.jobs):
        plan.drop(job, f"undone: {reason}")
    changes.undo()
