"""`doctor` on modules of strangers, written for each framework: the same verdicts everywhere."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from native_modules import make

from acon_core import backends
from acon_core.backends import Backend


def _stranger(backend: Backend, what: str) -> Any:
    """Return a module with the published formula and one fault."""
    if backend.name == "jax":
        import jax
        import jax.numpy as jnp
        from flax import nnx

        base, parameter, ones = nnx.Module, nnx.Param, jnp.ones((5,))
        fixed, sigmoid, relu = jax.lax.stop_gradient, jax.nn.sigmoid, jax.nn.relu
    elif backend.name == "paddle":
        import paddle

        base, ones = paddle.nn.Layer, paddle.ones([1, 5, 1, 1])
        parameter = paddle.base.framework.EagerParamBase.from_tensor
        fixed, sigmoid, relu = (lambda x: x.detach()), paddle.nn.functional.sigmoid, paddle.nn.functional.relu
    elif backend.name == "megengine":
        import megengine as mge
        import megengine.functional as functional
        import numpy as np

        base, parameter, ones = mge.module.Module, mge.Parameter, np.ones((1, 5, 1, 1), np.float32)
        fixed, sigmoid, relu = (lambda x: x.detach()), functional.sigmoid, functional.relu
    else:
        import torch

        base, parameter, ones = torch.nn.Module, torch.nn.Parameter, torch.ones(1, 5, 1, 1)
        fixed, sigmoid, relu = torch.Tensor.detach, torch.sigmoid, torch.relu

    class Stranger(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.p1, self.p2, self.beta = (parameter(ones * value) for value in (1.0, 0.5, 2.0))
            self.use_running_average = False  # what nnx's train() and eval() set

        def __call__(self, x: Any) -> Any:
            return self.forward(x) if backend.name == "jax" else super().__call__(x)

        def forward(self, x: Any) -> Any:
            p1, p2, beta = (each[...] if backend.name == "jax" else each for each in (self.p1, self.p2, self.beta))
            training = not self.use_running_average if backend.name == "jax" else self.training
            if what == "relu in training" and training:
                return relu(x)
            difference = (p1 + p2 if what == "plus" else p1 - p2) * x
            return difference * sigmoid((fixed(beta) if what == "detached" else beta) * difference) + p2 * x

    return Stranger()


@pytest.mark.parametrize(
    ("what", "report"),
    [
        ("right", "healthy"),
        ("detached", "FAILS  "),
        ("relu in training", "FAILS  in training: the same function"),
        ("plus", "mistake: p1 + p2 in place of p1 - p2"),
    ],
)
def test_doctor_on_strangers(backend: Backend, what: str, report: str) -> None:
    found = import_module(backends.packages()[backend.name]).doctor(_stranger(backend, what))
    assert found.healthy == (what == "right"), str(found)
    assert report in str(found), str(found)
    if what == "detached":
        assert next(finding.identity for finding in found.findings if not finding.holds).endswith(
            ("gradient of beta", "beta is a parameter that gets a gradient")
        )


@pytest.mark.parametrize("name", ["acon_c(shared=true)", "meta_acon(reduction=2)"])
def test_doctor_on_our_own(backend: Backend, name: str) -> None:
    found = import_module(backends.packages()[backend.name]).doctor(make(backend, name, 8))
    assert found.healthy, str(found)
