"""Check that a docstring has the numpydoc sections that apply and documents every parameter."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from types import GenericAlias, ModuleType
from typing import Any

SECTIONS = ["Parameters", "Returns", "Yields", "Raises", "See Also", "Notes", "References", "Examples"]


def sections(text: str) -> dict[str, str]:
    """Split a docstring into sections by heading; the text before the first is under ""."""
    found, heading = {"": ""}, ""
    lines = text.splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if below and set(below) == {"-"} and line in SECTIONS:
            heading = line
            assert heading not in found, f"two sections {heading}"
            assert len(below) == len(line), f"{heading}: a rule as long as the heading"
            found[heading] = ""
        elif not (line and set(line) == {"-"}):
            found[heading] += f"{line}\n"
    return found


def documented(section: str) -> list[str]:
    """Return the names of a Parameters section, in order: `a, b : int` documents two."""
    heads = [line.partition(" :")[0] for line in section.splitlines() if line and not line.startswith(" ")]
    return [name.strip() for head in heads for name in head.split(",")]


def parameters(thing: Any) -> list[str]:
    """Return the names of the signature, with the stars that numpydoc writes."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [stars.get(each.kind, "") + each.name for each in inspect.signature(thing).parameters.values()]


def problems(name: str, thing: Any, examples: bool) -> Iterator[str]:
    """Yield what is wrong with the docstring of a public function or class."""
    text = inspect.cleandoc(vars(thing).get("__doc__") or "" if inspect.isclass(thing) else thing.__doc__ or "")
    if not text:
        yield f"{name}: no docstring of its own"
        return
    found = sections(text)
    first, *rest = found[""].splitlines()
    if not first.endswith((".", ":")) or (rest and rest[0]):
        yield f"{name}: expected a first sentence on a line of its own, found {first!r}"
    order = [SECTIONS.index(heading) for heading in found if heading]
    if order != sorted(order):
        yield f"{name}: sections in the order {', '.join(filter(None, found))}"
    if any(
        line and not line.startswith(" ") and " : " not in line and not line.startswith("*")
        for line in found.get("Parameters", "").splitlines()
    ):
        yield f"{name}: an entry of Parameters without ` : type`"
    is_protocol = getattr(thing, "_is_protocol", False)
    is_closed = inspect.isclass(thing) and issubclass(thing, enum.Enum | BaseException)
    if not is_protocol and not is_closed:
        expected, stated = parameters(thing), documented(found.get("Parameters", ""))
        if expected != stated:
            yield f"{name}: parameters {expected}, documented {stated}"
    if inspect.isroutine(thing):
        result = inspect.signature(thing).return_annotation
        returns = result not in (None, "None", inspect.Signature.empty)
        if returns != bool({"Returns", "Yields"} & set(found)):
            yield f"{name}: {'no' if returns else 'an idle'} Returns section"
    if re.search(r"\bRaises? [A-Z]\w+Error", found[""]):
        yield f"{name}: errors belong in a Raises section"
    if examples and ">>> " not in found.get("Examples", ""):
        yield f"{name}: no example"


def public(module: ModuleType) -> dict[str, Any]:
    """Return the public functions and classes of a package: those in `__all__`.

    Without `__all__`, as of a package that imports `*` from its modules, all of its names count.
    """
    names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    # On Python 3.10, `tuple[int, ...]` is a class to `inspect`.
    things = {name: getattr(module, name) for name in names if not isinstance(getattr(module, name), GenericAlias)}
    return {name: thing for name, thing in things.items() if inspect.isroutine(thing) or inspect.isclass(thing)}
