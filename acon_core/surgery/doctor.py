"""Check a module for the exact identities of ACON-C."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    """

    findings: tuple[Finding, ...]
    channels: int

    @property
    def healthy(self) -> bool:
        return all(finding.holds for finding in self.findings)

    def __str__(self) -> str:
        lines = [f"{'holds' if f.holds else 'FAILS'}  {f.identity}  (error {f.error:.1e})" for f in self.findings]
        width = f"{self.channels} channels" if self.channels > 1 else "one p1, p2 and beta for all channels"
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


def doctor(modules: Modules, module: Any, channel_axis: int) -> Diagnosis:
    """Check whether a module computes ACON-C.

    Parameters
    ----------
    modules : Modules
        Access to the framework's modules.
    module : Any
        A native module with `p1`, `p2` and `beta` of C elements each. They are set to values that
        differ in every channel, and restored afterwards.
    channel_axis : int
        Axis of the channels in the input, in the framework's own layout.

    Returns
    -------
    Diagnosis
        Every identity with its error.

    Raises
    ------
    AconError
        If the module has no such parameters, or cannot be run.
    """
    kept = {}
    for name in ("p1", "p2", "beta"):
        try:
            kept[name] = modules.read(module, name)
        except AttributeError:
            raise AconError(
                f"doctor: {type(module).__name__} has no {name!r}; expected p1, p2 and beta, as in ACON-C"
            ) from None
    sizes = {name: array.size for name, array in kept.items()}
    channels = max(sizes.values())
    if set(sizes.values()) != {channels}:
        raise AconError(f"doctor: expected p1, p2 and beta of one size, found {sizes}")
    dtype = kept["p1"].dtype
    epsilon = float(ml_dtypes.finfo(dtype).eps) / 2  # type: ignore[no-untyped-call]
    shape = [*SHAPE]
    if not -len(shape) <= channel_axis <= len(shape) or channel_axis == 0:
        raise AconError(f"doctor: expected a channel_axis of images, 1 to 3 or -1 to -3, found {channel_axis}")
    shape.insert(channel_axis if channel_axis >= 0 else len(shape) + 1 + channel_axis, channels)
    x = Stream("doctor").uniform(tuple(shape), -4.0, 4.0).astype(np.float32)
    values = {
        name: Stream("doctor", name).uniform((channels,), *ends).astype(np.float32).astype(np.float64)
        for name, ends in {"p1": (0.5, 1.75), "p2": (-0.75, 0.25), "beta": (0.5, 2.0)}.items()
    }
    gate_shape = [1] * len(shape)
    gate_shape[channel_axis] = channels
    gates = [value.astype(dtype).astype(np.float64).reshape(gate_shape) for value in values.values()]

    def function(x: Array, *gates: Array) -> Array:
        for (name, array), gate in zip(kept.items(), gates, strict=True):
            modules.write(module, name, gate.reshape(array.shape).astype(dtype))
        try:
            y = modules.run(module, x.astype(dtype))
        except Exception as error:
            text = f"doctor: {type(module).__name__} could not be run on shape {x.shape}, channels at {channel_axis}: {error}"
            raise AconError(text) from error
        if y.shape != x.shape:
            raise AconError(
                f"doctor: expected an output of shape {x.shape}, found {y.shape}; is channel_axis {channel_axis} right?"
            )
        return np.asarray(y, np.float64)

    findings = []
    try:
        for text, sides in IDENTITIES.items():
            left, right = sides(function, x.astype(dtype).astype(np.float64), *gates)
            scale = float(np.abs(right).max())
            # 64 roundings, and what a beta of 10000 is short of infinity: 0.2785 / beta.
            bound = 64 * epsilon + (0.3 / SHARP / scale if "max" in text else 0.0)
            error = np.abs(left - right).max() / scale
            findings.append(Finding(text, float(error) if np.isfinite(error) else float("inf"), bound))
    finally:
        for name, array in kept.items():
            modules.write(module, name, array)
    return Diagnosis(tuple(findings), channels)
