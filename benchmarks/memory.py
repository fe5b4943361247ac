"""Measure what PyTorch saves for the backward pass, in multiples of the input.

`python benchmarks/memory.py` prints a Markdown table: our functions beside the published formulas,
written as in their code, on (8, 64, 56, 56) in float32. Every tensor that autograd saves is counted
once by its storage, with the input and without the parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import acon_torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHAPE = (8, 64, 56, 56)


def saved_bytes(function: Callable[[Tensor], Tensor], parameters: list[Tensor]) -> float:
    """Return the bytes that autograd saves, as a multiple of the input's."""
    x = torch.randn(SHAPE, requires_grad=True)
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    storages: dict[int, tuple[Tensor, int]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = (tensor, storage.nbytes())  # keep the tensor, so that its address is not reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = function(x)
    assert y.requires_grad
    return sum(size for _, size in storages.values()) / (x.numel() * x.element_size())


def per_channel() -> nn.Parameter:
    """Return one parameter per channel."""
    return nn.Parameter(torch.randn(1, SHAPE[1], 1, 1))


def published_acon() -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """Return nmaac/acon's formula, which multiplies the difference of slopes twice."""
    p1, p2, beta = per_channel(), per_channel(), per_channel()
    return lambda x: (p1 * x - p2 * x) * torch.sigmoid(beta * (p1 * x - p2 * x)) + p2 * x, [p1, p2, beta]


def yolov5_acon() -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """Return ultralytics/yolov5's formula, which multiplies the difference of slopes once."""
    p1, p2, beta = per_channel(), per_channel(), per_channel()

    def function(x: Tensor) -> Tensor:
        dpx = (p1 - p2) * x
        return dpx * torch.sigmoid(beta * dpx) + p2 * x

    return function, [p1, p2, beta]


def published_swish() -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """Return RepAct's copy of Swish."""
    beta = nn.Parameter(torch.tensor([0.25]))
    return lambda x: x * torch.sigmoid(beta * x), [beta]


def published_arelu() -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """Return RepAct's copy of AReLU."""
    alpha, beta = nn.Parameter(torch.tensor([0.9])), nn.Parameter(torch.tensor([2.0]))
    return lambda x: F.relu(x) * (1 + torch.sigmoid(beta)) - F.relu(-x) * alpha.clamp(0.01, 0.99), [alpha, beta]


def published_repact(variant: int) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """Return RepAct's formula, in which every branch clones its input."""
    weights, alpha, norm = nn.Parameter(torch.full((4,), 0.25)), nn.Parameter(torch.tensor([0.25])), nn.BatchNorm2d(1)

    def function(x: Tensor) -> Tensor:
        w = weights.softmax(0) if variant == 2 else weights
        branches = (x.clone() * w[0], F.relu(x.clone()) * w[1], F.prelu(x.clone(), alpha) * w[2], F.hardswish(x.clone()) * w[3])
        y = branches[1] + branches[0] + branches[2] + branches[3]
        return norm(y.view(len(x), 1, 1, -1)).view_as(x) if variant == 3 else y

    return function, [weights, alpha, *norm.parameters()]


PUBLISHED = {
    "acon_c": published_acon(),
    "swish": published_swish(),
    "arelu": published_arelu(),
    "repact(variant=1)": published_repact(1),
    "repact(variant=2)": published_repact(2),
    "repact(variant=3)": published_repact(3),
}
NAMES = (
    "relu", "silu", "gelu", "hardswish", "mish", "prelu(shared=false)", "swish", "arelu", "acon_a", "acon_b", "acon_c",
    "meta_acon", "meta_acon(level=pixel)", "frelu", "acon_frelu", "dyrelu", "repact(variant=1)", "repact(variant=2)",
    "repact(variant=3)", "fused_repact",
)  # fmt: skip


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    print("| activation | kept, times the input | as published |")
    print("|---|--:|--:|")
    for name in NAMES:
        module = acon_torch.activation(name, SHAPE[1])
        ours = saved_bytes(module, list(module.parameters()))
        published = f"{saved_bytes(*PUBLISHED[name]):.2f}" if name in PUBLISHED else ""
        print(f"| `{name}` | {ours:.2f} | {published} |")
    print(f"\nThe ACON-C of ultralytics/yolov5 keeps {saved_bytes(*yolov5_acon()):.2f}.")


if __name__ == "__main__":
    main()
