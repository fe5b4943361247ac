"""Check a module for the exact identities of ACON-C."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from acon_core.errors import AconError
from acon_core.random import Stream
from acon_core.surgery.modules import Modules

Array = NDArray[np.float64]
Function = Callable[[Array, Array, Array, Array], Array]

SHAPE = (2, 3, 5)  # the batch and space; channels come in at their axis
SHARP = 1e4


@dataclass(frozen=True)
class Finding:
    """The result of one identity.

    Parameters
    ----------
    identity : str
        The identity, as a formula.
    error : float
        Largest error, relative to the largest value.
    bound : float
        Largest error that rounding explains.
    """

    identity: str
    error: float
    bound: float

    @property
    def holds(self) -> bool:
        return self.error <= self.bound


@dataclass(frozen=True)
class Diagnosis:
    """The results of all identities.

    Parameters
    ----------
    findings : tuple of Finding
        One result for each identity.
    channels : int
        Number of elements of p1, p2 and beta; 1 means that all channels share them.
    mistake : str
        The known mistake whose function this is; empty if there is none.
    """

    findings: tuple[Finding, ...]
    channels: int
    mistake: str = ""

    @property
    def healthy(self) -> bool:
        return all(finding.holds for finding in self.findings)

    def __str__(self) -> str:
        lines = [f"{'holds' if f.holds else 'FAILS'}  {f.identity}  (error {f.error:.1e})" for f in self.findings]
        width = f"{self.channels} channels" if self.channels > 1 else "one p1, p2 and beta for all channels"
        if self.mistake:
            lines.append(f"mistake: {self.mistake}")
        return "\n".join([*lines, f"{'healthy' if self.healthy else 'not ACON-C'}, {width}"])


def _sigmoid(z: Array) -> Array:
    return np.exp(-np.logaddexp(0.0, -z))


# Each returns the two sides of an identity, which are equal if f is ACON-C.
IDENTITIES: dict[str, Callable[[Function, Array, Array, Array, Array], tuple[Array, Array]]] = {
    "f(x; p1, p2) = f(x; p2, p1)": lambda f, x, a, b, k: (f(x, a, b, k), f(x, b, a, k)),
    "f(x; beta) + f(x; -beta) = (p1 + p2) x": lambda f, x, a, b, k: (f(x, a, b, k) + f(x, a, b, -k), (a + b) * x),
    "f(x; beta = 0) = (p1 + p2) x / 2": lambda f, x, a, b, k: (f(x, a, b, 0 * k), (a + b) * x / 2),
    "f(x) - f(-x) = (p1 + p2) x": lambda f, x, a, b, k: (f(x, a, b, k) - f(-x, a, b, k), (a + b) * x),
    "f(2 x; beta) = 2 f(x; 2 beta)": lambda f, x, a, b, k: (f(2 * x, a, b, k), 2 * f(x, a, b, 2 * k)),
    "f = (p1 + p2) x / 2 + ((p1 - p2) x / 2) tanh(beta (p1 - p2) x / 2)": lambda f, x, a, b, k: (
        f(x, a, b, k), (a + b) * x / 2 + (a - b) * x / 2 * np.tanh(k * (a - b) * x / 2),
    ),
    "f = p1 x sigmoid(z) + p2 x sigmoid(-z), z = beta (p1 - p2) x": lambda f, x, a, b, k: (
        f(x, a, b, k), a * x * _sigmoid(k * (a - b) * x) + b * x * _sigmoid(-k * (a - b) * x),
    ),
    "p1 = 1, p2 = 0, beta = 1: f = x sigmoid(x)": lambda f, x, a, b, k: (f(x, 0 * a + 1, 0 * b, 0 * k + 1), x * _sigmoid(x)),
    "beta = 10000: f = max(p1 x, p2 x)": lambda f, x, a, b, k: (f(x, a, b, 0 * k + SHARP), np.maximum(a * x, b * x)),
}  # fmt: skip


# What others wrote in place of p1, p2 and beta: the function, and the words for it.
MISTAKES: dict[str, Callable[[Array, Array, Array, Array], Array]] = {
    "p1 + p2 in place of p1 - p2": lambda x, a, b, k: (a + b) * x * _sigmoid(k * (a + b) * x) + b * x,
    "p1 + p2 in place of p1 - p2, outside the sigmoid": lambda x, a, b, k: (a + b) * x * _sigmoid(k * (a - b) * x) + b * x,
    "p1 + p2 in place of p1 - p2, in the sigmoid": lambda x, a, b, k: (a - b) * x * _sigmoid(k * (a + b) * x) + b * x,
    "beta taken as |beta|": lambda x, a, b, k: (a - b) * x * _sigmoid(abs(k) * (a - b) * x) + b * x,
    "beta left out": lambda x, a, b, k: (a - b) * x * _sigmoid((a - b) * x) + b * x,
    "p1 - p2 left out of the sigmoid": lambda x, a, b, k: (a - b) * x * _sigmoid(k * x) + b * x,
    "p2 x left out": lambda x, a, b, k: (a - b) * x * _sigmoid(k * (a - b) * x),
    "p1 x in place of p2 x": lambda x, a, b, k: (a - b) * x * _sigmoid(k * (a - b) * x) + a * x,
    "tanh in place of the sigmoid": lambda x, a, b, k: (a - b) * x * np.tanh(k * (a - b) * x) + b * x,
    "hard sigmoid": lambda x, a, b, k: (a - b) * x * np.clip(k * (a - b) * x / 6 + 0.5, 0, 1) + b * x,
    "hard sigmoid of slope 0.2": lambda x, a, b, k: (a - b) * x * np.clip(0.2 * k * (a - b) * x + 0.5, 0, 1) + b * x,
}
SPACES = ((3, 5), (7,), (), (2, 3, 3))  # images, tokens or (N, C, L), rows, volumes


def _acon(x: Array, a: Array, b: Array, k: Array) -> Array:
    return a * x * _sigmoid(k * (a - b) * x) + b * x * _sigmoid(-k * (a - b) * x)


def _gradients(g: Array, x: Array, a: Array, b: Array, k: Array) -> dict[str, Array]:
    z = k * (a - b) * x
    s, t = _sigmoid(z), _sigmoid(-z)
    to_p1, to_p2 = s + z * s * t, t - z * s * t
    return {"x": g * (a * to_p1 + b * to_p2), "p1": g * x * to_p1, "p2": g * x * to_p2, "beta": g * (a - b) ** 2 * x**2 * s * t}


def _error(left: Array, right: Array, scale: float) -> float:
    error = float(np.abs(left - right).max()) / scale
    return error if np.isfinite(error) else float("inf")


def doctor(modules: Modules, model: Any, channel_axis: int) -> Diagnosis:
    """Check whether a module, or every one in a network that has p1 and p2, computes ACON-C.

    Parameters
    ----------
    modules : Modules
        Access to the framework's modules.
    model : Any
        A native module with `p1`, `p2` and `beta`, or a model that contains such modules. They are
        set to values that differ in every channel, and restored afterwards. A module without `beta`
        generates it.
    channel_axis : int
        Axis of the channels in the input, in the framework's own layout.

    Returns
    -------
    Diagnosis
        Every identity with its error.

    Raises
    ------
    AconError
        If no module has such parameters, or one cannot be run.
    """
    if all(hasattr(model, name) for name in ("p1", "p2")):
        return _Patient(modules, model, channel_axis).diagnose()
    found: dict[int, tuple[str, Any]] = {}
    for path, module in modules.sites(model):
        if path and all(hasattr(module, name) for name in ("p1", "p2")):
            found.setdefault(id(module), (path, module))
    if not found:
        raise AconError(f"doctor: {type(model).__name__} has no 'p1'; expected p1, p2 and beta, as in ACON-C, in it or below")
    findings, mistakes, channels = [], [], 0
    for path, module in found.values():
        one = _Patient(modules, module, channel_axis).diagnose()
        findings += [replace(finding, identity=f"{path}: {finding.identity}") for finding in one.findings]
        mistakes += [f"{path}: {one.mistake}"] * bool(one.mistake)
        channels = max(channels, one.channels)
    return Diagnosis(tuple(findings), channels, "; ".join(mistakes))


class _Patient:
    """A module under examination: its gates, and an input of a rank that it takes."""

    def __init__(self, modules: Modules, module: Any, channel_axis: int) -> None:
        self.modules, self.module, self.axis = modules, module, channel_axis
        names = ("p1", "p2", "beta") if hasattr(module, "beta") else ("p1", "p2")
        self.kept = {name: modules.read(module, name) for name in names}
        sizes = {name: array.size for name, array in self.kept.items()}
        self.channels = max(sizes.values())
        if set(sizes.values()) - {1, self.channels}:
            raise AconError(f"doctor: expected p1, p2 and beta of one size, found {sizes}")
        if not -4 <= channel_axis <= 4 or channel_axis == 0:
            raise AconError(f"doctor: expected a channel_axis of images, 1 to 3 or -1 to -3, found {channel_axis}")
        self.dtype = self.kept["p1"].dtype
        self.epsilon = float(ml_dtypes.finfo(self.dtype).eps) / 2  # type: ignore[no-untyped-call]
        node = modules.node(module)
        self.width = getattr(node, "channels", None) or self.channels

    def _input(self, space: tuple[int, ...], axis: int) -> Array:
        # No other axis has the size of the channels.
        shape = [2 if self.width != 2 else 4, *(size + 8 if size == self.width else size for size in space)]
        shape.insert(axis if axis >= 0 else len(shape) + 1 + axis, self.width)
        return Stream("doctor").uniform(tuple(shape), -4.0, 4.0).astype(self.dtype).astype(np.float64)

    def _choose(self) -> Array:
        """Return an input of the first rank that the module takes, channels at the axis."""
        why: tuple[object, object] = ((), f"no input has an axis {self.axis}")
        for space in reversed(SPACES):
            if -len(space) - 1 <= self.axis <= len(space) + 1:
                why = self._failure(space, self.axis) or why
        for space in SPACES:
            if not -len(space) - 1 <= self.axis <= len(space) + 1:
                continue
            if self._failure(space, self.axis) is None:
                return self._input(space, self.axis)
            rank = len(space) + 2
            others = [axis for axis in range(1, rank) if axis != self.axis % rank and self._failure(space, axis) is None]
            if others:
                hint = f"; with channels at axis {others[0]} of {rank} it runs: pass channel_axis={others[0] - rank}"
                why = why[0], f"{why[1]}{hint}"
                break
        name = type(self.module).__name__
        raise AconError(f"doctor: {name} could not be run on shape {why[0]}, channels at {self.axis}: {why[1]}")

    def _failure(self, space: tuple[int, ...], axis: int) -> tuple[object, object] | None:
        """Return the shape on which the module fails and why, or None if it runs."""
        x = self._input(space, axis)
        try:
            y = self.modules.run(self.module, x.astype(self.dtype))
        except Exception as error:  # a stranger's module: whatever it raises is reported
            return x.shape, error
        return None if y.shape == x.shape else (x.shape, f"expected an output of that shape, found {y.shape}")

    def _set(self, gates: Sequence[Array]) -> None:
        for (name, array), gate in zip(self.kept.items(), gates, strict=True):
            flat = np.broadcast_to(gate, self.gate_shape).ravel()[: array.size]
            self.modules.write(self.module, name, flat.reshape(array.shape).astype(self.dtype))

    def _function(self, x: Array, *gates: Array) -> Array:
        self._set(gates)
        return np.asarray(self.modules.run(self.module, x.astype(self.dtype)), np.float64)

    def diagnose(self) -> Diagnosis:
        try:
            return self._diagnose()
        finally:
            for name, array in self.kept.items():
                self.modules.write(self.module, name, array)

    def _diagnose(self) -> Diagnosis:
        x = self._choose()
        self.gate_shape = [1] * x.ndim
        self.gate_shape[self.axis] = self.width
        ends = {"p1": (0.5, 1.75), "p2": (-0.75, 0.25), "beta": (0.5, 2.0)}
        gates = []
        for name, array in self.kept.items():
            drawn = Stream("doctor", name).uniform((array.size,), *ends[name]).astype(self.dtype).astype(np.float64)
            gates.append(np.broadcast_to(drawn, (self.width,)).reshape(self.gate_shape))
        if len(gates) == 2:
            return Diagnosis((*self._generated(x, *gates),), self.channels)
        findings = []
        for text, sides in IDENTITIES.items():
            left, right = sides(self._function, x, *gates)
            scale = float(np.abs(right).max())
            # 64 roundings, and what a beta of 10000 is short of infinity: 0.2785 / beta.
            bound = 64 * self.epsilon + (0.3 / SHARP / scale if "max" in text else 0.0)
            findings.append(Finding(text, _error(left, right, scale), bound))
        mistake = "" if all(finding.holds for finding in findings) else self._mistake(x, *gates)
        return Diagnosis((*findings, *self._differentiated(x, *gates)), self.channels, mistake)

    def _differentiated(self, x: Array, *gates: Array) -> list[Finding]:
        """Judge the function in training, its gradients, and whether the input is changed."""
        g = Stream("doctor", "g").uniform(x.shape, 0.5, 1.5).astype(self.dtype).astype(np.float64)
        expected, terms = _acon(x, *gates), _gradients(g, x, *gates)
        self._set(gates)
        found, bound = [], 256 * self.epsilon
        seen = self.modules.probe(self.module, x.astype(self.dtype), g.astype(self.dtype), tuple(self.kept), True)
        y = np.asarray(seen.y, np.float64)
        found.append(Finding("in training: the same function", _error(y, expected, float(np.abs(expected).max())), bound))
        found.append(Finding("the input is not changed", _error(np.asarray(seen.after, np.float64), x, 1.0), 0.0))
        dx = np.asarray(seen.dx, np.float64)
        found.append(Finding("gradient of x", _error(dx, terms["x"], float(np.abs(terms["x"]).max())), bound))
        for name, array in self.kept.items():
            made, axes = seen.gates[name], tuple(i for i, size in enumerate(self.gate_shape) if size == 1 or array.size == 1)
            if made is None:
                found.append(Finding(f"{name} is a parameter that gets a gradient", float("inf"), bound))
                continue
            scale = float(np.abs(terms[name]).sum(axes).max())
            total = terms[name].sum(axes).reshape(-1)
            found.append(Finding(f"gradient of {name}", _error(np.asarray(made, np.float64).reshape(-1), total, scale), bound))
        return found

    def _generated(self, x: Array, a: Array, b: Array) -> list[Finding]:
        """Judge a module that generates beta: its p1, p2, and the identity at that beta."""
        f, x = self._function, x / 4
        x = x.astype(self.dtype).astype(np.float64)
        scale, bound = float(np.abs(a * x).max()), 64 * self.epsilon
        found = [
            Finding("f(x; p1, p2) = f(x; p2, p1)", _error(f(x, a, b), f(x, b, a), scale), bound),
            Finding("p1 = p2: f = p1 x", _error(f(x, a, a), a * x, scale), bound),
        ]
        # With p1 = 1 and p2 = 0, the output over x is sigmoid(beta x); the rest follows from beta.
        s = np.clip(f(x, 0 * a + 1, 0 * b) / np.where(x == 0, 1, x), 1e-6, 1 - 1e-6)
        z = (np.log(s) - np.log1p(-s)) * (a - b)
        expected = a * x * _sigmoid(z) + b * x * _sigmoid(-z)
        text = "f = p1 x sigmoid(z) + p2 x sigmoid(-z), z = beta (p1 - p2) x, at the generated beta"
        return [*found, Finding(text, _error(f(x, a, b), expected, scale), 8 * bound)]

    def _mistake(self, x: Array, a: Array, b: Array, k: Array) -> str:
        """Name the known mistake whose function this is, or return ""."""
        tried = [(k, self._function(x, a, b, k)), (-k, self._function(x, a, b, -k))]
        for name, function in MISTAKES.items():
            values = [(function(x, a, b, each), y) for each, y in tried]
            if all(_error(y, value, float(np.abs(value).max())) <= 256 * self.epsilon for value, y in values):
                return name
        return ""
