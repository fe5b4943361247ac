"""The spec: a network as data. Nothing here computes; `acon_core.reference` says what each node means."""

from acon_core.spec.activations import ACTIVATIONS, AconC, InitName, MetaAconC, Norm, activation_name, bind, parse_activation
from acon_core.spec.graph import Graph, InitRule, Layer, Step, graph, producer, sequential
from acon_core.spec.node import Node, Rules, join, named_params, walk
from acon_core.spec.param import Constant, Normal, NormalPerInput, Param, Shape, UniformPerFan
from acon_core.spec.primitives import (
    Acon,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaxPool2d,
    Primitive,
    ReLU,
    Shuffle,
    Sigmoid,
    SiLU,
    Split,
)
from acon_core.spec.transforms import Counts, Row, count, deterministic, initial_state, lower, summarise

__all__ = [
    "ACTIVATIONS", "Acon", "AconC", "BatchNorm", "Concat", "Constant", "Conv2d", "Counts", "Dropout", "Flatten",
    "GlobalAvgPool", "Graph", "InitName", "InitRule", "Layer", "Linear", "MaxPool2d", "MetaAconC", "Node", "Norm",
    "Normal", "NormalPerInput", "Param", "Primitive", "ReLU", "Row", "Rules", "Shape", "Shuffle", "SiLU", "Sigmoid",
    "Split", "Step", "UniformPerFan", "activation_name", "bind", "count", "deterministic", "graph", "initial_state",
    "join", "lower", "named_params", "parse_activation", "producer", "sequential", "summarise", "walk",
]  # fmt: skip
