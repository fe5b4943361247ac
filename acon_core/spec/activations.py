"""The activations by name: the table, the published tables' aliases, and names with options."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from typing import Any

from acon_core.errors import SpecError, choices
from acon_core.spec import pointwise as f
from acon_core.spec.acon import AconA, AconB, AconC, AconFReLU, FReLU, MetaAconC
from acon_core.spec.activation_base import ChannelwiseActivation, bind
from acon_core.spec.node import Node
from acon_core.spec.rectifiers import AReLU, DyReLU, PReLU, Swish
from acon_core.spec.repact import FusedRepAct, RepAct

__all__ = ["ACTIVATIONS", "ALIASES", "activation", "activation_name", "parse_name"]

ACTIVATIONS: dict[str, type[Node]] = {
    "identity": f.Identity,
    "relu": f.ReLU,
    "relu6": f.ReLU6,
    "leaky_relu": f.LeakyReLU,
    "prelu": PReLU,
    "elu": f.ELU,
    "selu": f.SELU,
    "celu": f.CELU,
    "gelu": f.GELU,
    "silu": f.SiLU,
    "swish": Swish,
    "mish": f.Mish,
    "softplus": f.Softplus,
    "hardswish": f.HardSwish,
    "hardsigmoid": f.HardSigmoid,
    "sigmoid": f.Sigmoid,
    "arelu": AReLU,
    "dyrelu": DyReLU,
    "frelu": FReLU,
    "acon_a": AconA,
    "acon_b": AconB,
    "acon_c": AconC,
    "meta_acon": MetaAconC,
    "acon_frelu": AconFReLU,
    "repact": RepAct,
    "fused_repact": FusedRepAct,
}
"""The class of each activation, by name."""

ALIASES: dict[str, str] = {
    "LReLU": "leaky_relu",
    "HSwish": "hardswish",
    "MetaAconC": "meta_acon",
    "ACON": "acon_c",
    "DyReLUA": "dyrelu(variant=A)",
    "DyReLUB": "dyrelu(variant=B)",
    "RepAct_1": "repact(variant=1)",
    "RepAct_2": "repact(variant=2)",
    "RepAct_3": "repact(variant=3)",
    "RepAct_Origin": "repact(variant=1)",
    "RepAct_Softmax": "repact(variant=2)",
    "RepAct_BN": "repact(variant=3)",
}
"""Names of published tables that differ from ours by more than case and underscores."""

_CALL = re.compile(r"(\w+)(?:\((.*)\))?")


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


_BY_NAME: dict[str, str] = {_plain(name): name for name in ACTIVATIONS} | {_plain(name): text for name, text in ALIASES.items()}


def activation(name: str, channels: int | None = None, **options: Any) -> Node:
    """Return the activation of a name.

    Parameters
    ----------
    name : str
        A key of `ACTIVATIONS` or `ALIASES`, in any case and with or without underscores. It may
        have options: "dyrelu(variant=B)".
    channels : int, optional
        Number of channels. Ignored by activations that do not need it, as is `channel_axis`.
    **options
        Fields of the activation's class. They override those in the name.

    Returns
    -------
    Node

    Raises
    ------
    SpecError
        If the name, an option or a value does not exist.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation("LReLU")
    LeakyReLU(slope=0.01)
    >>> spec.activation("meta_acon(norm=none)", 64, level="pixel").level
    'pixel'
    """
    kind, values = parse_name(name)
    axis = options.pop("channel_axis", 1)
    table = _options(kind)
    for option, value in options.items():
        if option not in table:
            raise SpecError(f"activation {name!r}: {option!r} is not an option; {choices(option, table)}")
        values[option] = _value(name, table[option], str(value).lower() if isinstance(value, bool) else str(value))
    if issubclass(kind, ChannelwiseActivation):
        values |= {"channels": channels, "channel_axis": axis}
    return _checked(kind(**values))


def activation_name(activation: Node) -> str:
    """Return the name that `activation` reads back as this activation.

    Whole numbers are always written, because a network may have its own default, such as the
    reduction of ShuffleNetV2 0.5x. Words and other numbers are written if they are not the default.

    Parameters
    ----------
    activation : Node
        An activation of the table `ACTIVATIONS`.

    Returns
    -------
    str
        Its name, with options in brackets.

    Raises
    ------
    SpecError
        If the activation is not in the table.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.activation_name(spec.MetaAconC(reduction=8, norm="none"))
    'meta_acon(reduction=8, norm=none)'
    """
    names = {kind: name for name, kind in ACTIVATIONS.items()}
    if type(activation) not in names:
        raise SpecError(f"{type(activation).__name__} is not in the table of activations: {', '.join(ACTIVATIONS)}")
    options = []
    for name, option in _options(type(activation)).items():
        value = getattr(activation, name)
        if type(option.default) is int or value != option.default:
            options.append(f"{name}={str(value).lower() if isinstance(value, bool) else value}")
    return names[type(activation)] + (f"({', '.join(options)})" if options else "")


def _options(kind: type[Node]) -> Mapping[str, Field[Any]]:
    """Return the fields that a name can set: not width and axis, which the place decides."""
    return {each.name: each for each in fields(kind) if each.name not in ("channels", "channel_axis")}


def parse_name(text: str) -> tuple[type[Node], dict[str, Any]]:
    """Return the class of an activation's name and the options that the name gives.

    Parameters
    ----------
    text : str
        A name of `ACTIVATIONS` or `ALIASES`, with options in brackets where wanted.

    Returns
    -------
    tuple of type and dict
        The class, and the options by name.

    Raises
    ------
    SpecError
        If the name, an option or a value does not exist.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.parse_name("gelu(approximate=tanh)")
    (<class 'acon_core.spec.pointwise.GELU'>, {'approximate': 'tanh'})
    """
    match = _CALL.fullmatch(text.replace(" ", ""))
    if match is None or _plain(match[1]) not in _BY_NAME:
        name = text.partition("(")[0]
        raise SpecError(f"activation {text!r} is not known; {choices(name, (*ACTIVATIONS, *ALIASES), 'acon list activations')}")
    # The options of an alias come first, so that those in the text override them.
    name, _, preset = _BY_NAME[_plain(match[1])].partition("(")
    kind, values = ACTIVATIONS[name], {}
    table = _options(kind)
    for part in filter(None, (*preset.rstrip(")").split(","), *(match[2] or "").split(","))):
        option, _, value = part.partition("=")
        if option not in table or not value:
            raise SpecError(f"activation {text!r}: {part!r} is not an option; {choices(option, table)}")
        values[option] = _value(text, table[option], value)
    return kind, values


def _positive(value: str) -> int:
    if not value.isdecimal() or int(value) == 0:
        raise ValueError(value)
    return int(value)


_PARSERS: dict[type, tuple[str, Callable[[str], Any]]] = {
    bool: ("true or false", lambda value: {"true": True, "false": False}[value.lower()]),
    int: ("a positive whole number", _positive),
    float: ("a number", float),
    str: ("a word", str),
}


def _value(text: str, option: Field[Any], value: str) -> Any:
    """Parse a value by the type of the option's default. The activation checks what words mean."""
    expected, parse = _PARSERS[type(option.default)]
    try:
        return parse(value)
    except (KeyError, ValueError):
        raise SpecError(f"activation {text!r}: {option.name} must be {expected}, found {value!r}") from None


def _checked(activation: Node) -> Node:
    """Return the activation if its options are valid: infer the shapes of its graph once."""
    axis = getattr(activation, "channel_axis", 1)
    if axis == 0:
        raise SpecError(
            f"{type(activation).__name__}: channel_axis 0 is the batch; expected 1 for (N, C, ...), -1 for (N, ..., C)"
        )
    bound = bind(activation, getattr(activation, "channels", None) or 8)
    shape = [2, 3, 5, 7, 4][: max(3, axis, -axis - 1)]
    shape.insert(axis if axis > 0 else len(shape) + 1 + axis, getattr(bound, "channels", 8))
    bound.out_shapes(tuple(shape))
    return activation
