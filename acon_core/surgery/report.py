"""What `replace_activations` did, as data and as text."""

from __future__ import annotations

from dataclasses import dataclass

WARN_ABOVE = 0.01


@dataclass(frozen=True)
class Site:
    """One activation of the model.

    Parameters
    ----------
    path : str
        Path of the new module, or of the old one if it was kept.
    old, new : str
        Names of the activations, with options.
    channels : int or None
        Number of channels, if the new activation has channels.
    calls : int
        Calls in the run.
    bound : float or None
        Largest |difference| to the old function; None if the new one has its own initial values.
    kept : str
        Why the old activation was kept; "" if it was replaced.
    axis : int or None
        Axis of the channels, in the framework's own layout, if the new activation has channels.
    note : str
        What else the reader should know.
    """

    path: str
    old: str
    new: str
    channels: int | None
    calls: int
    bound: float | None = None
    kept: str = ""
    axis: int | None = None
    note: str = ""

    def __str__(self) -> str:
        if self.kept:
            return f"{self.path}: {self.old} kept: {self.kept}"
        how = {None: "its own initial values", 0.0: "the same function"}.get(self.bound, f"the same to {self.bound or 0:.1e}")
        width = f"{self.channels} channels at axis {self.axis}, " if self.channels else ""
        shared = f"; called {self.calls} times, with one set of parameters" if self.calls > 1 else ""
        return f"{self.path}: {self.old} -> {self.new}, {width}{how}{shared}{f'; {self.note}' if self.note else ''}"


@dataclass(frozen=True)
class Replacements:
    """What `replace_activations` did.

    Parameters
    ----------
    sites : tuple of Site
        Every activation that was to be replaced, in order of definition.
    functional : tuple of str
        Calls of wanted activation functions outside of modules, which could not be replaced.
    unmet : tuple of str
        Wanted activations that the model does not have.
    has : str
        The activations that the model has, if one was not met.
    change : float or None
        Change of the model's output on the example, relative to its norm; None if unknown.
    unchecked : str
        Why the output was not compared; "" if it was, or if nothing was replaced.
    """

    sites: tuple[Site, ...]
    functional: tuple[str, ...]
    unmet: tuple[str, ...] = ()
    has: str = ""
    change: float | None = None
    unchecked: str = ""

    @property
    def replaced(self) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if not site.kept)

    @property
    def kept(self) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if site.kept)

    @property
    def preserves(self) -> bool:
        """Whether every new activation starts as the old one."""
        return bool(self.replaced) and all(site.bound is not None for site in self.replaced)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader should look at: wanted activations not met, a changed output."""
        found = [f"{name} met nothing; the model has {self.has or 'no activation'}" for name in self.unmet]
        if self.change is not None and self.change > WARN_ABOVE and self.preserves:
            found.append(f"the output changed by {100 * self.change:.2g} %; a larger beta is closer to the old function")
        if self.unchecked:
            found.append(f"the output was not compared: {self.unchecked}")
        return tuple(found)

    def __str__(self) -> str:
        calls = [f"{call}: a functional call; make it a module to have it replaced" for call in self.functional]
        change = [] if self.change is None or not self.preserves else [f"output changed by {100 * self.change:.2g} %"]
        total = ", ".join([f"{len(self.replaced)} replaced, {len(self.kept) + len(calls)} not", *change])
        return "\n".join([*map(str, self.sites), *calls, *(f"warning: {each}" for each in self.warnings), total])
