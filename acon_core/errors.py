"""The exceptions that a user can meet.

A message is one line. It names the file, key or layer, what was expected, what was found, and what
to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

__all__ = [
    "AconError", "BackendError", "CheckpointError", "OneValuePerChannelError", "SpecError", "StateError", "UnknownNetworkError",
]  # fmt: skip


class AconError(Exception):
    """Base class of every error that the user can act on.

    The command line prints the message on one line and exits with status 2.
    """

    def with_message(self, message: str) -> AconError:
        """Return the same error with another message, such as one that names the file."""
        return type(self)(message)


class SpecError(AconError, ValueError):
    """An invalid node, graph, name or shape, or a node type that an operation has no rule for."""


class StateError(AconError, ValueError):
    """A state whose names, shapes or dtypes are not those of the network."""


class BackendError(AconError, ImportError):
    """An unknown backend, or one whose framework cannot be imported in this environment."""


class OneValuePerChannelError(AconError, ValueError):
    """Batch normalisation in training with a single value per channel.

    Notes
    -----
    The variance of one value is 0 and its unbiased variance 0/0. The four frameworks raise, store
    NaN, skip the layer, or decay the running variance towards 0. Every backend here raises this
    error.
    """

    @classmethod
    def at(cls, path: str, shape: Sequence[int]) -> OneValuePerChannelError:
        """Make the error of the layer at ``path``, whose input has ``shape``."""
        return cls(
            f"{path or 'BatchNorm'}: training needs more than one value per channel, found input shape {tuple(shape)}; "
            "use a batch of at least 2, evaluation mode, or norm='none' in a Meta-ACON generator"
        )


class CheckpointError(AconError):
    """A checkpoint file that cannot be read or written.

    Parameters
    ----------
    kind : {"unsafe", "corrupt", "unsupported"}
        ``unsafe``: the file asks for something that no checkpoint needs, such as calling a
        function. ``corrupt``: the file contradicts itself or ends early. ``unsupported``: the file
        is well formed, but of a kind that is not read here.
    message : str
        The line that the user sees.
    """

    def __init__(self, kind: Literal["unsafe", "corrupt", "unsupported"], message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def with_message(self, message: str) -> CheckpointError:
        return type(self)(self.kind, message)


class UnknownNetworkError(CheckpointError):
    """A checkpoint that can be read, but whose tensors are those of no network that is known."""
