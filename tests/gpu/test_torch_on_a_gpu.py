"""PyTorch's functions on a GPU, by Triton's kernels; in Triton's interpreter, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported

from acon_torch import functional, kernels, triton_kernels
from torch import Tensor

pytestmark = pytest.mark.backend("torch")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CALLS: dict[str, tuple[str, int]] = {
    "acon": ("acon", 3),
    "prelu": ("slopes", 1),
    "arelu": ("attention_slopes", 2),
    "repact": ("branches", 4),
}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Record the calls of Triton's kernels. Without a GPU, let them serve the CPU."""
    made: list[str] = []

    def run(plan: Any, *arguments: Any) -> None:
        made.append(triton_kernels.FUNCTIONS[plan.structure.function])
        triton_kernels.run(plan, *arguments)

    def forget() -> None:
        kernels._plain.cache_clear()
        kernels._find.cache_clear()

    monkeypatch.setattr(kernels, "_runner", lambda device: run if device == DEVICE else None)
    forget()
    yield made
    forget()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_functions_run_in_the_kernels(name: str, channels_last: bool, runs: list[str]) -> None:
    kernel, count = CALLS[name]
    torch.manual_seed(3)
    x, g = torch.randn(2, 5, 3, 4, device=DEVICE), torch.randn(2, 5, 3, 4, device=DEVICE)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    gates = [torch.rand(5, device=DEVICE) for _ in range(count)]

    leaves = [argument.requires_grad_() for argument in (x, *gates)]
    y = getattr(functional, name)(*leaves)
    found = [y, *torch.autograd.grad(y, leaves, g)]
    assert runs == [kernel, kernel]
    assert found[0].stride() == x.stride()
    rule = kernels._RULES[kernel]
    numbers = [1.0] if name == "prelu" else []
    wide: list[Any] = [x.detach().double().cpu(), *numbers, *(gate.detach().double().cpu() for gate in gates)]
    expected = rule.gradients_of([isinstance(each, Tensor) for each in wide], g.double().cpu(), wide[0], wide[1:], 1)
    ranked = [gate.reshape(1, 5, 1, 1) if isinstance(gate, Tensor) else gate for gate in wide[1:]]
    exact = [rule.evaluate(wide[0], *ranked), *(each for each in expected if each is not None)]
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one.double().cpu().flatten(), other.cpu().flatten(), rtol=1e-5, atol=1e-5)


def test_second_derivatives_use_the_formula(runs: list[str]) -> None:
    x = torch.randn(2, 3, 4, device=DEVICE, dtype=torch.float64, requires_grad=True)
    gates = [torch.rand(3, device=DEVICE, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradgradcheck(functional.acon, (x, *gates))
    assert "acon" in runs


@pytest.mark.skipif(DEVICE == "cpu", reason="Inductor for a GPU")
def test_compiled_code_is_the_formula(runs: list[str]) -> None:
    x = torch.randn(2, 5, 3, 4, device=DEVICE, requires_grad=True)
    gates = [torch.rand(5, device=DEVICE, requires_grad=True) for _ in range(3)]
    compiled = torch.compile(functional.acon, fullgraph=True)
    torch.testing.assert_close(
        torch.autograd.grad(compiled(x, *gates).sum(), (x, *gates)),
        torch.autograd.grad(functional.acon(x, *gates).sum(), (x, *gates)),
    )
    assert len(runs) == 2  # of the eager call
