"""What `benchmarks/speed.py` times in MegEngine, eagerly."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import megengine
import megengine.functional as F
import numpy as np
from acon_megengine import acon
from acon_megengine.functional import dynamic_maximum, maximum, prelu, repact
from megengine import Tensor
from megengine.autodiff import GradManager
from speed import SHAPES, Group, Subject

VERSION = megengine.__version__


def published(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
    """Compute ACON-C as in nmaac/acon, acon.py."""
    return (p1 * x - p2 * x) * F.sigmoid(beta * (p1 * x - p2 * x)) + p2 * x


def training(function: Callable[..., Tensor], *inputs: Tensor) -> Subject:
    """Return a call that runs forward and backward, with the gradients of all inputs."""
    g = megengine.Tensor(np.random.default_rng(1).standard_normal(inputs[0].shape).astype(inputs[0].dtype))

    def step() -> None:
        with GradManager().attach(inputs) as manager:
            manager.backward(function(*inputs), g)
        megengine._full_sync()
        for each in inputs:
            each.grad = None

    return step


def groups(threads: int) -> Iterator[Group]:
    """Yield the groups."""
    rng = np.random.default_rng(0)

    def random(*shape: int) -> Tensor:
        return megengine.Tensor(rng.standard_normal(shape).astype(np.float32))

    for name, shape in SHAPES.items():
        axis = 1 if len(shape) == 4 else -1
        channels = shape[axis]
        gates = [random(1, channels, 1, 1) if axis == 1 else random(channels) for _ in range(3)]

        def ours(x: Tensor, *gates: Tensor, axis: int = axis) -> Tensor:
            return acon(x, *gates, channel_axis=axis)

        yield Group(
            f"forward and backward, {name}",
            "SiLU",
            lambda: {
                "SiLU": training(F.silu, random(*shape)),
                "AconC": training(ours, random(*shape), *gates),
                "published formula": training(published, random(*shape), *gates),
            },
        )
    shape = (32, 128, 28, 28)
    per_channel = (1, 128, 1, 1)
    lambdas, init_v = megengine.Tensor([1.0, 1.0, 0.5, 0.5]), megengine.Tensor([1.0, 0.0, 0.0, 0.0])
    yield Group(
        "other activations, forward and backward, [32,128,28,28]",
        "SiLU",
        lambda: {
            "SiLU": training(F.silu, random(*shape)),
            "acon with beta per sample and channel": training(
                acon, random(*shape), random(*per_channel), random(*per_channel), random(32, 128, 1, 1)
            ),
            "F.prelu": training(F.prelu, random(*shape), random(*per_channel)),
            "PReLU": training(prelu, random(*shape), random(128)),
            "RepAct I": training(repact, random(*shape), *(random(1) for _ in range(3))),
            "DyReLU's function": training(
                lambda x, theta: dynamic_maximum(x, theta, lambdas, init_v), random(*shape), random(32, 512)
            ),
            "FReLU's maximum": training(maximum, random(*shape), random(*shape)),
        },
    )
    small = (1, 64, 4, 4)
    yield Group(
        "1,024 elements, forward and backward",
        "SiLU",
        lambda: {
            "SiLU": training(F.silu, random(*small)),
            "AconC": training(acon, random(*small), *(random(1, 64, 1, 1) for _ in range(3))),
        },
    )
