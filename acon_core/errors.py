"""The errors that a user can meet. Each is one line that names the place, what was expected, what was found, the way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal


class AconError(Exception):
    """Whatever the user can act on; the command line prints it as one line and exits with status 2."""


class SpecError(AconError, ValueError):
    """A node, graph or shape that cannot be, or a node type for which an operation has no rule."""


class StateError(AconError, ValueError):
    """A state whose names, shapes or dtypes are not those of the network."""


class BackendError(AconError, ImportError):
    """A backend that is not known, or whose framework cannot be imported here."""


class OneValuePerChannelError(AconError, ValueError):
    """Batch statistics of a single value: its variance is 0 and its unbiased variance 0/0.

    The four frameworks raise, write NaN, skip the layer, or decay the statistics to nothing; here all raise this.
    """

    @classmethod
    def at(cls, path: str, shape: Sequence[int]) -> OneValuePerChannelError:
        """The error of the layer at `path`, whose input has `shape`."""
        return cls(
            f"{path or 'BatchNorm'}: training needs more than one value per channel, found input shape {tuple(shape)}; "
            "use a batch of at least 2, evaluation mode, or norm='none' in a Meta-ACON generator"
        )


class CheckpointError(AconError):
    """A checkpoint file that cannot be read or written.

    `kind` says why: `unsafe` (it asks for something that no checkpoint needs, such as calling a function), `corrupt`
    (it contradicts itself or stops early), `unsupported` (well formed, but not a kind that is read here).
    """

    def __init__(self, kind: Literal["unsafe", "corrupt", "unsupported"], message: str) -> None:
        super().__init__(message)
        self.kind = kind
