"""The exceptions that a user can meet.

A message is one line. It names the file, key or layer, what was expected, what was found, and what
to do next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import Literal

__all__ = [
    "AconError", "BackendError", "CheckpointError", "DtypeError", "OneValuePerChannelError", "SpecError", "StateError",
    "UnknownNetworkError",
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


class DtypeError(AconError, TypeError):
    """An input of integers or booleans, where an activation or a network needs floating point.

    Notes
    -----
    The four frameworks raise, convert to float32, or compute in the integers of the input. Every
    backend here raises this error.
    """

    @classmethod
    def at(cls, what: str, dtype: object) -> DtypeError:
        """Make the error of ``what``, a layer or a function, whose input has ``dtype``."""
        return cls(f"{what}: expected an input of floating point, found {dtype}; convert it first, for example to float32")


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


def nearest(given: object, known: Iterable[str]) -> list[str]:
    """Return the known names that a misspelt one may mean: the best, and those as good; at most 4.

    Case, underscores and hyphens do not count. The part after the last slash may stand alone.
    """
    if len(str(given)) > 64:  # no misspelling; of a hostile file, and the comparison takes squared time
        return []

    def plain(name: str) -> str:
        return "".join(each for each in name.lower() if each not in "_- ")

    wanted = plain(str(given))

    def likeness(name: str) -> float:
        parts = {plain(name), plain(name.rpartition("/")[2])}
        ratios = [SequenceMatcher(None, wanted, part, autojunk=False).ratio() for part in parts]
        begins = len(wanted) > 2 and any(part.startswith(wanted) for part in parts)
        return max([*ratios, 0.9 * begins])

    scores = {name: likeness(name) for name in known}
    best = max(scores.values(), default=0.0)
    return [name for name, score in scores.items() if score >= max(0.6, best - 1e-9)][:4]


def choices(given: object, known: Iterable[str], listed_by: str = "") -> str:
    """Return the end of the error for an unknown name: the nearest names, and where all are.

    `listed_by` is the command that prints the known names; without it, they are listed here.
    """
    known = list(known)
    everything = f"`{listed_by}` prints all" if listed_by else f"expected one of {', '.join(known) or 'none'}"
    return " ".join(filter(None, (meant(given, known), everything)))


def meant(given: object, known: Iterable[str]) -> str:
    """Return the question for the nearest known names; empty if none is near."""
    near = nearest(given, known)
    return f"did you mean {' or '.join(near)}?" if near else ""
