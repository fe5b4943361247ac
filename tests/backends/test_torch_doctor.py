"""`doctor` on the modules of strangers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.backend("torch")

from acon_torch import AconC, MetaAconC, doctor  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from acon_core.errors import AconError  # noqa: E402


def _right(m: nn.Module, x: Tensor) -> Tensor:
    d = (m.p1 - m.p2) * x
    return d * torch.sigmoid(m.beta * d) + m.p2 * x


class Stranger(nn.Module):
    """The published formula with a function of the test, gates of a shape, and p1 as it says."""

    def __init__(
        self, run: Callable[..., Tensor], shape: tuple[int, ...] = (1, 5, 1, 1), plain: str = "", beta: int = 0
    ) -> None:
        super().__init__()
        self.function = run
        for name in ("p1", "p2", "beta"):
            value = torch.randn((beta,) if name == "beta" and beta else shape)
            setattr(self, name, value if name == plain else nn.Parameter(value))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def _detached(m: nn.Module, x: Tensor) -> Tensor:
    d = (m.p1 - m.p2) * x
    return d * torch.sigmoid(m.beta.detach() * d) + m.p2 * x


class _Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y):  # type: ignore[no-untyped-def]
        return y.clone()

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        return 2 * g


def _plus(m: nn.Module, x: Tensor) -> Tensor:
    d = (m.p1 + m.p2) * x
    return d * torch.sigmoid(m.beta * d) + m.p2 * x


def _hard(m: nn.Module, x: Tensor) -> Tensor:
    d = (m.p1 - m.p2) * x
    return d * nn.functional.hardsigmoid(m.beta * d) + m.p2 * x


def _absolute(m: nn.Module, x: Tensor) -> Tensor:
    d = (m.p1 - m.p2) * x
    return d * torch.sigmoid(m.beta.abs() * d) + m.p2 * x


def _in_place(m: nn.Module, x: Tensor) -> Tensor:
    y = _right(m, x.clone())
    x.zero_()
    return y


def _tokens(m: nn.Module, x: Tensor) -> Tensor:
    assert x.ndim == 3
    return _right(m, x)


WRONG = {
    "wrong backward": (lambda: Stranger(lambda m, x: _Wrong.apply(_right(m, x))), "FAILS  gradient of x"),
    "detached beta": (lambda: Stranger(_detached), "FAILS  beta is a parameter that gets a gradient"),
    "p1 no parameter": (lambda: Stranger(_right, plain="p1"), "FAILS  p1 is a parameter"),
    "relu in training": (lambda: Stranger(lambda m, x: x.relu() if m.training else _right(m, x)), "FAILS  in training"),
    "dropout": (lambda: Stranger(lambda m, x: nn.functional.dropout(_right(m, x), 0.5, m.training)), "FAILS  in training"),
    "in place": (lambda: Stranger(_in_place), "FAILS  the input is not changed"),
    "p1 + p2": (lambda: Stranger(_plus), "mistake: p1 + p2 in place of p1 - p2"),
    "hard": (lambda: Stranger(_hard), "mistake: hard sigmoid"),
    "absolute": (lambda: Stranger(_absolute), "mistake: beta taken as |beta|"),
}
RIGHT = {
    "published": lambda: Stranger(_right),
    "tokens": lambda: Stranger(_tokens, (1, 5, 1)),
    "shared beta": lambda: Stranger(_right, beta=1),
    "ours, shared": lambda: AconC(8, shared=True),
    "generated": lambda: MetaAconC(8, reduction=2),
    "generated, by pixel": lambda: MetaAconC(8, level="pixel"),
    "network": lambda: nn.Sequential(nn.Conv2d(3, 8, 1), AconC(8), nn.Sequential(Stranger(_right))),
    "data parallel": lambda: nn.DataParallel(AconC(8)),
}


@pytest.mark.parametrize("what", WRONG)
def test_doctor_finds_what_is_wrong(what: str) -> None:
    make, report = WRONG[what]
    torch.manual_seed(0)
    found = doctor(make())
    assert not found.healthy
    assert report in str(found), str(found)


@pytest.mark.parametrize("what", RIGHT)
def test_doctor_runs_what_people_have(what: str) -> None:
    torch.manual_seed(0)
    found = doctor(RIGHT[what]())
    assert found.healthy, str(found)


def test_doctor_names_the_axis() -> None:
    with pytest.raises(AconError, match="with channels at axis 3 of 4 it runs: pass channel_axis=-1"):
        doctor(AconC(8, channel_axis=-1))
    assert doctor(AconC(8, channel_axis=-1), channel_axis=-1).healthy
