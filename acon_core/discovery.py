"""Which installed packages are registered as backends, and which of them are refused, and why.

What a stranger registered may be half written or gone. Nothing here raises for it: a registration
carries its problem, and whoever asks for that backend by name gets the problem as an error.
"""

from __future__ import annotations

import contextlib
import importlib
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import Distribution, distributions
from types import ModuleType
from typing import Any

from acon_core.errors import BackendError, choices

ENTRY_POINT_GROUP = "acon.backends"
OWN_DISTRIBUTION = "acon-ports"


@dataclass(frozen=True)
class Registration:
    """An entry point of the group ``acon.backends``.

    Parameters
    ----------
    name : str
        The name of the backend.
    package : str
        The package that it names.
    distribution : str
        The installed distribution that registers it.
    extras : tuple of str
        The extras of that distribution.
    problem : str
        Why the entry point is refused; empty if it is not.
    """

    name: str
    package: str
    distribution: str
    extras: tuple[str, ...] = ()
    problem: str = ""

    @property
    def own(self) -> bool:
        """Whether this project registers it."""
        return _plain(self.distribution) == OWN_DISTRIBUTION

    def import_module(self, module: str) -> ModuleType:
        """Import one module of the package, such as ``backend``.

        Parameters
        ----------
        module : str
            The module, relative to the package; empty for the package.

        Returns
        -------
        module
            The imported module.

        Raises
        ------
        BackendError
            If it cannot be imported, for whatever reason.
        """
        if self.problem:
            raise BackendError(f"backend {self.name!r} is refused: {self.problem}")
        try:
            # What a package prints while it is imported is not the result of a command.
            with contextlib.redirect_stdout(sys.stderr):
                return importlib.import_module(f"{self.package}.{module}" if module else self.package)
        except (Exception, SystemExit) as error:
            found = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            raise BackendError(f"backend {self.name!r} cannot be used here: {found}; {self._way_out()}") from error

    def _way_out(self) -> str:
        """Return what to do where the package, or its framework, cannot be imported."""
        if needed := self.python_needed():
            variable = f"ACON_PYTHON_{self.name.upper()}=/path/to/that/python"
            return (
                f"it needs Python {needed}, this is {platform.python_version()}: run the command in an environment of that "
                f"Python with '{self.distribution}[{self.name}]', or name its interpreter for `acon convert --verify` with "
                f"{variable}"
            )
        if self.name in self.extras:
            return f"install it with: pip install '{self.distribution}[{self.name}]'"
        return f"it belongs to the distribution {self.distribution}: repair it, or uninstall it"

    def python_needed(self) -> str:
        """Return the Python versions that the framework runs on, if this is none of them.

        Returns
        -------
        str
            Such as ``"3.10"`` or ``"3.11 or later"``; empty if this Python will do, or if the
            package of a stranger does not say.
        """
        framework = getattr(importlib.import_module(self.package), "FRAMEWORK", None) if self.own else None
        return str(framework.python_needed()) if framework is not None else ""


@cache
def registrations() -> tuple[Registration, ...]:
    """Return every entry point of the group: this project's first, then the others', by name.

    Returns
    -------
    tuple of Registration
        The usable and the refused ones. No two usable ones have the same name.
    """
    found = list(_entry_points())
    own = sorted((each for each in found if each.own), key=lambda each: each.name)
    others = sorted((each for each in found if not each.own), key=lambda each: (each.name, each.distribution))
    owners: dict[str, list[str]] = {}
    for each in (*own, *others):
        owners.setdefault(each.name, []).append(each.distribution)
    return (*own, *(replace(each, problem=each.problem or _clash(each, owners[each.name])) for each in others))


def usable() -> dict[str, Registration]:
    """Return the registrations that are not refused, by name.

    Returns
    -------
    dict from str to Registration
        This project's first.
    """
    return {each.name: each for each in registrations() if not each.problem}


def registered(name: str) -> Registration:
    """Return the registration of a backend.

    Parameters
    ----------
    name : str
        The name of the backend.

    Returns
    -------
    Registration
        Where the backend comes from.

    Raises
    ------
    BackendError
        If there is no such backend, or its entry point is refused.
    """
    known = usable()
    if name in known:
        return known[name]
    problem = next((each.problem for each in registrations() if each.name == name), "")
    if problem:
        raise BackendError(f"backend {name!r} is refused: {problem}")
    raise BackendError(f"backend {name!r} is not known; {choices(name, known)}")


def is_own(name: str | None) -> bool:
    """Say whether this project registers a backend.

    Parameters
    ----------
    name : str, optional
        The name of a backend; None stands for the core.

    Returns
    -------
    bool
        False for a backend of another distribution.
    """
    return name is None or registered(name).own


def _clash(registration: Registration, owners: list[str]) -> str:
    """Return why a name cannot be used: another distribution has it."""
    others = [owner for owner in owners if owner != registration.distribution]
    if len(owners) == 1:
        return ""
    whose = ", ".join(dict.fromkeys(others)) or "itself, twice"
    return f"{registration.distribution} registers a name that is taken, by {whose}; it needs another name"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _entry_points() -> Iterator[Registration]:
    """Yield the entry points of the group, of the first distribution of each name on the path."""
    seen = set()
    for each in distributions():
        name = _distribution_name(each)
        if name in seen:
            continue
        seen.add(name)
        yield from _entry_points_of(each, name)


def _entry_points_of(distribution: Distribution, name: str) -> Iterator[Registration]:
    text = _read(distribution, "entry_points.txt")
    if ENTRY_POINT_GROUP not in text:
        return
    section = ""
    for line in (each.strip() for each in text.splitlines()):
        if line.startswith("["):
            section = line.strip("[] ")
        elif section == ENTRY_POINT_GROUP and line and not line.startswith(("#", ";")):
            backend, _, package = (part.strip() for part in line.partition("="))
            valid = re.fullmatch(r"[\w-]+", backend) and all(part.isidentifier() for part in package.split("."))
            problem = "" if valid else f"{name} registers {line!r:.100}; expected NAME = PACKAGE"
            yield Registration(backend, package, name, _extras(distribution), problem)


def _read(distribution: Distribution, file: str) -> str:
    try:
        return distribution.read_text(file) or ""
    except UnicodeDecodeError:  # of some other package; whatever it is, it registers nothing
        return ""


def _distribution_name(distribution: Distribution) -> str:
    """Return the name of a distribution: of its metadata, or of its folder where that has none."""
    folder: Any = getattr(distribution, "_path", None)
    if folder is not None and folder.name.endswith(".dist-info"):
        return _plain(folder.name.removesuffix(".dist-info").rpartition("-")[0] or folder.name)
    lines = (_read(distribution, "METADATA") or _read(distribution, "PKG-INFO")).splitlines()
    return _plain(next((line.partition(":")[2].strip() for line in lines if line.startswith("Name:")), str(folder)))


def _extras(distribution: Distribution) -> tuple[str, ...]:
    lines = _read(distribution, "METADATA").splitlines()
    return tuple(line.partition(":")[2].strip() for line in lines if line.startswith("Provides-Extra:"))
