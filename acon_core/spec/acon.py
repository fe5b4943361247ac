"""The ACON family: ACON-A, B and C, Meta-ACON at three levels, FReLU and its smooth form ACON-FReLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from acon_core.errors import SpecError
from acon_core.spec.activation_base import ChannelwiseActivation
from acon_core.spec.gated import Acon, Maximum, SmoothMaximum
from acon_core.spec.graph import Graph, graph
from acon_core.spec.node import Node
from acon_core.spec.param import Constant, Init, Normal, Param
from acon_core.spec.pointwise import Identity, Sigmoid
from acon_core.spec.primitives import BatchNorm, Conv2d, GlobalAvgPool, LayerNorm, MaxPool2d, ReduceSample

__all__ = ["AconA", "AconB", "AconC", "AconFReLU", "FReLU", "InitName", "Level", "MetaAconC", "Norm"]

Level = Literal["channel", "layer", "pixel"]
Norm = Literal["batch", "none", "layer"]
Generator = Literal["released", "first"]
InitName = Literal["published", "paper"]


def _per_channel(channels: int, init: Init) -> Param:
    return Param((1, channels, 1, 1), init)


def _slope(channels: int, init: str, paper: float) -> Param:
    """p1 or p2: standard normal in the published code, a constant in the paper."""
    rules: dict[str, Init] = {"published": Normal(1.0), "paper": Constant(paper)}
    if init not in rules:
        raise SpecError(f"init: expected one of {sorted(rules)}, found {init!r}")
    return _per_channel(channels, rules[init])


@dataclass(frozen=True)
class AconA(ChannelwiseActivation):
    """ACON-A: y = x sigmoid(beta x), Swish with beta learnt per channel: the smooth form of ReLU, max(x, 0).

    `channels`: C. `beta`: (1, C, 1, 1), initially 1, no weight decay. (N, C, ...) -> the same; smooth, no kinks.
    Raises SpecError when `channels` is not bound. Source: Ma et al. 2021, section 3.1 and table 1.
    """

    def make_graph(self) -> Graph:
        params = {"beta": _per_channel(self.width, Constant(1.0))}
        return graph("x", ["y = acon(x, beta)"], "y", {"acon": Acon(1.0, 0.0)}, params)


@dataclass(frozen=True)
class AconB(ChannelwiseActivation):
    """ACON-B: y = (1 - p2) x sigmoid(beta (1 - p2) x) + p2 x: the smooth form of PReLU, max(x, p2 x).

    `channels`: C. `p2`, `beta`: (1, C, 1, 1), initially 0.25 (PReLU's slope) and 1, no weight decay.
    (N, C, ...) -> the same; smooth, no kinks. Raises SpecError when `channels` is not bound.
    Source: Ma et al. 2021, section 3.1 and table 1, where p2 is called p.
    """

    def make_graph(self) -> Graph:
        params = {"p2": _per_channel(self.width, Constant(0.25)), "beta": _per_channel(self.width, Constant(1.0))}
        return graph("x", ["y = acon(x, p2, beta)"], "y", {"acon": Acon(1.0)}, params)


@dataclass(frozen=True)
class AconC(ChannelwiseActivation):
    """ACON-C: y = (p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x, with p1, p2, beta learnt per channel.

    `channels`: C. `p1`, `p2`, `beta`: (1, C, 1, 1), or (1, 1, 1, 1) when `shared`, one number for all channels; no weight
    decay. `init`: `published` (p1, p2 ~ N(0, 1), beta = 1, the released code) or `paper` (p1 = 1, p2 = 0, beta = 1, so that
    it starts as SiLU). (N, C, ...) -> the same; smooth, no kinks. Raises SpecError when `channels` is not bound.
    Source: Ma et al. 2021, section 3.2; nmaac/acon acon.py. Shared: what RepAct's tables call ACONC.
    """

    init: InitName = "published"
    shared: bool = False

    def make_graph(self) -> Graph:
        size = 1 if self.shared else self.width
        params = {
            "p1": _slope(size, self.init, 1.0),
            "p2": _slope(size, self.init, 0.0),
            "beta": _per_channel(size, Constant(1.0)),
        }
        return graph("x", ["y = acon(x, p1, p2, beta)"], "y", {"acon": Acon()}, params)


@dataclass(frozen=True)
class MetaAconC(ChannelwiseActivation):
    """Meta-ACON: ACON-C whose beta is generated from x itself, per sample, by a generator that is linear up to a sigmoid.

    `channels`: C. `level`: `channel`, beta = sigmoid(norm2(fc2(norm1(fc1(mean over space))))), with fc1, fc2 1x1 convolutions
    C -> max(r, C // r) -> C with bias, r = `reduction`; `layer`, sigmoid(sum of x), one a sample, where `reduce` may be `mean`
    (the paper's sum saturates at real sizes); `pixel`, sigmoid(x). `norm`: `batch` as released, `layer`, or `none`, which is
    YOLOv5's. `generator`: `released`, or `first`, that of the code's first commit, with norm `none` alone: no biases, and
    C // r hidden channels however few.
    `p1`, `p2`: (1, C, 1, 1), `init` as for AconC. (N, C, ...) -> the same; smooth.
    Raises OneValuePerChannelError in training with norm `batch` and a batch of one.
    Source: Ma et al. 2021, section 3.3; nmaac/acon acon.py.
    """

    reduction: int = 16
    norm: Norm = "batch"
    init: InitName = "published"
    level: Level = "channel"
    reduce: Literal["sum", "mean"] = "sum"
    generator: Generator = "released"

    def __post_init__(self) -> None:
        super().__post_init__()
        words = {
            "level": get_args(Level),
            "norm": get_args(Norm),
            "reduce": ("sum", "mean"),
            "init": get_args(InitName),
            "generator": get_args(Generator),
        }
        for name, known in words.items():
            if getattr(self, name) not in known:
                raise SpecError(f"MetaAconC: expected {name} in {', '.join(known)}, found {getattr(self, name)!r}")
        if not isinstance(self.reduction, int) or self.reduction < 1:
            raise SpecError(f"MetaAconC: expected a reduction of 1 or more, found {self.reduction!r}")
        if self.generator == "first" and self.norm != "none":
            raise SpecError(f"MetaAconC: the first generator has no norms: expected norm none with it, found {self.norm!r}")

    def make_graph(self) -> Graph:
        # `mean` has no parameters, so its position does not affect the state dict.
        generators: dict[Level, dict[str, Node]] = {
            "channel": {"mean": GlobalAvgPool(), **self._convolutions()},
            "layer": {"reduce": ReduceSample(self.reduce)},
            "pixel": {},
        }
        generator = {**generators[self.level], "sigmoid": Sigmoid()}
        program, value = [], "x"
        for name in generator:
            made = "beta" if name == "sigmoid" else f"after_{name}"
            program.append(f"{made} = {name}({value})")
            value = made
        params = {"p1": _slope(self.width, self.init, 1.0), "p2": _slope(self.width, self.init, 0.0)}
        return graph("x", [*program, "y = acon(x, p1, p2, beta)"], "y", {**generator, "acon": Acon()}, params)

    def _convolutions(self) -> dict[str, Node]:
        released = self.generator == "released"
        hidden = max(self.reduction if released else 1, self.width // self.reduction)
        fc1, fc2 = Conv2d(self.width, hidden, 1, bias=released), Conv2d(hidden, self.width, 1, bias=released)
        nodes: dict[Norm, dict[str, Node]] = {
            "batch": {"fc1": fc1, "bn1": BatchNorm(hidden), "fc2": fc2, "bn2": BatchNorm(self.width)},
            "layer": {"fc1": fc1, "ln1": LayerNorm(hidden), "fc2": fc2, "ln2": LayerNorm(self.width)},
            "none": {"fc1": fc1, "fc2": fc2},
        }
        return nodes[self.norm]


@dataclass(frozen=True)
class FReLU(ChannelwiseActivation):
    """FReLU, the funnel activation: y = max(x, T(x)), T = BatchNorm of a depthwise 3x3 convolution, per channel.

    `channels`: C. `conv_frelu` (weight (C, 1, 3, 3), bias) and `bn_frelu`. Images alone: (N, C, H, W) -> the same.
    Gradient where x equals T(x): half to each. Raises SpecError for a value that is no image, OneValuePerChannelError in
    training. Source: Ma et al. 2020, equation 3; names of the released PyTorch port.
    """

    rank: ClassVar[int | None] = 4

    def make_graph(self) -> Graph:
        children: dict[str, Node] = {
            "conv_frelu": Conv2d(self.width, self.width, 3, 1, 1, groups=self.width),
            "bn_frelu": BatchNorm(self.width),
            "max": Maximum(),
        }
        return graph("x", ["c = conv_frelu(x)", "t = bn_frelu(c)", "y = max(x, t)"], "y", children)


@dataclass(frozen=True)
class AconFReLU(ChannelwiseActivation):
    """ACON-FReLU: y = bn2((x1 - x2) sigmoid(x1 - x2) + x2), x2 = bn1(depthwise 3x3 convolution of x): FReLU made smooth.

    `channels`: C. `stride` 1: x1 = x; 2: x1 = the 3x3 max pool of x with stride 2, which halves the image as the convolution
    does. `conv_frelu` (weight (C, 1, 3, 3), bias), `bn1`, `bn2`. Images alone: (N, C, H, W) -> (N, C, H', W').
    Smooth but for the max pool. Raises SpecError for a value that is no image, OneValuePerChannelError in training.
    Source: Ma et al. 2021, section 3.4; nmaac/acon TFNet, whose beta is fixed at 1.
    """

    rank: ClassVar[int | None] = 4

    stride: int = 1

    def make_graph(self) -> Graph:
        if self.stride not in (1, 2):
            raise SpecError(f"AconFReLU: expected stride 1 or 2, found {self.stride}")
        pool: Node = MaxPool2d(3, 2, 1) if self.stride == 2 else Identity()
        children: dict[str, Node] = {
            "conv_frelu": Conv2d(self.width, self.width, 3, self.stride, 1, groups=self.width),
            "bn1": BatchNorm(self.width),
            "bn2": BatchNorm(self.width),
            "pool": pool,
            "smooth_maximum": SmoothMaximum(),
        }
        program = ["x1 = pool(x)", "c = conv_frelu(x)", "x2 = bn1(c)", "m = smooth_maximum(x1, x2)", "y = bn2(m)"]
        return graph("x", program, "y", children)
