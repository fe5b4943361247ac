"""What the watched runs of the frameworks share: calls by path, and the tensors of an output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from itertools import chain
from types import FrameType
from typing import Any

from acon_core import spec
from acon_core.surgery.modules import Call, FunctionCall, Modules
from acon_core.surgery.rewrite import find_place


class Watch:
    """Record the calls of sites, and of activation functions that no known site explains.

    A backend's subclass says what a tensor shows, and puts `module` and `function` where the
    framework calls modules and functions.

    Parameters
    ----------
    modules : Modules
        Access to the framework's modules.
    model : Any
        A native model.
    """

    tensor: type

    def __init__(self, modules: Modules, model: Any) -> None:
        self._modules = modules
        self._paths: dict[int, list[str]] = {}
        self._kept = [*modules.sites(model), *modules.references(model)]  # so that no `id` is used again
        for path, module in self._kept:
            self._paths.setdefault(id(module), []).append(path)
        self._owners = {key: paths[0] for key, paths in self._paths.items()}
        self._running: list[tuple[str, bool]] = []
        self.calls: dict[str, list[Call]] = {}
        self.functions: list[FunctionCall] = []

    def shape(self, x: Any) -> spec.Shape:
        """Return the shape of a tensor."""
        return tuple(x.shape)

    def scale(self, x: Any) -> float | None:
        """Return the root of the mean square of a tensor; None if it is empty."""
        raise NotImplementedError

    def axis(self, x: Any) -> int | str | None:
        """Return the channel axis of a tensor, as `Call.axis`."""
        raise NotImplementedError

    def version(self, x: Any) -> int | None:
        """Return a number that changes when the tensor is written into; None if there is none."""
        return None

    def returned(self, module: Any, result: Any) -> None:
        """Note what a module returned."""

    def is_explained(self, frame: FrameType) -> bool:
        """Return whether a call belongs to a site whose spec is known."""
        return any(known for _, known in self._running)

    def module(
        self, own: Callable[..., Any], frame: FrameType, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a module by the framework's own `__call__`, and record the call.

        Parameters
        ----------
        own : callable
            What the framework does in such a call.
        frame : frame
            The frame of the code that makes the call.
        module : Any
            A native module.
        args, kwargs : tuple, dict
            Its arguments.

        Returns
        -------
        Any
            What the module returns.
        """
        paths, node = self._paths.get(id(module)), self._modules.node(module)
        inner = isinstance(node, spec.Graph)
        site = (node is not None and not inner) or self._modules.leaf(module)
        value = next(chain(args, kwargs.values()), None)
        given = isinstance(value, self.tensor)
        call = self._noted(value, frame, site) if given and (paths or site) else None
        version = self.version(value) if given else None
        where = self._where
        explained = self.is_explained(frame)
        self._running.append((paths[0] if paths else where, node is not None))
        try:
            result = own(module, *args, **kwargs)
        finally:
            self._running.pop()
        if call is not None:
            call = replace(call, in_place=self.version(value) != version)
            for path in paths or ():
                self.calls.setdefault(path, []).append(call)
            if paths is None and node is not None and not inner and not spec.named_params(node) and not explained:
                # A module that no part of the model holds is as good as a function.
                self.functions.append(FunctionCall(spec.activation_name(node).partition("(")[0], where, node, call))
        self.returned(module, result)
        return result

    def function(self, name: str, node: spec.Node | None, frame: FrameType, x: Any, run: Callable[[], Any]) -> Any:
        """Run the call of an activation function on x, and record it.

        Parameters
        ----------
        name : str
            Name of the function.
        node : Node or None
            The function as a spec, with the options of the call; None if the spec has none such.
        frame : frame
            The frame of the code that makes the call.
        x : tensor
            Its input.
        run : callable
            Makes the call.

        Returns
        -------
        Any
            What the function returns.
        """
        call, version = self._noted(x, frame, True), self.version(x)
        result = run()
        call = replace(call, in_place=self.version(x) != version)
        self.functions.append(FunctionCall(name, self._where, node, call))
        return result

    @property
    def _where(self) -> str:
        return self._running[-1][0] if self._running else ""

    def _noted(self, x: Any, frame: FrameType, site: bool) -> Call:
        shape = self.shape(x)
        return Call(shape, self.scale(x), self.axis(x), find_place(frame, self._owners)) if site else Call(shape)


def call_with(model: Any, example: Any) -> Any:
    """Call a model with an input, a tuple of arguments, or a mapping of keyword arguments."""
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def tensors(kind: type, value: Any) -> Iterator[Any]:
    """Yield the tensors in the output of a model: in mappings, sequences and data classes."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors(kind, each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors(kind, each)
    elif is_dataclass(value):
        for each in fields(value):
            yield from tensors(kind, getattr(value, each.name))


@contextmanager
def patched(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Run the body with attributes of classes or modules set to other values.

    Parameters
    ----------
    *changes : tuple of (owner, name, value)
        What is set; an attribute that the owner inherited is removed afterwards.

    Returns
    -------
    context manager
    """
    before = [(owner, name, vars(owner).get(name), name in vars(owner)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value, own in before:
            setattr(owner, name, value) if own else delattr(owner, name)
