"""How a GPU kernel divides an array into tiles: the same for every framework."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from acon_core.kernels import Plan

_BATCH, _ROWS, _COLUMNS = 1, 2, 4


class Tiles(NamedTuple):
    """A division of x, A x B x D, among programs: of one of A, and of tiles of B x D.

    Parameters
    ----------
    sizes : tuple of int
        A, B and D.
    covers : tuple of int
        Along which sizes a gate varies, as in kernels.h; 8 for a gate as large as x.
    rows, columns : int
        Size of a tile: powers of 2.
    steps : int
        Tiles that a program computes one after the other, a power of 2. With more than one, no
        gate varies along the size of the steps.
    along_columns : bool
        Whether the steps go along D; else along B.
    parts : tuple of int
        Number of programs along B and along D.
    """

    sizes: tuple[int, ...]
    covers: tuple[int, ...]
    rows: int
    columns: int
    steps: int
    along_columns: bool
    parts: tuple[int, int]

    def partial_shape(self, gate: int) -> tuple[int, int, int]:
        """Return the shape of the partial sums of a gate's gradient: one of each program.

        Parameters
        ----------
        gate : int
            Position of the gate.

        Returns
        -------
        tuple of int
            A, then B and D where the gate varies along them, else the number of programs.
        """
        cover = self.covers[gate]
        rows = self.sizes[1] if cover & _ROWS else self.parts[0]
        return self.sizes[0], rows, self.sizes[2] if cover & _COLUMNS else self.parts[1]

    def summed_axes(self, gate: int) -> tuple[int, ...]:
        """Return the axes of the partial sums that are still to be summed.

        Parameters
        ----------
        gate : int
            Position of the gate.

        Returns
        -------
        tuple of int
            Axes of `partial_shape`.
        """
        return tuple(axis for axis in range(3) if not self.covers[gate] >> axis & 1)


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()


@lru_cache(maxsize=4096)
def tiles(plan: Plan, size: int, most_steps: int, enough: int) -> Tiles:
    """Choose tiles for a plan.

    Parameters
    ----------
    plan : Plan
        From `acon_core.kernels.geometry`.
    size : int
        Elements of a tile, a power of 2.
    most_steps : int
        The most steps of a program. Steps save partial sums; without any, 1 is best.
    enough : int
        Number of programs that keep the GPU busy. Fewer steps are taken where there are fewer.

    Returns
    -------
    Tiles
        It depends on the plan and these numbers alone, so that results do not vary.
    """
    sizes, count = tuple(plan.structure.sizes), len(plan.constants)
    covers = tuple(plan.structure.covers)[:count]
    # The widest tile of which at most a sixteenth lies outside, so that threads are not idle.
    columns = min(size, _power_of_two(sizes[2]))
    while columns > 32 and -sizes[2] % columns * 16 > sizes[2]:
        columns //= 2
    rows = min(size // columns, _power_of_two(sizes[1]))
    blocks = [-(-sizes[1] // rows), -(-sizes[2] // columns)]
    along_columns = not any(cover & _COLUMNS for cover in covers)
    steps = 1
    if along_columns or not any(cover & _ROWS for cover in covers):
        steps = max(1, min(blocks[along_columns], most_steps, sizes[0] * blocks[0] * blocks[1] // enough))
        steps = 1 << steps.bit_length() - 1  # few kernels are compiled
        blocks[along_columns] = -(-blocks[along_columns] // steps)
    return Tiles(sizes, covers, rows, columns, steps, along_columns, (blocks[0], blocks[1]))
