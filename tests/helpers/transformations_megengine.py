"""The rows of MegEngine's tables in docs/transformations.md."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import acon_megengine
import megengine
import megengine.module as M
import numpy as np
from megengine import Tensor, quantization
from megengine.autodiff import GradManager
from megengine.jit import trace
from transformations import ACTIVATIONS, CHANNELS, NETWORKS, Subject, Transformation


def make(subject: Subject) -> M.Module:
    """Make the subject in evaluation mode, with its parameters off their initial values."""
    if subject.act:
        module = acon_megengine.create(subject.name, subject.act, 7, **subject.options)
    else:
        module = acon_megengine.activation(subject.name, CHANNELS)
    rng = np.random.default_rng(7)
    for _, parameter in sorted(module.named_parameters()):
        parameter[...] = parameter.numpy() + (0.05 * rng.random(parameter.shape)).astype("float32")
    module.eval()
    return module


def images(subject: Subject, batch: int = 3) -> Tensor:
    values = np.random.default_rng(batch).uniform(-2, 2, (batch, 3 if subject.act else CHANNELS, *subject.size))
    return megengine.tensor(values.astype("float32"))


def agree(found: Any, expected: Any) -> None:
    """Compare two tensors: 2e-5 of the largest element."""
    bound = 2e-5 * max(float(np.abs(expected.numpy()).max()), 1e-3)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=bound)


def traced(symbolic: bool) -> Callable[[Subject], None]:
    def check(subject: Subject) -> None:
        module = make(subject)
        parameters = [parameter for _, parameter in sorted(module.named_parameters())]
        manager = GradManager().attach(parameters)

        def step(x: Tensor) -> tuple[Tensor, ...]:
            with manager:
                y = module(x)
                manager.backward((y * y).mean())
            return (y, *(parameter.grad for parameter in parameters))

        x = images(subject)
        expected = [each.numpy() for each in step(x)]
        for parameter in parameters:
            parameter.grad = None
        compiled = trace(step, symbolic=symbolic)
        compiled(x)
        for parameter in parameters:
            parameter.grad = None
        for one, other in zip(compiled(x), expected, strict=True):
            np.testing.assert_allclose(one.numpy(), other, rtol=0, atol=2e-5 * max(np.abs(other).max(), 1e-3))

    check.__name__ = "trace_symbolic" if symbolic else "trace"
    return check


def dump(subject: Subject) -> None:
    module = make(subject)
    compiled = trace(module, symbolic=True, capture_as_const=True)
    x = images(subject)
    compiled(x)
    buffer = io.BytesIO()
    compiled.dump(buffer, arg_names=["x"], output_names=["y"])
    buffer.seek(0)
    graph = megengine.utils.comp_graph_tools.GraphInference(buffer)
    agree(megengine.tensor(graph.run(x.numpy())["y"]), module(x))


def quantize_qat(subject: Subject) -> None:
    model = M.Sequential(M.Conv2d(3 if subject.act else CHANNELS, 3 if subject.act else CHANNELS, 1), make(subject))
    x = images(subject)
    model.eval()
    before = model(x).numpy()
    quantization.quantize_qat(model)
    with GradManager().attach(model.parameters()) as manager:
        manager.backward((model(x) ** 2).mean())
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    assert 0 < np.abs(model(x).numpy() - before).max() < 0.5 * np.abs(before).max()


def copied(subject: Subject) -> None:
    module, x = make(subject), images(subject)
    agree(copy.deepcopy(module)(x), module(x))


def pickled(subject: Subject) -> None:
    module, x = make(subject), images(subject)
    agree(pickle.loads(pickle.dumps(module))(x), module(x))


_SMALL = (*ACTIVATIONS, *NETWORKS[:1])
TRANSFORMATIONS = (
    Transformation("`trace(symbolic=False)`", "values, and gradients of the parameters", traced(False), on=ACTIVATIONS),
    Transformation("`trace(symbolic=True)`", "the same", traced(True), on=ACTIVATIONS),
    Transformation("`trace.dump`", "values of the dumped graph", dump, on=_SMALL),
    Transformation(
        "`quantize_qat`", "gradients with fake quantisation, and values close to those without", quantize_qat, on=_SMALL
    ),
    Transformation("`copy.deepcopy`", "values", copied, on=_SMALL),
    Transformation("`pickle`", "values after loading", pickled, on=_SMALL),
)
