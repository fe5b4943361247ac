"""The channel axis and the width of a site, from its calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from acon_core.surgery.modules import Call, Modules

Axes = int | Mapping[str, int] | None


class UnknownAxisError(Exception):
    """The run does not show the channel axis of a site."""


def find_axis(modules: Modules, path: str, calls: Sequence[Call], given: Axes) -> int | str:
    """Return the channel axis of a site's inputs, as a spec has it, or why they have none.

    Parameters
    ----------
    modules : Modules
        Access to the framework's modules.
    path : str
        Path of the site.
    calls : sequence of Call
        Its calls.
    given : int, mapping from str to int or None
        The axis of all sites, or of some by path, as the caller gave it.

    Returns
    -------
    int or str
        The axis in the framework's own layout, or the reason.

    Raises
    ------
    UnknownAxisError
        If the run does not show it, or contradicts itself.
    """
    wanted = given.get(path) if isinstance(given, Mapping) else given
    if wanted is None and not modules.shows_axes:
        wanted = modules.channel_axis
    if wanted is not None:
        fitting = [call for call in calls if -len(call.shape) <= wanted < len(call.shape)]
        return wanted if fitting else f"its inputs, such as {calls[0].shape}, have no axis {wanted}"
    both: set[int] | None = None
    for call in calls:
        rank, axis = len(call.shape), call.axis
        if rank < 2:
            return f"its inputs, such as {call.shape}, have no axis 1"
        if rank == 2:
            axis = 1
        if not isinstance(axis, int):
            raise UnknownAxisError(f"{path or 'the model'} with inputs such as {call.shape}{f' ({axis})' if axis else ''}")
        both = {axis, axis - rank} & (both if both is not None else {axis, axis - rank})
    if not both:
        raise UnknownAxisError(
            f"{path}, called with inputs such as {' and '.join(sorted({str(call.shape) for call in calls}))}"
        )
    return next((axis for axis in (1, -1) if axis in both), min(both))


def find_widths(calls: Iterable[Call], axis: int) -> list[int]:
    """Return the numbers of channels that a site is called with."""
    return sorted({call.shape[axis] for call in calls if -len(call.shape) <= axis < len(call.shape)})
