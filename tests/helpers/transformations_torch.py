"""The rows of PyTorch's tables in docs/transformations.md."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import acon_torch
import torch
from torch import Tensor, nn
from transformations import ACTIVATIONS, CHANNELS, NETWORKS, Subject, Transformation


def make(subject: Subject) -> nn.Module:
    """Make the subject in evaluation mode, with its parameters off their initial values."""
    torch.manual_seed(7)
    if subject.act:
        module: nn.Module = acon_torch.create(subject.name, subject.act, 7, **subject.options)
    else:
        module = acon_torch.activation(subject.name, CHANNELS)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(0.3 * torch.rand(buffer.shape))
    return module.eval()


def images(subject: Subject, batch: int = 3, wider: int = 0) -> Tensor:
    """Return inputs; `wider` is added to height and width."""
    generator = torch.Generator().manual_seed(batch)
    height, width = subject.size
    channels = 3 if subject.act else CHANNELS
    return 4 * torch.rand(batch, channels, height + wider, width + wider, generator=generator) - 2


def derived(call: Callable[[Tensor], Tensor], x: Tensor, module: nn.Module) -> list[Tensor]:
    """Return the value, and the gradients of the input and of every parameter."""
    leaf = x.clone().requires_grad_()
    y = call(leaf)
    weights = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)
    return [y.detach(), *torch.autograd.grad(y, [leaf, *module.parameters()], weights)]


def agree(found: Any, expected: Any) -> None:
    """Compare tensors, or sequences of them: 2e-5 of the largest element."""
    if isinstance(expected, Tensor):
        bound = 2e-5 * max(float(expected.abs().max()), 1e-3)
        torch.testing.assert_close(found, expected, rtol=0, atol=bound)
        return
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        agree(one, other)


def compile_dynamic(subject: Subject) -> None:
    torch.compiler.reset()
    module = make(subject).train()
    reference = copy.deepcopy(module)
    compiled = torch.compile(module, backend="aot_eager", dynamic=True, fullgraph=True)
    for batch, wider in ((3, 0), (CHANNELS, 2)):
        x = images(subject, batch, wider)
        agree(derived(compiled, x, module), derived(reference, x, reference))
    agree(list(module.state_dict().values()), list(reference.state_dict().values()))


def export_open_batch(subject: Subject) -> None:
    module = make(subject)
    sizes: dict[int, Any] = {0: torch.export.Dim("batch")}
    program = torch.export.export(module, (images(subject),), dynamic_shapes=(sizes,))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    for batch in (CHANNELS, 3, 5):
        agree(loaded(images(subject, batch)), module(images(subject, batch)))


TRANSFORMATIONS = (
    Transformation(
        "`torch.compile(dynamic=True, fullgraph=True)`",
        "values, gradients and running statistics in training, for two batches and image sizes; one has as many images "
        "as there are channels",
        compile_dynamic,
        on=ACTIVATIONS,
    ),
    Transformation(
        "`torch.export`",
        "values with the batch left open, after saving and loading; one batch has as many images as there are channels",
        export_open_batch,
        on=(*ACTIVATIONS, NETWORKS[0]),
    ),
)
