"""Make, store and compare golden numbers.

The reference computes them in a process that has imported no framework.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.codecs import safetensors_file
from acon_core.conformance.cases import ARRAYS, DATA, SCHEMA, Case, load_cases
from acon_core.errors import AconError
from acon_core.random import Stream
from acon_core.reference import forward

Golden = dict[str, NDArray]

# The largest relative difference between two machines: another BLAS adds up in another order.
REPRODUCED = 1e-11
# The largest size of the stored numbers, in bytes.
LIMIT = 10_000_000


def sampled(case: Case, key: str, array: NDArray) -> NDArray:
    """Return the elements that a case checks: all, or `case.sample` of them, drawn by the key."""
    if not case.sample or array.size <= case.sample:
        return array
    picks = (Stream("sample", case.name, key).unit((case.sample,)) * array.size).astype(np.int64)
    return array.reshape(-1)[picks]


def make(case: Case) -> Golden:
    """Compute every number that a case checks.

    Returns
    -------
    dict of str to ndarray
        The numbers by key, in which 0 is the step: ``y/0`` and ``dx/0``; ``tap/0/features.3``;
        ``dparams/0/weight``; ``scale/0`` and ``scale/0/weight``, the largest scale of ``dx`` and
        of a parameter's gradient; ``statistics/0/running_mean``; ``peak/y/0``, the largest
        absolute value of an array that is sampled.
    """
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
    """Read the stored numbers, by `case:key`."""
    return dict(safetensors_file.read(ARRAYS).tensors)


def of_cases(cases: list[Case]) -> dict[str, Golden]:
    """Return the golden numbers of cases by name.

    Reads those that are stored. The reference makes the others in a process of its own.
    """
    goldens: dict[str, Golden] = {case.name: {} for case in cases}
    arrays = stored()
    unstored = [case.name for case in cases if case.golden == "reference" and not case.raises]
    if unstored:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "golden.safetensors")
            command = [sys.executable, "-m", "acon_core.cli", "conformance", "golden", "make", str(path), *unstored]
            subprocess.run(command, check=True)
            arrays = arrays | {name: array.copy() for name, array in safetensors_file.read(path).tensors.items()}
    for key, array in arrays.items():
        name, _, quantity = key.partition(":")
        if name in goldens:
            goldens[name][quantity] = array
    return goldens


def make_all(cases: list[Case]) -> Golden:
    """Compute the golden numbers of cases in one table, by `case:key`."""
    return {f"{case.name}:{key}": np.asarray(array) for case in cases for key, array in make(case).items()}


def write(path: Path, cases: list[Case]) -> None:
    """Compute the golden numbers of cases and write them as safetensors."""
    safetensors_file.write(path, make_all(cases), {})


def regenerate() -> None:
    """Compute all stored numbers again and write them."""
    write(ARRAYS, [case for case in load_cases() if case.golden == "stored"])


def check() -> list[str]:
    """Check the cases against their schema and the stored numbers; return one line per error."""
    try:
        import jsonschema  # only needed here; not a dependency of the package
    except ModuleNotFoundError as error:
        raise AconError("acon conformance golden check: jsonschema is not installed; pip install jsonschema") from error
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    lines = [
        f"{path.name}: {error.json_path}: {error.message}"
        for path in sorted((DATA / "cases").glob("*.json"))
        for error in validator.iter_errors(json.loads(path.read_text()))
    ]
    if lines:
        return lines
    cases = load_cases()
    names = [case.name for case in cases]
    lines += [f"{name}: the name occurs twice" for name in sorted({name for name in names if names.count(name) > 1})]
    for case in cases:
        for shape in case.batches:
            case.build().out_shapes(shape)
    have = {key.partition(":")[0] for key in stored()}
    want = {case.name for case in cases if case.golden == "stored" and not case.raises}
    lines += [f"{name}: golden numbers and cases do not match" for name in sorted(have ^ want)]
    if ARRAYS.stat().st_size > LIMIT:
        lines.append(f"{ARRAYS.name}: {ARRAYS.stat().st_size} bytes, more than {LIMIT}")
    return lines


def compare() -> list[str]:
    """Compute all stored numbers again and return one line per difference."""
    old, new = stored(), make_all([case for case in load_cases() if case.golden == "stored"])
    lines = [f"{key}: is stored, but belongs to no case" for key in old if key not in new]
    lines += [f"{key}: not stored; run `acon conformance golden regenerate`" for key in new if key not in old]
    for key, array in new.items():
        if key not in old:
            continue
        case, _, quantity = key.partition(":")
        kind, _, place = quantity.partition("/")
        # A gradient that is exactly 0 is nothing but rounding: compare it relative to its scale.
        scale = new.get(f"{case}:scale/{place}", array) if kind in ("dx", "dparams") else array
        bound = REPRODUCED * max(np.abs(scale[np.isfinite(scale)]).max(initial=0.0), 1e-300)
        if old[key].shape != array.shape or not np.allclose(old[key], array, rtol=0, atol=bound, equal_nan=True):
            lines.append(f"{key}: the stored and the computed numbers differ")
    return lines
