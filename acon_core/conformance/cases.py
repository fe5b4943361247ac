"""A case as data: a node, the batches that it sees, what is checked, where the numbers come from."""

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
    """Return the folder of cases and golden numbers: in the wheel beside this file, else the repository's."""
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
    """One thing to be held to.

    `node`: its JSON; `batches`: the shapes of the inputs, run one after the other on the same state. `train`: in training
    mode. `gradients`: go back too. `taps`: inner values that are checked. `sample`: how many elements of an output and of a
    gradient are kept (0: all). `golden`: `stored`, or `reference` where the arrays are too many to keep and are made anew.
    `raises`: the error expected instead. `compiled`: also run through the framework's compiler. `values`: what x is made of,
    else uniform variates from `low` to `high`, each channel of each row shifted by up to `rows` (where rows are alike, a
    generator's BatchNorm, which sees their means alone, divides rounding by almost nothing). `ranges`: of parameters by
    name, where not the usual ones. `dtypes`: what it is run in; where 16-bit ones are among them, inputs, cotangents and
    parameters are exact in bfloat16, and so in all. `memory`: how x lies there. `source`: where it comes from.
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
        if "network" not in self.node:
            return "layer"
        return "training" if self.train else "network"

    def build(self) -> spec.Node:
        return spec.deterministic(node_from_json(self.node))

    def x(self, step: int) -> NDArray[np.float32]:
        """The input of a step: uniform variates, or the listed values in turn. Exact in float32."""
        shape = self.batches[step]
        if self.values:
            x = np.resize(np.array([float(value) for value in self.values]), shape)
        else:
            random = Stream("x", self.name, step)
            x = random.uniform(shape, self.low, self.high)
            x = x + random.uniform((*shape[:2], *(1,) * (len(shape) - 2)), -self.rows, self.rows)
        return self._exact(x)

    def placed(self, x: NDArray) -> NDArray:
        """The same values, where and how `memory` says that they lie."""
        if self.memory == "channels_last":
            return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
        return x

    def _exact(self, array: NDArray[np.float64]) -> NDArray[np.float32]:
        """Rounded to what every dtype of the case holds."""
        narrow = any(dtype.endswith("16") for dtype in self.dtypes)
        return (array.astype(ml_dtypes.bfloat16) if narrow else array).astype(np.float32)

    def cotangent(self, step: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """What the output of a step is told, exact in float32."""
        return self._exact(Stream("cotangent", self.name, step).uniform(shape, -1.0, 1.0))

    def state(self, node: spec.Node) -> dict[str, NDArray]:
        """The state that the case starts from: nothing at its initial value, nothing zero, exact in float32."""
        made = asymmetric_state(node, self.name, self.ranges)
        return {path: array if array.dtype == np.int64 else self._exact(array) for path, array in made.items()}


def node_from_json(data: Mapping[str, Any]) -> spec.Node:
    """A node from its JSON: a network by name, with `options` of its function; a `sequential` list; a `graph`, whose `params`
    are its own parameters' shapes; or a type with its fields."""
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
