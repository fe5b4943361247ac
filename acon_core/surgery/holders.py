"""Modules that a module holds where its framework does not look, such as in lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MethodType
from typing import Any

from acon_core.spec import join


def held(kind: type[Any], value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the modules in a plain attribute: itself, items of containers, methods of modules.

    Parameters
    ----------
    kind : type
        The framework's class of modules.
    value : Any
        Value of the attribute.
    path : str
        Its path.

    Returns
    -------
    iterator of (str, module)
    """
    if isinstance(value, kind):
        yield path, value
    elif isinstance(value, MethodType) and isinstance(value.__self__, kind):
        yield path, value.__self__
    elif isinstance(value, dict):
        for key, each in value.items():
            if isinstance(key, str | int):
                yield from held(kind, each, join(path, str(key)))
    elif isinstance(value, list | tuple):
        for at, each in enumerate(value):
            yield from held(kind, each, join(path, str(at)))


def put(holder: Any, names: Sequence[str], module: Any) -> Any:
    """Put a module where the names lead and return the holder; tuples are made again.

    Parameters
    ----------
    holder : Any
        A module or a container.
    names : sequence of str
        Names of attributes, and keys or indices of containers.
    module : Any
        What to put there.

    Returns
    -------
    Any
    """
    if not names:
        return getattr(module, holder.__name__) if isinstance(holder, MethodType) else module
    name, *rest = names
    if isinstance(holder, tuple):
        items = list(holder)
        items[int(name)] = put(items[int(name)], rest, module)
        return type(holder)(*items) if hasattr(holder, "_fields") else tuple(items)
    if isinstance(holder, list):
        holder[int(name)] = put(holder[int(name)], rest, module)
    elif isinstance(holder, dict):
        key: Any = name if name in holder else int(name)
        holder[key] = put(holder[key], rest, module)
    elif name in vars(holder):  # a plain attribute, which stays one
        vars(holder)[name] = put(vars(holder)[name], rest, module)
    else:
        setattr(holder, name, put(getattr(holder, name, None), rest, module))
    return holder
