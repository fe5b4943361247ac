"""The ACON family: ACON-A, B and C, Meta-ACON, FReLU and ACON-FReLU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from acon_core.errors import SpecError, meant
from acon_core.spec.activation_base import ChannelwiseActivation
from acon_core.spec.gated import Acon, Maximum, SmoothMaximum
from acon_core.spec.graph import Graph, graph
from acon_core.spec.node import Node
from acon_core.spec.param import Constant, Init, Normal, Param
from acon_core.spec.pointwise import Identity, Sigmoid
from acon_core.spec.primitives import BatchNorm, Conv2d, GlobalAvgPool, LayerNorm, MaxPool2d
from acon_core.spec.rearrange import ReduceSample

__all__ = ["AconA", "AconB", "AconC", "AconFReLU", "FReLU", "InitName", "Level", "MetaAconC", "Norm"]

Level = Literal["channel", "layer", "pixel"]
Norm = Literal["batch", "none", "layer"]
Generator = Literal["released", "first"]
InitName = Literal["published", "paper"]


def _per_channel(channels: int, init: Init) -> Param:
    return Param((1, channels, 1, 1), init)


def _check_word(owner: str, option: str, value: object, known: Sequence[str]) -> None:
    """Raise SpecError unless the value of an option is one of its words."""
    if value not in known:
        hint = meant(value, known)
        raise SpecError(f"{owner}: expected {option} in {', '.join(known)}, found {value!r}{hint and f'; {hint}'}")


def _slope(owner: str, channels: int, init: str, paper: float) -> Param:
    """Return p1 or p2: standard normal in the published code, a constant in the paper."""
    rules: dict[str, Init] = {"published": Normal(1.0), "paper": Constant(paper)}
    _check_word(owner, "init", init, tuple(rules))
    return _per_channel(channels, rules[init])


@dataclass(frozen=True)
class AconA(ChannelwiseActivation):
    """ACON-A, which is Swish with one learned beta per channel: y = x sigmoid(beta x).

    Parameters
    ----------
    channels : int
        Number of channels, C.
    channel_axis : int, default 1
        Axis of the channels: 1 for (N, C, ...), -1 for (N, ..., C).

    Notes
    -----
    The smooth form of ReLU, max(x, 0). The output has the input's shape; there are no kinks.

    State: `beta` (1, C, 1, 1), initially 1, without weight decay.

    References
    ----------
    Ma et al. 2021, "Activate or Not: Learning Customized Activation", section 3.1 and table 1.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.AconA(64).out_shapes((2, 64, 7, 9))
    ((2, 64, 7, 9),)
    """

    def make_graph(self) -> Graph:
        params = {"beta": _per_channel(self.width, Constant(1.0))}
        return graph("x", ["y = acon(x, beta)"], "y", {"acon": Acon(1.0, 0.0)}, params)


@dataclass(frozen=True)
class AconB(ChannelwiseActivation):
    """ACON-B: y = (1 - p2) x sigmoid(beta (1 - p2) x) + p2 x.

    Parameters
    ----------
    channels : int
        Number of channels, C.
    channel_axis : int, default 1
        Axis of the channels: 1 for (N, C, ...), -1 for (N, ..., C).

    Notes
    -----
    The smooth form of PReLU, max(x, p2 x). The output has the input's shape; there are no kinks.

    State, without weight decay: `p2` (1, C, 1, 1), initially 0.25 as in PReLU; `beta` (1, C, 1, 1),
    initially 1.

    References
    ----------
    Ma et al. 2021, "Activate or Not: Learning Customized Activation", section 3.1 and table 1,
    where p2 is called p.

    Examples
    --------
    >>> from acon_core import spec
    >>> list(spec.named_params(spec.AconB(64)))
    ['p2', 'beta']
    """

    def make_graph(self) -> Graph:
        params = {"p2": _per_channel(self.width, Constant(0.25)), "beta": _per_channel(self.width, Constant(1.0))}
        return graph("x", ["y = acon(x, p2, beta)"], "y", {"acon": Acon(1.0)}, params)


@dataclass(frozen=True)
class AconC(ChannelwiseActivation):
    """ACON-C: y = (p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x.

    Parameters
    ----------
    channels : int
        Number of channels, C.
    init : {"published", "paper"}, default "published"
        Initial values. "published": p1 and p2 standard normal, beta 1, as in the released code.
        "paper": p1 = 1, p2 = 0, beta = 1, which is SiLU.
    shared : bool, default False
        Share one p1, p2 and beta between all channels, as in RepAct's tables.
    channel_axis : int, default 1
        Axis of the channels: 1 for (N, C, ...), -1 for (N, ..., C).

    Notes
    -----
    The smooth form of max(p1 x, p2 x): beta = 0 gives the mean of the two lines, beta towards
    infinity their maximum. The output has the input's shape; there are no kinks.

    State, without weight decay: `p1`, `p2`, `beta`, each (1, C, 1, 1), or (1, 1, 1, 1) if `shared`.

    References
    ----------
    Ma et al. 2021, "Activate or Not: Learning Customized Activation", section 3.2; nmaac/acon,
    acon.py.

    Examples
    --------
    >>> from acon_core import spec
    >>> {name: param.shape for name, param in spec.named_params(spec.AconC(64)).items()}
    {'p1': (1, 64, 1, 1), 'p2': (1, 64, 1, 1), 'beta': (1, 64, 1, 1)}
    """

    init: InitName = "published"
    shared: bool = False

    def make_graph(self) -> Graph:
        size = 1 if self.shared else self.width
        params = {
            "p1": _slope("AconC", size, self.init, 1.0),
            "p2": _slope("AconC", size, self.init, 0.0),
            "beta": _per_channel(size, Constant(1.0)),
        }
        return graph("x", ["y = acon(x, p1, p2, beta)"], "y", {"acon": Acon()}, params)


@dataclass(frozen=True)
class MetaAconC(ChannelwiseActivation):
    """Meta-ACON: ACON-C whose beta is generated from the input, per sample.

    Parameters
    ----------
    channels : int
        Number of channels, C.
    reduction : int, default 16
        Factor r of the hidden width of the generator, max(r, C // r).
    norm : {"batch", "none", "layer"}, default "batch"
        Norms after the two convolutions of the generator. "batch" is the released code, "none" is
        YOLOv5's.
    init : {"published", "paper"}, default "published"
        Initial values of p1 and p2: standard normal, or 1 and 0.
    level : {"channel", "layer", "pixel"}, default "channel"
        What has a beta of its own: each channel, each sample, or each element.
    reduce : {"sum", "mean"}, default "sum"
        Reduction over a sample at level "layer". The paper's sum saturates at real sizes.
    generator : {"released", "first"}, default "released"
        "first" is the generator of the code's first commit: no biases, hidden width C // r. It has
        no norms, so it needs ``norm="none"``.
    channel_axis : int, default 1
        Axis of the channels: 1 for (N, C, ...), -1 for (N, ..., C).

    Raises
    ------
    SpecError
        If an option has another value.
    OneValuePerChannelError
        In training with norm "batch" and a batch of one.

    Notes
    -----
    With y = (p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x, beta is

    - channel: sigmoid(norm2(fc2(norm1(fc1(mean of x over space))))), (N, C, 1, 1), where fc1 and
      fc2 are 1x1 convolutions;
    - layer: sigmoid(sum or mean of x over the sample), (N, 1, 1, 1);
    - pixel: sigmoid(x), of x's shape.

    The output has the input's shape; there are no kinks.

    State: `p1`, `p2` (1, C, 1, 1), without weight decay; at level "channel" also `fc1`, `bn1`,
    `fc2`, `bn2` (norm "batch") or `fc1`, `ln1`, `fc2`, `ln2` (norm "layer") or `fc1`, `fc2`.

    References
    ----------
    Ma et al. 2021, "Activate or Not: Learning Customized Activation", section 3.3; nmaac/acon,
    acon.py.

    Examples
    --------
    >>> from acon_core import spec
    >>> list(spec.named_params(spec.MetaAconC(64, norm="none")))
    ['p1', 'p2', 'fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias']
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
            _check_word("MetaAconC", name, getattr(self, name), known)
        if not isinstance(self.reduction, int) or self.reduction < 1:
            raise SpecError(f"MetaAconC: expected a reduction of 1 or more, found {self.reduction!r}")
        if self.generator == "first" and self.norm != "none":
            raise SpecError(f"MetaAconC: generator 'first' needs norm 'none', found {self.norm!r}")

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
        params = {"p1": _slope("MetaAconC", self.width, self.init, 1.0), "p2": _slope("MetaAconC", self.width, self.init, 0.0)}
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
    """FReLU, the funnel activation: y = max(x, T(x)), T = BatchNorm of a depthwise 3x3 convolution.

    Parameters
    ----------
    channels : int
        Number of channels, C.
    channel_axis : int, default 1
        Axis of the channels: 1 for (N, C, H, W), -1 for (N, H, W, C).

    Raises
    ------
    SpecError
        If the input is not an image.
    OneValuePerChannelError
        In training with one value per channel.

    Notes
    -----
    (N, C, H, W) -> (N, C, H, W). Gradient where x equals T(x): one half to each.

    State: `conv_frelu.weight` (C, 1, 3, 3), `conv_frelu.bias` (C,), and the batch norm `bn_frelu`.

    References
    ----------
    Ma et al. 2020, "Funnel Activation for Visual Recognition", equation 3. Names of the released
    PyTorch port.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.FReLU(64).out_shapes((2, 64, 7, 9))
    ((2, 64, 7, 9),)
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
    """ACON-FReLU, the smooth form of FReLU: y = bn2((x1 - x2) sigmoid(x1 - x2) + x2).

    Parameters
    ----------
    channels : int
        Number of channels, C.
    stride : {1, 2}, default 1
        Stride of the depthwise convolution. 2 halves the image.
    channel_axis : int, default 1
        Axis of the channels: 1 for (N, C, H, W), -1 for (N, H, W, C).

    Raises
    ------
    SpecError
        If the input is not an image, or the stride is neither 1 nor 2.
    OneValuePerChannelError
        In training with one value per channel.

    Notes
    -----
    x2 = bn1(depthwise 3x3 convolution of x). x1 = x, or its 3x3 max pool with stride 2. beta is
    fixed at 1, as in the code. (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)). No kinks
    except those of the max pool, whose gradient goes to the first maximum.

    State: `conv_frelu.weight` (C, 1, 3, 3), `conv_frelu.bias` (C,), and the batch norms `bn1` and
    `bn2`.

    References
    ----------
    Ma et al. 2021, "Activate or Not: Learning Customized Activation", section 3.4; nmaac/acon,
    TFNet.

    Examples
    --------
    >>> from acon_core import spec
    >>> spec.AconFReLU(64, stride=2).out_shapes((2, 64, 7, 9))
    ((2, 64, 4, 5),)
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
