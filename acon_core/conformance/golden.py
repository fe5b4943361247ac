"""Golden numbers: made by the reference, in a process that has never imported a framework, stored, compared."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.codecs import safetensors_file
from acon_core.conformance.cases import ARRAYS, Case, load_cases
from acon_core.random import Stream
from acon_core.reference import forward

Golden = dict[str, NDArray]

# How far two machines' float64 may be apart: another BLAS sums in another order.
REPRODUCED = 1e-11


def sampled(case: Case, key: str, array: NDArray) -> NDArray:
    """The elements of an array that a case keeps: all, or `sample` of them, chosen by the key."""
    if not case.sample or array.size <= case.sample:
        return array
    picks = (Stream("sample", case.name, key).unit((case.sample,)) * array.size).astype(np.int64)
    return array.reshape(-1)[picks]


def make(case: Case) -> Golden:
    """Every number that the case checks, by key: `y/0`, `tap/0/features.3`, `dparams/0/weight`, `scale/0/weight`
    (of `dx`: `scale/0`), `statistics/0/running_mean`. The number is the step. Sampled arrays keep
    their largest |value| as `peak/...`."""
    node = case.build()
    state = case.state(node)
    golden: Golden = {}

    def keep(key: str, array: NDArray) -> None:
        golden[key] = sampled(case, key, array)
        if golden[key].shape != array.shape:
            golden[f"peak/{key}"] = np.array(np.abs(array).max())

    for step in range(0 if case.raises else len(case.batches)):
        result = forward(node, state, [case.x(step)], case.train)
        keep(f"y/{step}", result.values[0])
        for tap in case.taps:
            keep(f"tap/{step}/{tap}", result.taps[tap])
        if case.gradients:
            cotangent = case.cotangent(step, result.values[0].shape).astype(np.float64)
            gradients = result.vjp((cotangent,))
            keep(f"dx/{step}", gradients.inputs[0])
            golden[f"scale/{step}"] = np.array(gradients.input_scales[0].max(initial=0.0))
            for path, gradient in gradients.params.items():
                golden[f"dparams/{step}/{path}"] = sampled(case, f"dparams/{step}/{path}", gradient)
                golden[f"scale/{step}/{path}"] = np.array(gradients.scales[path].max(initial=0.0))
        for path, array in result.statistics.items():
            golden[f"statistics/{step}/{path}"] = array
        state = state | result.statistics
    return golden


def stored() -> Golden:
    """The arrays in `conformance_data`, by `case:key`."""
    return dict(safetensors_file.read(ARRAYS).tensors)


def of_cases(cases: list[Case]) -> dict[str, Golden]:
    """The golden numbers of cases by name: stored ones are read, the others made by the reference in a fresh process."""
    goldens: dict[str, Golden] = {case.name: {} for case in cases}
    arrays = stored()
    anew = [case.name for case in cases if case.golden == "reference" and not case.raises]
    if anew:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "golden.safetensors")
            subprocess.run([sys.executable, "-m", "acon_core.conformance", "make", str(path), *anew], check=True)
            arrays = arrays | {name: array.copy() for name, array in safetensors_file.read(path).tensors.items()}
    for key, array in arrays.items():
        name, _, quantity = key.partition(":")
        if name in goldens:
            goldens[name][quantity] = array
    return goldens


def make_all(cases: list[Case]) -> Golden:
    """The golden numbers of cases in one table, by `case:key`."""
    return {f"{case.name}:{key}": np.asarray(array) for case in cases for key, array in make(case).items()}


def regenerate() -> None:
    """Make every stored number anew and write them."""
    safetensors_file.write(ARRAYS, make_all([case for case in load_cases() if case.golden == "stored"]), {})


def compare() -> list[str]:
    """Make every stored number anew and say, a line each, what differs from what is stored."""
    old, new = stored(), make_all([case for case in load_cases() if case.golden == "stored"])
    lines = [f"{key}: stored, but no case has it" for key in old if key not in new]
    lines += [f"{key}: not stored; run `python -m acon_core.conformance regenerate`" for key in new if key not in old]
    for key, array in new.items():
        if key not in old:
            continue
        case, _, quantity = key.partition(":")
        kind, _, place = quantity.partition("/")
        # A gradient that is exactly 0 is rounding alone: it is its scale that must not move.
        scale = new.get(f"{case}:scale/{place}", array) if kind in ("dx", "dparams") else array
        bound = REPRODUCED * max(np.abs(scale[np.isfinite(scale)]).max(initial=0.0), 1e-300)
        if old[key].shape != array.shape or not np.allclose(old[key], array, rtol=0, atol=bound, equal_nan=True):
            lines.append(f"{key}: stored and made anew differ")
    return lines
