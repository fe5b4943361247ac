"""Conformance cases: a node, its inputs, and what is checked, as data in JSON files."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from acon_core import networks, spec
from acon_core.conformance.tolerances import Scope
from acon_core.errors import SpecError
from acon_core.numerics import asymmetric_state
from acon_core.random import Stream
from acon_core.spec.primitives import Primitive


def data_folder() -> Path:
    """Return the folder of cases and golden numbers.

    An installed wheel has it beside this file; a clone has it at the root of the repository.
    """
    packaged = Path(__file__).parent / "data"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conformance_data"


DATA = data_folder()
ARRAYS = DATA / "golden.safetensors"
SCHEMA = DATA / "schema.json"
ABSTRACT = (Primitive, spec.Layer, spec.Elementwise, spec.Windowed, spec.Activation, spec.ChannelwiseActivation)
NODE_TYPES: dict[str, type[spec.Node]] = {
    name: kind
    for name, kind in vars(spec).items()
    if inspect.isclass(kind) and issubclass(kind, (Primitive, spec.Layer)) and kind not in ABSTRACT
}


@dataclass(frozen=True, eq=False)
class Case:
    """One conformance case.

    Parameters
    ----------
    name : str
        A unique path, such as ``acon_c/rank_4``. It seeds the random numbers.
    node : mapping
        The node as JSON, for `node_from_json`.
    batches : tuple of shapes
        The shapes of the inputs, run in order on the same state.
    source : str
        What the case checks against: a paper with its section, or a published file.
    train : bool
        Whether to run in training mode.
    gradients : bool
        Whether to run backward too.
    taps : tuple of str
        Paths of intermediate values to check.
    sample : int
        How many elements of each output and gradient to check. 0 checks all.
    golden : {"stored", "reference"}
        Whether the numbers are stored, or are too large and computed when needed.
    raises : str
        The name of the error that is expected instead of numbers.
    compiled : bool
        Whether to run through the framework's compiler as well.
    values : tuple of float or str
        The input repeats these values. If empty, it is random.
    low, high : float
        The range of random inputs.
    rows : float
        Random inputs get a random offset within +-rows for each sample and channel. It keeps the
        means of the samples apart. The batch normalisation of a Meta-ACON generator sees only
        these means: if they were almost equal, it would divide rounding errors by almost 0.
    ranges : mapping of str to (low, high)
        Ranges of random parameters by name, in place of the default ones.
    dtypes : tuple of str
        The dtypes to run in. If a 16-bit dtype is among them, inputs, cotangents and parameters are
        rounded to bfloat16, so that they are exact in each of them.
    memory : {"contiguous", "channels_last"}
        The memory layout of the input.
    """

    name: str
    node: Mapping[str, Any]
    batches: tuple[tuple[int, ...], ...]
    source: str
    train: bool = False
    gradients: bool = True
    taps: tuple[str, ...] = ()
    sample: int = 0
    golden: str = "stored"
    raises: str = ""
    compiled: bool = False
    values: tuple[float | str, ...] = ()
    low: float = -2.0
    high: float = 2.0
    rows: float = 0.0
    ranges: Mapping[str, Sequence[float]] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ("float32", "float64")
    memory: Literal["contiguous", "channels_last"] = "contiguous"

    @property
    def scope(self) -> Scope:
        """Which rows of the table of tolerances apply."""
        if "network" not in self.node:
            return "layer"
        return "training" if self.train else "network"

    def build(self) -> spec.Node:
        """Build the node, without random layers."""
        return spec.deterministic(node_from_json(self.node))

    def x(self, step: int) -> NDArray[np.float32]:
        """Make the input of a step: random, or the listed values repeated. Exact in every dtype."""
        shape = self.batches[step]
        if self.values:
            x = np.resize(np.array([float(value) for value in self.values]), shape)
        else:
            random = Stream("x", self.name, step)
            x = random.uniform(shape, self.low, self.high)
            x = x + random.uniform((*shape[:2], *(1,) * (len(shape) - 2)), -self.rows, self.rows)
        return self._exact(x)

    def placed(self, x: NDArray) -> NDArray:
        """Return the same values in the memory layout of the case."""
        if self.memory == "channels_last":
            return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
        return x

    def _exact(self, array: NDArray[np.float64]) -> NDArray[np.float32]:
        """Round to values that every dtype of the case represents exactly."""
        narrow = any(dtype.endswith("16") for dtype in self.dtypes)
        return (array.astype(ml_dtypes.bfloat16) if narrow else array).astype(np.float32)

    def cotangent(self, step: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Make the gradient with respect to the output of a step. Exact in every dtype."""
        return self._exact(Stream("cotangent", self.name, step).uniform(shape, -1.0, 1.0))

    def state(self, node: spec.Node) -> dict[str, NDArray]:
        """Make the initial state: no initial values, no zeros, no ties. Exact in every dtype."""
        state = asymmetric_state(node, self.name, self.ranges)
        return {path: array if array.dtype == np.int64 else self._exact(array) for path, array in state.items()}


def node_from_json(data: Mapping[str, Any]) -> spec.Node:
    """Build a node from its JSON.

    Parameters
    ----------
    data : mapping
        One of four forms. ``network``, ``act``, ``classes`` and ``options``: a registered network.
        ``sequential``: a list of nodes. ``graph``, ``children`` and ``params``: the lines of a
        graph, its nodes by name, and the shapes of its own parameters by name. ``type`` and
        fields: a primitive, layer or activation.

    Raises
    ------
    SpecError
        If there is no such type or network, or a field is invalid.
    """
    if "network" in data:
        options = networks.as_tuples(data.get("options", {}))
        return networks.create(data["network"], data["act"], data["classes"], **options).graph
    if "sequential" in data:
        return spec.sequential(*(node_from_json(each) for each in data["sequential"]))
    if "graph" in data:
        children = {name: node_from_json(each) for name, each in data["children"].items()}
        params = {name: spec.Param(tuple(shape), spec.Constant(0.0)) for name, shape in data.get("params", {}).items()}
        return spec.graph("x", data["graph"], "y", children, params)
    kind = NODE_TYPES.get(data["type"])
    if kind is None:
        raise SpecError(f"node type {data['type']!r} is not known; known: {', '.join(sorted(NODE_TYPES))}")
    return kind(**networks.as_tuples({name: value for name, value in data.items() if name != "type"}))


def load_cases() -> list[Case]:
    """Every case of `DATA`, by file and then in the order written."""
    cases = []
    for path in sorted((DATA / "cases").glob("*.json")):
        for entry in json.loads(path.read_text()):
            plain = networks.as_tuples(entry)
            plain["batches"] = tuple(tuple(shape) for shape in entry["batches"])
            cases.append(Case(**plain))
    return cases
