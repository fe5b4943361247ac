"""Write `__init__.pyi` and `py.typed` of the backends' packages for editors and type checkers.

`python tools/stubs.py` writes the stubs; `--check` only compares them. No framework is needed.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from acon_core import backends
from acon_core.framework import ACTIVATION_TYPES, FUNCTIONS, Framework
from acon_core.frontend.docstrings import used_imports
from acon_core.frontend.from_spec import class_signature
from acon_core.frontend.functions import function_signature
from acon_core.spec.activation_base import Activation

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 128
HEADER = "# Written by tools/stubs.py (nox -s stubs) from the spec and acon_core/frontend. Do not edit."
STANDARD = (
    "from collections.abc import Mapping, Sequence",
    "from os import PathLike",
    "from typing import Any, Literal",
)
CORE = (
    "from acon_core.spec import Node",
    "from acon_core.surgery import Diagnosis, GradientBounds, Replacements, Value, Where",
)


def annotation_of(kind: type[Activation] | None, parameter: inspect.Parameter) -> str:
    """Return the annotation of a parameter, with the names of the spec's modules resolved."""
    if kind is None or parameter.name not in kind.__dataclass_fields__ or parameter.name in ("channels", "channel_axis"):
        return str(parameter.annotation)
    resolved = typing.get_type_hints(kind)[parameter.name]
    return resolved.__name__ if isinstance(resolved, type) else str(resolved).replace("typing.", "").replace("'", '"')


def declared(start: str, signature: inspect.Signature, result: str, kind: type[Activation] | None = None) -> list[str]:
    """Return the lines of a declaration: one, or one per parameter if that is too long."""
    words, starred = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            words.append("*")
            starred = True
        star = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        default = "" if parameter.default is parameter.empty else " = ..."
        words.append(f"{star}{parameter.name}: {annotation_of(kind, parameter)}{default}")
    if kind is not None:
        words.insert(0, "self")
    line = f"{start}({', '.join(words)}) -> {result}: ..."
    if len(line) <= WIDTH:
        return [line]
    indent = " " * (len(start) - len(start.lstrip()))
    return [f"{start}(", *(f"{indent}    {word}," for word in words), f"{indent}) -> {result}: ..."]


def weights_of(kind: type[Activation]) -> Iterable[str]:
    """Return the names of the weights of an activation with default options."""
    node = kind(8) if "channels" in kind.__dataclass_fields__ else kind()  # type: ignore[call-arg]
    return (name for name, param in node.params.items() if param.kind == "weight")


def stub(framework: Framework) -> str:
    """Return the text of a package's stub."""
    package = framework.package
    body = []
    for name, kind in ACTIVATION_TYPES.items():
        body += ["", f"class {name}({framework.module}):"]
        body += [f"    {weight}: {framework.weight}" for weight in weights_of(kind)]
        body += declared("    def __init__", class_signature(kind, framework.added), "None", kind)
        body += [f"    {framework.call}"]
    body += [""]
    for name in FUNCTIONS:
        signature = function_signature(name, framework)
        body += [*declared(f"def {name}", signature, str(signature.return_annotation))]
    native = used_imports(framework.imports, "\n".join(body))
    reexported = [
        f"from {package}.{module} import {name} as {name}"
        for name, module in framework.defining_modules.items()
        if name not in ACTIVATION_TYPES
    ]
    public = ["__all__ = [", *(f'    "{name}",' for name in sorted([*framework.defining_modules, *FUNCTIONS])), "]"]
    lines = [HEADER, "", *STANDARD, "", *native, "", *CORE, *reexported, "", *public, *body]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the stubs, or compare them with `--check`; return 1 if one is out of date."""
    stale = []
    for name, package in backends.packages().items():
        framework = getattr(import_module(package), "FRAMEWORK", None)
        if framework is None:  # the NumPy reference has no public interface of its own
            continue
        folder = ROOT / "backends" / package
        for path, text in ((folder / "__init__.pyi", stub(framework)), (folder / "py.typed", "")):
            if path.exists() and path.read_text() == text:
                continue
            stale.append(name)
            if "--check" not in arguments:
                path.write_text(text)
    if "--check" in arguments and stale:
        print(f"stubs of {', '.join(dict.fromkeys(stale))} are out of date; run: python -m nox -s stubs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
