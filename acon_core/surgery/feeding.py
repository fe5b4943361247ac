"""The channel axis of an activation's input, from the layer that ran last before it."""

from __future__ import annotations

from acon_core.spec import Shape


class Feeding:
    """The layers of a run in the order in which they ran.

    It is for frameworks whose values carry no notes. What lies between a layer and the activation,
    such as a sum or a pool, keeps the axis; a change of rank makes it unknown.
    """

    def __init__(self) -> None:
        self._last: tuple[Shape, int] | None = None

    def layer(self, shape: Shape, axis: int) -> None:
        """Note that a layer returned an array of this shape with its channels at this axis."""
        self._last = (tuple(shape), axis % len(shape))

    def forget(self) -> None:
        """Note that axes were moved."""
        self._last = None

    def axis_of(self, shape: Shape) -> int | None:
        """Return the channel axis of an array of this shape; None if it is not known.

        Parameters
        ----------
        shape : Shape
            Shape of the input of an activation.

        Returns
        -------
        int or None
        """
        if self._last is None or len(self._last[0]) != len(shape):
            return None
        fed, axis = self._last
        joined = all(one == other for at, (one, other) in enumerate(zip(fed, shape, strict=True)) if at != axis)
        return axis if fed[axis] == shape[axis] or joined else None
