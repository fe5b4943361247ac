"""The rows of PaddlePaddle's tables in docs/transformations.md."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import acon_paddle
import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.static import InputSpec
from transformations import ACTIVATIONS, CHANNELS, NETWORKS, Refusal, Subject, Transformation


def make(subject: Subject) -> nn.Layer:
    """Make the subject in evaluation mode, with its parameters off their initial values."""
    if subject.act:
        layer = acon_paddle.create(subject.name, subject.act, 7, **subject.options)
    else:
        layer = acon_paddle.activation(subject.name, CHANNELS)
    rng = np.random.default_rng(7)
    for parameter in layer.parameters():
        parameter.set_value(parameter.numpy() + (0.05 * rng.random(parameter.shape)).astype("float32"))
    layer.eval()
    return layer


def images(subject: Subject, batch: int = 3) -> Tensor:
    """Return inputs that require a gradient."""
    values = np.random.default_rng(batch).uniform(-2, 2, (batch, 3 if subject.act else CHANNELS, *subject.size))
    return paddle.to_tensor(values.astype("float32"), stop_gradient=False)


def agree(found: Any, expected: Any) -> None:
    """Compare two tensors: 2e-5 of the largest element."""
    bound = 2e-5 * max(float(np.abs(expected.numpy()).max()), 1e-3)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=bound)


def partial_grad(subject: Subject) -> None:
    layer, x = make(subject), images(subject)
    arguments = [x, *layer.parameters()]
    together = paddle.grad((layer(x) ** 2).mean(), arguments)
    for argument, expected in zip(arguments, together, strict=True):
        (alone,) = paddle.grad((layer(x) ** 2).mean(), [argument])
        agree(alone, expected)


def second_derivative(subject: Subject) -> None:
    layer, x = make(subject), images(subject)
    rng = np.random.default_rng(1)
    one, other = (paddle.to_tensor(rng.normal(size=x.shape).astype("float32")) for _ in range(2))

    def along(direction: Tensor) -> Tensor:
        (slope,) = paddle.grad((layer(x) ** 2).sum(), [x], create_graph=True)
        return paddle.grad((slope * direction).sum(), [x])[0]

    np.testing.assert_allclose((along(one) * other).sum().item(), (along(other) * one).sum().item(), rtol=1e-3)


def to_static(subject: Subject) -> None:
    layer = make(subject)
    layer.train()
    reference = copy.deepcopy(layer)
    compiled = paddle.jit.to_static(layer, input_spec=[InputSpec([None, *images(subject).shape[1:]])])
    for batch in (3, CHANNELS):
        x, y = images(subject, batch), images(subject, batch)
        found, expected = compiled(x), reference(y)
        (found * paddle.cos(found)).mean().backward()
        (expected * paddle.cos(expected)).mean().backward()
        agree(found, expected)
        agree(x.grad, y.grad)
    for one, other in zip(layer.parameters(), reference.parameters(), strict=True):
        agree(one.grad, other.grad)


def save_and_load(subject: Subject) -> None:
    layer = make(subject)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model")
        paddle.jit.save(layer, path, input_spec=[InputSpec([None, *images(subject).shape[1:]])])
        loaded = paddle.jit.load(path)
        for batch in (3, CHANNELS):
            x = images(subject, batch).detach()
            agree(loaded(x), layer(x))


def copied(subject: Subject) -> None:
    layer, x = make(subject), images(subject)
    agree(copy.deepcopy(layer)(x), layer(x))


_NO_SECOND_RELU = Refusal("Paddle's `hardtanh`, with which our ReLU keeps NaN, has no second derivative.", "higher order")
_NO_SECOND_DEPTHWISE = Refusal("Paddle has no second derivative of a depthwise convolution on a CPU.", "is not registered")
_SMALL = (*ACTIVATIONS, *NETWORKS[:1])
TRANSFORMATIONS = (
    Transformation("`paddle.grad`", "gradients of the input and of each parameter alone", partial_grad, on=ACTIVATIONS),
    Transformation(
        "`paddle.grad` of `paddle.grad`",
        "the second derivative, which is symmetric",
        second_derivative,
        {"DyReLU": _NO_SECOND_RELU, "FReLU": _NO_SECOND_DEPTHWISE, "AconFReLU": _NO_SECOND_DEPTHWISE},
        on=ACTIVATIONS,
    ),
    Transformation(
        "`paddle.jit.to_static`",
        "values and gradients in training, with the batch left open, for two",
        to_static,
        on=ACTIVATIONS,
    ),
    Transformation("`paddle.jit.save`", "values after loading, with the batch left open, for two", save_and_load, on=_SMALL),
    Transformation("`copy.deepcopy`", "values", copied, on=_SMALL),
)
