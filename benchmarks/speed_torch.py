"""What `benchmarks/speed.py` times in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import acon_torch
import torch
from acon_torch.functional import dynamic_maximum, maximum
from speed import SHAPES, Group, Subject
from torch import Tensor, nn
from torch.nn import functional as F

VERSION = torch.__version__


def published(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
    """Compute ACON-C as in nmaac/acon, acon.py."""
    return (p1 * x - p2 * x) * torch.sigmoid(beta * (p1 * x - p2 * x)) + p2 * x


def training(function: Callable[..., Tensor], *inputs: Tensor) -> Subject:
    """Return a call that runs forward and backward, with the gradients of all inputs."""
    inputs = tuple(each.detach().requires_grad_() for each in inputs)
    g = torch.randn_like(function(*inputs))
    return lambda: torch.autograd.grad(function(*inputs), inputs, g)


class Generator(nn.Module):
    """What makes beta in a MetaAconC."""

    def __init__(self, meta: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(getattr(meta, name) for name in ("mean", "fc1", "bn1", "fc2", "bn2", "sigmoid")))

    def forward(self, x: Tensor) -> Tensor:
        """Return beta, (N, C, 1, 1)."""
        beta: Tensor = self.layers(x)
        return beta


def forward(function: Callable[..., Tensor], x: Tensor) -> Subject:
    """Return a call that runs forward without gradients."""

    def call() -> Tensor:
        with torch.no_grad():
            return function(x)

    return call


def module(layer: nn.Module, x: Tensor) -> Subject:
    """Return a training call of a module on x, with the gradients of its parameters."""
    parameters = list(layer.parameters())
    x = x.detach().requires_grad_()
    g = torch.randn_like(layer(x))
    return lambda: torch.autograd.grad(layer(x), [x, *parameters], g)


def network_step(act: str) -> Subject:
    """Return a training step of ShuffleNetV2 1.0x on 32 images."""
    model = acon_torch.create("acon/shufflenet_v2_x1_0", act=act)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    images, classes = torch.randn(32, 3, 224, 224), torch.randint(1000, (32,))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), classes).backward()
        optimizer.step()

    return step


def compiled_network(act: str, compiled: bool) -> Subject:
    """Return forward and backward of ShuffleNetV2 0.5x on 8 images, eager or compiled."""
    model: Any = acon_torch.create("acon/shufflenet_v2_x0_5", act=act)
    called = torch.compile(model) if compiled else model
    images = torch.randn(8, 3, 224, 224)
    return lambda: called(images).square().mean().backward()


def groups(threads: int) -> Iterator[Group]:
    """Yield the groups, one at a time, so that the memory of the last is free."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    for name, shape in SHAPES.items():
        axis = 1 if len(shape) == 4 else -1
        x, channels = torch.randn(shape), shape[axis]
        gates = [torch.randn(1, channels, 1, 1) if axis == 1 else torch.randn(channels) for _ in range(3)]
        yield Group(
            f"forward and backward, {name}",
            "SiLU",
            lambda: {
                "SiLU": training(F.silu, x),
                "AconC": module(acon_torch.AconC(channels, channel_axis=axis), x),
                "published formula": training(published, x, *gates),
                "published formula, torch.compile": training(torch.compile(published, dynamic=False), x, *gates),
            },
        )
    x = torch.randn(32, 128, 28, 28)
    meta = acon_torch.MetaAconC(128)
    slopes, beta = [torch.randn(1, 128, 1, 1) for _ in range(2)], torch.randn(32, 128, 1, 1).sigmoid()
    yield Group(
        "Meta-ACON, [32,128,28,28]",
        "AconC",
        lambda: {
            "AconC": module(acon_torch.AconC(128), x),
            "acon with beta per sample and channel": training(acon_torch.acon, x, *slopes, beta),
            "the generator alone": module(Generator(meta), x),
            "MetaAconC": module(meta, x),
        },
    )
    theta, lambdas, init_v = torch.randn(32, 512), torch.tensor([1.0, 1.0, 0.5, 0.5]), torch.tensor([1.0, 0.0, 0.0, 0.0])
    yield Group(
        "other activations, forward and backward, [32,128,28,28]",
        "SiLU",
        lambda: {
            "SiLU": training(F.silu, x),
            "nn.PReLU(128)": module(nn.PReLU(128), x),
            "PReLU(128)": module(acon_torch.PReLU(128, shared=False), x),
            "AReLU": module(acon_torch.AReLU(), x),
            "RepAct I": module(acon_torch.RepAct(1), x),
            "RepAct II": module(acon_torch.RepAct(2), x),
            "DyReLU's function": training(lambda x, theta: dynamic_maximum(x, theta, lambdas, init_v), x, theta),
            "FReLU's maximum": training(maximum, x, torch.randn_like(x)),
            "AconC, channels last": module(acon_torch.AconC(128), x.to(memory_format=torch.channels_last)),
            "AconC(float64)": module(acon_torch.AconC(128).double(), x.double()),
        },
    )
    fused = acon_torch.FusedRepAct()
    yield Group(
        "fused RepAct, forward, [32,128,28,28]",
        "HardSwish",
        lambda: {"HardSwish": forward(F.hardswish, x), "FusedRepAct": forward(fused, x)},
    )
    yield Group(
        "bfloat16, [32,128,28,28]",
        "AconC, float32",
        lambda: {
            "AconC, float32": module(acon_torch.AconC(128), x),
            "AconC, bfloat16": module(acon_torch.AconC(128, dtype=torch.bfloat16), x.bfloat16()),
            "SiLU, bfloat16": training(F.silu, x.bfloat16()),
        },
    )
    small = torch.randn(1, 64, 4, 4)
    yield Group(
        "1,024 elements, forward and backward",
        "SiLU",
        lambda: {
            "SiLU": training(F.silu, small),
            "AconC": module(acon_torch.AconC(64), small),
            "published formula": training(published, small, *(torch.randn(1, 64, 1, 1) for _ in range(3))),
        },
    )
    sizes = {f"2^{power}": 2**power for power in range(12, 27, 2)}
    yield Group(
        "AconC, time per element",
        "2^16",
        lambda: {name: module(acon_torch.AconC(64), torch.randn(1, 64, size // 64, 1)) for name, size in sizes.items()},
        sizes,
    )
    yield Group(
        "training step, ShuffleNetV2 1.0x, 32 x 224 x 224",
        "ReLU",
        lambda: {
            "ReLU": network_step("relu"),
            "SiLU": network_step("silu"),
            "AconC": network_step("acon_c"),
            "MetaAconC": network_step("meta_acon"),
        },
    )
    yield Group(
        "whole network, torch.compile, ShuffleNetV2 0.5x, 8 x 224 x 224",
        "AconC, eager",
        lambda: {
            "AconC, eager": compiled_network("acon_c", False),
            "AconC, compiled": compiled_network("acon_c", True),
            "SiLU, eager": compiled_network("silu", False),
            "SiLU, compiled": compiled_network("silu", True),
        },
    )
