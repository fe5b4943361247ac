"""Let calls in the methods of a module call attributes of that module instead.

A module that a method calls at three places becomes three modules, and a function that it calls
becomes a module. Only the called expressions change: control flow, modes and checkpointing stay,
and there is no counter that could go wrong. The module gets a subclass of its class, which is made
again from the class and the list of edits when the module is copied or unpickled.
"""

from __future__ import annotations

import ast
import dis
import inspect
import linecache
import textwrap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import CodeType, FrameType, FunctionType
from typing import Any


@dataclass(frozen=True)
class Place:
    """A call expression in a method of a module.

    Parameters
    ----------
    owner : str
        Path of the module.
    method : str
        Name of the method.
    call : int
        Number of the call expression in the method, in the order of `ast.walk`.
    text : str
        The expression, for reports.
    """

    owner: str
    method: str
    call: int
    text: str

    def __str__(self) -> str:
        return f"{self.text if len(self.text) <= 40 else f'{self.text[:39]}…'} in {self.method}"


@dataclass(frozen=True, order=True)
class Edit:
    """A change of one call expression.

    Parameters
    ----------
    method : str
        Name of the method.
    call : int
        Number of the call expression in the method of the original class.
    attribute : str
        Name of the attribute that is called instead.
    function : bool
        Whether the call is that of a function, of which the first argument alone stays.
    """

    method: str
    call: int
    attribute: str
    function: bool


def find_place(frame: FrameType | None, paths: dict[int, str]) -> Place | None:
    """Find the call expression that a frame is in.

    Parameters
    ----------
    frame : frame or None
        The frame of the code that makes the call.
    paths : dict from int to str
        Paths of the modules of the model by their `id`.

    Returns
    -------
    Place or None
        None if the code is no method of one of these modules, or if its source is not known.
    """
    if frame is None:
        return None
    for name in (*frame.f_code.co_varnames[:1], *frame.f_code.co_freevars):
        owner = frame.f_locals.get(name)
        if id(owner) in paths:
            break
    else:
        return None
    return place_in(owner, paths[id(owner)], frame.f_code, frame.f_lasti, frame.f_lineno)


def place_in(owner: Any, path: str, code: CodeType, instruction: int, line: int) -> Place | None:
    """Find the call expression of a method that an instruction of its code is in.

    Parameters
    ----------
    owner : Any
        A module of the model.
    path : str
        Its path.
    code : code
        The code of the method, or of a function in it.
    instruction : int
        Offset of the instruction.
    line : int
        Number of its line.

    Returns
    -------
    Place or None
        None if the code is none of a method of the module, or if its source is not known.
    """
    found = _method(type(owner), code)
    if found is None or found[0] in vars(owner):
        return None
    method, function = found
    tree = _source(function)
    if tree is None or not tree.args.args:
        return None
    numbers = getattr(function, "__acon_calls__", None)
    fitting = _running(tree, code, instruction, line)
    if len(fitting) != 1:
        return None
    call = fitting[0]
    at = next(at for at, each in enumerate(_calls(tree)) if each is call)
    return Place(path, method, numbers[at] if numbers else at, ast.unparse(call))


def rewrite(module: Any, edits: tuple[Edit, ...]) -> None:
    """Give a module the class of its own in which these calls are changed.

    Parameters
    ----------
    module : Any
        A native module, to which the attributes are added by the caller.
    edits : tuple of Edit
        The changes, in addition to those that its class has already.
    """
    kind: type = type(module)
    base, before = getattr(kind, "__acon_rewritten__", (kind, ()))
    set_class(module, rewritten(base, tuple(sorted({*before, *edits}))))


def set_class(module: Any, kind: type) -> None:
    """Set the class of a module, whatever its framework does with attributes."""
    object.__setattr__(module, "__class__", kind)


@cache
def rewritten(base: type, edits: tuple[Edit, ...]) -> type:
    """Make the subclass of a class in which calls are changed.

    Parameters
    ----------
    base : type
        The class.
    edits : tuple of Edit
        The changes.

    Returns
    -------
    type
        The subclass, the same for the same arguments.
    """
    namespace: dict[str, Any] = {
        "__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__,
        "__acon_rewritten__": (base, edits), "__reduce__": _reduce,
    }  # fmt: skip
    for method in sorted({edit.method for edit in edits}):
        function = inspect.getattr_static(base, method)
        namespace[method] = _edited(function, tuple(edit for edit in edits if edit.method == method))
    return type(base)(base.__name__, (base,), namespace)


def _reduce(self: Any) -> Any:
    base, edits = type(self).__acon_rewritten__
    # A class that knows what its state is says so.
    state = self.__getstate__() if hasattr(base, "__getstate__") else vars(self)
    return _restored, (base, edits), state


def _restored(base: type, edits: tuple[Edit, ...]) -> Any:
    kind = rewritten(base, edits)
    return kind.__new__(kind)  # type: ignore[call-overload]


def _method(kind: type, code: CodeType) -> tuple[str, FunctionType] | None:
    """Find the method, as the class has it, that a piece of code is in."""
    for each in kind.__mro__:
        for name, value in vars(each).items():
            function = getattr(value, "__acon_watched__", value)  # of a method that a run stands in for
            if isinstance(function, FunctionType) and code in _codes(function.__code__):
                return (name, function) if inspect.getattr_static(kind, name) is value else None
    return None


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _running(tree: ast.FunctionDef, code: CodeType, instruction: int, line: int) -> list[ast.Call]:
    """Return the calls that an instruction may be in."""
    if hasattr(code, "co_positions"):  # two calls never end at the same place
        _, last, _, column = list(code.co_positions())[instruction // 2]
        return [call for call in _calls(tree) if (call.end_lineno, call.end_col_offset) == (last, column)]
    # Python 3.10 knows the line alone, but the instructions are in the order of evaluation.
    made = [each.offset for each in dis.get_instructions(code) if each.opname.startswith("CALL_")]
    order = [call for statement in tree.body for call in _evaluated(statement)]
    if code.co_name == tree.name and len(made) == len(order) and instruction in made:
        return list(filter(None, [order[made.index(instruction)]]))
    return [call for call in _calls(tree) if call.lineno == line]


def _evaluated(node: ast.AST) -> Iterator[ast.Call | None]:
    """Yield the calls in the order of evaluation; None for that of a comprehension."""
    if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
        return
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        yield from _evaluated(node.generators[0].iter)
        yield None
        return
    parts = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Assign):
        parts = [node.value, *node.targets]
    elif isinstance(node, ast.Dict):
        parts = [each for pair in zip(node.keys, node.values, strict=True) for each in pair if each is not None]
    for part in parts:
        yield from _evaluated(part)
    if isinstance(node, ast.Call):
        yield node


@cache
def _module(file: str, lines: tuple[str, ...]) -> ast.Module | None:
    try:
        return ast.parse("".join(lines), file)
    except SyntaxError:
        return None


def _source(function: FunctionType) -> ast.FunctionDef | None:
    """Return the syntax tree of a function, with the positions that its code has."""
    code = function.__code__
    tree = _module(code.co_filename, tuple(linecache.getlines(code.co_filename, function.__globals__)))
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.FunctionDef) and (node.name, node.lineno) == (code.co_name, code.co_firstlineno):
            return node if not node.decorator_list else None
    return None


def _edited(function: FunctionType, edits: tuple[Edit, ...]) -> FunctionType:
    source = _source(function)
    if source is None:
        raise TypeError(f"{function.__qualname__}: its source is no longer the one that its calls were replaced in")
    tree = ast.parse(ast.unparse(source)).body[0]
    assert isinstance(tree, ast.FunctionDef)
    calls = _calls(tree)
    number = {id(call): at for at, call in enumerate(calls)}
    for edit in edits:
        call = calls[edit.call]
        if edit.function:
            named = [each.value for each in call.keywords if each.arg in ("input", "x")]
            method = [call.func.value] if isinstance(call.func, ast.Attribute) else []
            call.args, call.keywords = (call.args or named or method)[:1], []
        call.func = ast.Attribute(ast.Name(tree.args.args[0].arg, ast.Load()), edit.attribute, ast.Load())
    numbers = [number[id(call)] for call in _calls(tree)]
    # In a class, for private names; in a function, for the variables that the method closes over.
    closed = ", ".join(name for name in function.__code__.co_freevars if name != "__class__")
    holder = function.__qualname__.rpartition(".")[0].rpartition(".")[2]
    kind = holder if holder.isidentifier() else "Module"
    body = textwrap.indent(ast.unparse(ast.fix_missing_locations(tree)), " " * 8)
    text = f"def scope({closed}):\n    class {kind}:\n{body}\n"
    file = f"<{function.__qualname__}, calls replaced, {zlib.crc32(text.encode()):08x}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    code = next(each for each in _codes(compile(text, file, "exec")) if each.co_name == function.__name__ and each.co_argcount)
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    made = FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, tuple(cells[name] for name in code.co_freevars)
    )
    made.__kwdefaults__, made.__annotations__ = function.__kwdefaults__, function.__annotations__
    made.__qualname__, made.__module__, made.__doc__ = function.__qualname__, function.__module__, function.__doc__
    made.__acon_calls__ = numbers  # type: ignore[attr-defined]
    return made
