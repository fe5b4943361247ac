"""Files of Meta-ACON modules of older code compute the same function here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from acon_core.checkpoint import read_network
from acon_core.spec import MetaAconC, activation

pytestmark = pytest.mark.backend("torch")

NETWORK, OPTIONS = "acon/shufflenet_v2_x1_0", {"repeats": (1, 2, 1)}
# The first commit of the ACON code (r = 16, no biases, no minimum of hidden channels), and YOLOv5.
FORMS = [
    ("meta_acon(reduction=16, norm=none, generator=first)", False, 1),
    ("meta_acon(reduction=16, norm=none)", True, 16),
]


def older(network, bias: bool, least: int):
    """Replace every activation of ours by that code's module."""
    import torch
    from torch import nn

    class Meta(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            hidden = max(least, width // 16)
            self.p1, self.p2 = (nn.Parameter(torch.randn(1, width, 1, 1, dtype=torch.float64)) for _ in "12")
            self.fc1 = nn.Conv2d(width, hidden, 1, bias=bias, dtype=torch.float64)
            self.fc2 = nn.Conv2d(hidden, width, 1, bias=bias, dtype=torch.float64)

        def forward(self, x):
            gate = torch.sigmoid(self.fc2(self.fc1(x.mean(3, keepdim=True).mean(2, keepdim=True))))
            upper, lower = self.p1 * x, self.p2 * x
            return (upper - lower) * torch.sigmoid(gate * (upper - lower)) + lower

    for path, module in [*network.named_modules()]:
        if isinstance(getattr(module, "spec", None), MetaAconC):
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, Meta(module.spec.width))
    return network


@pytest.mark.parametrize(("act", "bias", "least"), FORMS)
def test_older_code(tmp_path: Path, act: str, bias: bool, least: int) -> None:
    import acon_torch
    import torch

    torch.manual_seed(5)
    theirs = older(acon_torch.create(NETWORK, act, 3, dtype="float64", **OPTIONS), bias, least)
    assert sum(type(module).__name__ == "Meta" for module in theirs.modules()) == 1 + 3 * 3 + 1 * 2 + 1
    x = torch.randn(3, 3, 64, 96, dtype=torch.float64)
    theirs.train()(x)  # so that statistics are not what they start as
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "a.pth.tar")
    found = read_network(tmp_path / "a.pth.tar", NETWORK, **OPTIONS)
    assert found.network.activation == activation(act)
    ours = acon_torch.load(tmp_path / "a.pth.tar", network=NETWORK, **OPTIONS)
    for train in (False, True):
        results = []
        for model in (theirs, ours):
            model.train(train)
            optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
            loss = torch.logsumexp(model(x), 1).square().sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            results.append({"loss": loss.detach(), **model.state_dict()})
        left, right = results
        assert list(left) == list(right)
        for name, value in left.items():
            scale = max(value.abs().max().item(), 1.0)
            np.testing.assert_allclose(
                right[name].numpy(), value.numpy(), rtol=0, atol=1e-11 * scale, err_msg=f"{train} {name}"
            )


@pytest.mark.parametrize("wrappers", ["compile", "parallel", "parallel compile", "compile parallel"])
def test_wrapper_prefixes(tmp_path: Path, wrappers: str) -> None:
    import acon_torch
    import torch
    from acon_torch.backend import backend

    model = acon_torch.create("acon/dcn", "acon_c", 3)
    wrapped = model
    for wrapper in wrappers.split():
        wrapped = torch.compile(wrapped) if wrapper == "compile" else torch.nn.DataParallel(wrapped)
    torch.save(wrapped.state_dict(), tmp_path / "a.pth")
    found = read_network(tmp_path / "a.pth")
    assert len(found.notes) == len(wrappers.split())
    native = backend.build(found.network.graph, seed=None)
    native.load_file(tmp_path / "a.pth")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(found.state[name], value.numpy())
        np.testing.assert_array_equal(native.state()[name], value.numpy())
