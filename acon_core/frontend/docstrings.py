"""numpydoc docstrings: completed with a framework's words, and with the parameters that it adds."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from string import Template

from acon_core.framework import AddedParameter, Framework
from acon_core.spec.activation_base import Activation, ChannelwiseActivation

SECTIONS = ("Parameters", "Returns", "Raises", "See Also", "Notes", "References", "Examples")
GROUPS = """list of dict
    ``[{"params": [...], "weight_decay": weight_decay}, {"params": [...], "weight_decay": 0.0}]``,
    for any optimizer of the framework. Each parameter occurs once, in the order of the model.
    Frozen parameters are left out."""
"""What `param_groups` returns, in most frameworks."""

_HEADING = re.compile(rf"^({'|'.join(SECTIONS)})\n-+\n", re.MULTILINE)
_ENTRY = re.compile(r"^(?=\S)", re.MULTILINE)


def sections(docstring: str | None) -> dict[str, str]:
    """Split a docstring into its sections by heading; the text before the first is under ""."""
    before, *rest = _HEADING.split(inspect.cleandoc(docstring or ""))
    return {"": before.strip(), **{name: text.strip() for name, text in zip(rest[::2], rest[1::2], strict=True)}}


def joined(parts: Mapping[str, str]) -> str:
    """Join sections to a docstring, in numpydoc's order."""
    texts = [parts.get("", "")]
    texts += [f"{name}\n{'-' * len(name)}\n{parts[name]}" for name in SECTIONS if parts.get(name)]
    return "\n\n".join(texts) + "\n"


def entries(section: str) -> dict[str, str]:
    """Split a Parameters section into its entries by name."""
    found = [text.rstrip() for text in _ENTRY.split(section) if text.strip()]
    return {re.split(r"\s*:", text.splitlines()[0])[0]: text for text in found}


def with_parameters(section: str, added: Sequence[AddedParameter]) -> str:
    """Add a framework's own parameters to a Parameters section, before `**options`."""
    table = entries(section)
    last = {name: table.pop(name) for name in list(table) if name.startswith("*")}
    for own in added:
        kind = own.annotation.replace(" | None", "").replace(" | ", " or ")
        optional = "" if own.required else ", optional"
        table[own.name] = f"{own.name} : {kind}{optional}\n{_indented(own.text)}"
    return "\n".join([*table.values(), *last.values()])


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())


def completed(docstring: str | None, framework: Framework) -> str:
    """Replace the `$names` of a shared docstring by a framework's texts."""
    channels_first = framework.channel_axis == 1
    image, features = ("2, 3, 64, 64", "2, 8, 4, 4") if channels_first else ("2, 64, 64, 3", "2, 4, 4, 8")
    random = [f"{own.name}={own.example}" for own in framework.added if own.required]
    texts = {
        "package": framework.package,
        "module": framework.module,
        "tensor": framework.tensor,
        "channel_axis": str(framework.channel_axis),
        "found_axis": f"{framework.channel_axis}, the framework's convention",
        "images": "(N, 3, H, W)" if channels_first else "(N, H, W, 3)",
        "maps": "(N, C, H', W')" if channels_first else "(N, H', W', C)",
        "image": framework.zeros.format(image),
        "features": framework.zeros.format(features),
        "features_shape": f"({features})",
        "random": "".join(f", {each}" for each in random),
        "only_random": ", ".join(random),
        "create": "",
        "loaded_dtype": "",
        "undecayed": "",
        "groups": GROUPS,
        **framework.texts,
    }
    text = Template(inspect.cleandoc(docstring or "")).safe_substitute(texts)
    imports = "\n".join(f">>> {line}" for line in used_imports(framework.imports, text.partition("Examples\n")[2]))
    return Template(text).substitute(imports=imports)


def used_imports(imports: Sequence[str], text: str) -> list[str]:
    """Return the import statements whose names a text uses."""
    return [line for line in imports if re.search(rf"\b{line.split()[-1]}\b[.(| ]", text)]


def class_docstring(kind: type[Activation], framework: Framework) -> str:
    """Add a framework's parameters, notes and example to the docstring of a spec type."""
    parts = sections(kind.__doc__)
    table = entries(parts.get("Parameters", ""))
    if issubclass(kind, ChannelwiseActivation):
        first = "(N, C, ...)" if framework.channel_axis == 1 else "(N, ..., C)"
        table["channel_axis"] = (
            "channel_axis : int, optional\n"
            f"    Axis of the channels in the input. The default is {framework.channel_axis}, for {first}."
        )
    names = [name for name in inspect.signature(kind).parameters if name in table]
    parts["Parameters"] = with_parameters("\n".join(table[name] for name in names), framework.added)
    note = framework.notes.get(kind.__name__, framework.notes.get("", ""))
    parts["Notes"] = "\n\n".join(filter(None, [parts.get("Notes", ""), note]))
    parts["Examples"] = _example(kind)
    return completed(joined(parts), framework)


def _example(kind: type[Activation]) -> str:
    needed = issubclass(kind, ChannelwiseActivation) and kind.needs_channels
    return (
        "$imports\n"
        f">>> from $package import {kind.__name__}\n"
        f">>> activation = {kind.__name__}({'8$random' if needed else '$only_random'})\n"
        ">>> tuple(activation($features).shape)\n$features_shape"
    )
