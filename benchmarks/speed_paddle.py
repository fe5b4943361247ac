"""What `benchmarks/speed.py` times in PaddlePaddle, in dynamic mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import paddle
from acon_paddle import acon
from acon_paddle.functional import dynamic_maximum, maximum, prelu, repact
from paddle import Tensor
from paddle.nn import functional as F
from speed import SHAPES, Group, Subject

VERSION = paddle.__version__


def published(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
    """Compute ACON-C as in nmaac/acon, acon.py."""
    return (p1 * x - p2 * x) * F.sigmoid(beta * (p1 * x - p2 * x)) + p2 * x


def training(function: Callable[..., Tensor], *inputs: Tensor) -> Subject:
    """Return a call that runs forward and backward, with the gradients of all inputs."""
    for each in inputs:
        each.stop_gradient = False
    g = paddle.randn(inputs[0].shape).astype(inputs[0].dtype)
    return lambda: paddle.grad([function(*inputs)], list(inputs), [g])


def groups(threads: int) -> Iterator[Group]:
    """Yield the groups."""
    paddle.seed(0)
    for name, shape in SHAPES.items():
        axis = 1 if len(shape) == 4 else -1
        channels = shape[axis]

        def gate(channels: int = channels, axis: int = axis) -> Tensor:
            return paddle.randn([1, channels, 1, 1] if axis == 1 else [channels])

        def ours(x: Tensor, *gates: Tensor, axis: int = axis) -> Tensor:
            return acon(x, *gates, channel_axis=axis)

        yield Group(
            f"forward and backward, {name}",
            "SiLU",
            lambda: {
                "SiLU": training(F.silu, paddle.randn(shape)),
                "AconC": training(ours, paddle.randn(shape), gate(), gate(), gate()),
                "published formula": training(published, paddle.randn(shape), gate(), gate(), gate()),
            },
        )

    def x() -> Tensor:
        return paddle.randn([32, 128, 28, 28])

    def per_channel() -> Tensor:
        return paddle.randn([1, 128, 1, 1])

    def pair() -> tuple[Tensor, Tensor]:
        return per_channel(), per_channel()

    def dyrelu(x: Tensor, theta: Tensor) -> Tensor:
        return dynamic_maximum(x, theta, lambdas, init_v)

    lambdas, init_v = paddle.to_tensor([1.0, 1.0, 0.5, 0.5]), paddle.to_tensor([1.0, 0.0, 0.0, 0.0])
    half = paddle.float16
    yield Group(
        "other activations, forward and backward, [32,128,28,28]",
        "SiLU",
        lambda: {
            "SiLU": training(F.silu, x()),
            "acon with beta per sample and channel": training(
                acon, x(), per_channel(), per_channel(), paddle.randn([32, 128, 1, 1])
            ),
            "F.prelu": training(F.prelu, x(), paddle.randn([128])),
            "PReLU": training(prelu, x(), paddle.randn([128])),
            "RepAct I": training(repact, x(), *(paddle.randn([1]) for _ in range(3))),
            "DyReLU's function": training(
                lambda x, theta: dynamic_maximum(x, theta, lambdas, init_v), x(), paddle.randn([32, 512])
            ),
            "FReLU's maximum": training(maximum, x(), x()),
            "AconC, float16": training(acon, x().astype(half), per_channel(), per_channel(), per_channel()),
        },
    )
    small = [1, 64, 4, 4]
    yield Group(
        "1,024 elements, forward and backward",
        "SiLU",
        lambda: {
            "SiLU": training(F.silu, paddle.randn(small)),
            "AconC": training(acon, paddle.randn(small), *(paddle.randn([1, 64, 1, 1]) for _ in range(3))),
        },
    )
