"""replace_activations on PyTorch models as people have them: what it did is checked on the run."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest

from acon_core.errors import AconError

pytest.importorskip("torch")
pytestmark = pytest.mark.backend("torch")

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

X = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(3))


class Bottleneck(nn.Module):
    """One ReLU called twice, under checkpointing in training, and a function."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3 * width, width, 1), nn.Conv2d(width, 3 * width, 3, 1, 1)
        self.relu = nn.ReLU(inplace=True)

    def body(self, x: Any) -> Any:
        return self.relu(self.c2(self.relu(self.c1(x))))

    def forward(self, x: Any) -> Any:
        y = checkpoint(self.body, x, use_reentrant=False) if self.training else self.body(x)
        return F.relu(y - x)


class Gelu(nn.Module):
    def forward(self, x: Any) -> Any:
        return F.gelu(x)


class Mixed(nn.Module):
    """Channels at axis 1 and, as in ConvNeXt, at the last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.linear, self.first, self.act = (
            nn.Conv2d(3, 5, 1), nn.LayerNorm(5), nn.Linear(5, 7), nn.ReLU(), Gelu(),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        return self.act(self.linear(self.norm(self.first(self.conv(x)).permute(0, 2, 3, 1))))


def test_each_call_gets_its_module_and_nothing_drifts() -> None:
    import acon_torch

    model = nn.Sequential(nn.Conv2d(3, 12, 1), Bottleneck(4))
    before = model.eval()(X).detach()
    done = acon_torch.replace_activations(model, {"relu": "acon_c"}, X)
    assert [(site.path, site.channels) for site in done.sites] == [("1.relu", 4), ("1.relu_2", 12), ("1.relu_3", 12)]
    assert done.change is not None
    assert done.change < 0.005
    torch.testing.assert_close(model(X), before, rtol=0, atol=0.02)
    with torch.no_grad():  # no two alike, so that a module taken for another shows
        for number, name in enumerate(("relu", "relu_2", "relu_3")):
            getattr(model[1], name).p2.fill_(0.2 + 0.1 * number)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    expected = model(X)
    for other in (
        copy.deepcopy(model),
        torch.load(file, weights_only=False),
        torch.compile(model, backend="eager", fullgraph=True),
    ):
        torch.testing.assert_close(other(X), expected)
    assert isinstance(model[1], Bottleneck)
    expected.square().mean().backward()
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.train()(X).square().mean().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], msg=name)


def test_axes_of_a_model_that_mixes_them_and_classes_of_others() -> None:
    import acon_torch

    model = Mixed()
    done = acon_torch.replace_activations(model, {"gelu": "meta_acon", "relu": lambda channels: acon_torch.AconC(channels)}, X)
    assert [(site.path, site.new.partition("(")[0], site.channels, site.axis) for site in done.replaced] == [
        ("first", "AconC", 5, 1), ("act", "meta_acon", 7, -1),
    ]  # fmt: skip
    with pytest.raises(AconError, match="channel axis is not known of 0"):
        acon_torch.replace_activations(nn.Sequential(nn.SiLU(), nn.Flatten()), {"silu": "acon_c"}, torch.ones(2, 5, 7))


def test_in_place_sites_write_in_place_where_it_shows() -> None:
    import acon_torch

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.SiLU(inplace=True), nn.Conv2d(4, 4, 1))

        def forward(self, x: Any) -> Any:
            return self.body(x) + x

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Block())
    before = model(X).detach()
    done = acon_torch.replace_activations(model, {"silu": "acon_c"}, X)
    assert [(site.path, site.note) for site in done.replaced] == [("1.body.0", "writes in place")]
    after = model(X)
    torch.testing.assert_close(after, before)
    after.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("activation", ["relu", nn.ReLU()])
def test_the_fast_path_of_transformers_is_left(activation: Any) -> None:
    import acon_torch

    model = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation=activation, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    done = acon_torch.replace_activations(model, {"relu": "acon_c"}, {"src": x})
    assert [site.axis for site in done.replaced] == [-1]
    with torch.no_grad():
        model.get_submodule(done.replaced[0].path).p1.fill_(-3.0)
        torch.testing.assert_close(model(x), torch.enable_grad()(model)(x).detach())


def test_a_model_of_random_output_is_replaced_and_the_report_says_so() -> None:
    import acon_torch

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.random = nn.Conv2d(3, 4, 1), nn.SiLU(), torch.Generator().manual_seed(1)

        def forward(self, x: Any) -> Any:
            y = self.act(self.conv(x))
            return y + torch.randn(y.shape, generator=self.random)

    done = acon_torch.replace_activations(Noisy(), {"silu": "acon_c"}, X)
    assert [site.path for site in done.replaced] == ["act"]
    assert done.change is None
    assert done.warnings == ("the output was not compared: it differs from run to run",)


def test_a_function_call_loses_its_options() -> None:
    import acon_torch

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Any) -> Any:
            return F.leaky_relu(self.conv(x), 0.3)

    model = Functional()
    before = model(X).detach()
    assert len(acon_torch.replace_activations(model, {"leaky_relu": "repact"}, X).replaced) == 1
    torch.testing.assert_close(model(X), before)


def test_references_outside_of_attributes_are_reported() -> None:
    import acon_torch

    class Captured(nn.Module):
        def __init__(self, how: str) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 4, 1), nn.SiLU()
            act = self.act
            self.function = {"closure": lambda x: act(x), "method": act.forward}[how]

        def forward(self, x: Any) -> Any:
            return self.function(self.conv(x))

    for how in ("closure", "method"):
        model = Captured(how)
        done = acon_torch.replace_activations(model, {"silu": "acon_c"}, X)
        assert not done.replaced
        assert done.kept
        assert type(model.act) is nn.SiLU


def test_beta_follows_the_scale_and_a_large_change_is_a_warning() -> None:
    import acon_torch

    def small() -> nn.Module:
        model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 5), nn.ReLU())
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=1e-3, generator=torch.Generator().manual_seed(1))
        return model

    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    done = acon_torch.replace_activations(small(), {"relu": "acon_c"}, x)
    assert done.change < 0.01
    assert not done.warnings
    assert any(
        "output changed by" in each
        for each in acon_torch.replace_activations(small(), {"relu": "acon_c"}, x, beta=100.0).warnings
    )


def test_keys_where_and_what_met_nothing() -> None:
    import acon_torch

    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.SiLU(), nn.Conv2d(8, 5, 1), nn.SiLU())
    done = acon_torch.replace_activations(model, {"swish": "acon_c", "mish": "acon_c"}, X, where="1")
    assert [site.path for site in done.replaced] == ["1"]
    assert done.warnings == ("'mish' met nothing; the model has silu (2)",)
    assert len(acon_torch.replace_activations(model, {nn.SiLU: "acon_a"}, X).replaced) == 1
