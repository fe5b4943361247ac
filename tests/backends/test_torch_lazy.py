"""The lazy form of the activations in PyTorch."""

from __future__ import annotations

import copy
import doctest
import pickle

import pytest

pytestmark = pytest.mark.backend("torch")
torch = pytest.importorskip("torch")
import acon_torch  # noqa: E402
from numpydoc_check import problems  # noqa: E402
from torch import nn  # noqa: E402

from acon_core.errors import SpecError  # noqa: E402


def convolution(activation_layer: object, inputs: int = 3, outputs: int = 10, seed: int = 3) -> nn.Sequential:
    """Return a convolution, norm and activation as torchvision makes them."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, bias=False), nn.BatchNorm2d(outputs), activation_layer(inplace=True))


def image(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(seed))


def test_docstring() -> None:
    assert list(problems("lazy", acon_torch.lazy, examples=True)) == []
    (found,) = doctest.DocTestFinder(recurse=False).find(acon_torch.lazy, "lazy", globs={})
    runner = doctest.DocTestRunner()
    runner.run(found)
    assert (runner.tries > 0, runner.failures) == (True, 0)


@pytest.mark.parametrize("name", ["acon_c", "meta_acon(reduction=2)", "frelu", "dyrelu", "prelu(shared=false)"])
def test_first_call(name: str) -> None:
    """The first call makes what the constructor makes, with the same random numbers."""
    model = convolution(acon_torch.lazy(name))
    calls: list[int] = []
    model[2].register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(5)
    y = model(image())
    torch.manual_seed(5)
    public = acon_torch.activation(name, 10)
    assert (type(model[2]), model[2].spec, calls) == (type(public), public.spec, [1])
    assert all(type(parameter) is nn.Parameter for parameter in model.parameters())
    assert set(vars(model[2])) == set(vars(public))
    expected = convolution(lambda inplace: public)(image())
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    assert list(model.state_dict()) == [*convolution(lambda inplace: public).state_dict()]


@pytest.mark.parametrize("name", ["gelu", "swish", "repact", "prelu", "acon_c(shared=true)"])
def test_activations_without_a_width_are_made_at_once(name: str) -> None:
    made = acon_torch.lazy(name)(inplace=True)
    assert type(made) is type(acon_torch.activation(name))


def test_optimizer_made_before_the_first_call() -> None:
    model = convolution(acon_torch.lazy("meta_acon", reduction=2, norm="none"))
    groups = acon_torch.param_groups(model, 0.1)
    optimizer = torch.optim.SGD(groups, lr=0.1)
    model(image()).square().mean().backward()
    before = {path: parameter.detach().clone() for path, parameter in model.named_parameters()}
    optimizer.step()
    assert {path for path, parameter in model.named_parameters() if not torch.equal(parameter, before[path])} == set(before)
    ready = acon_torch.param_groups(model, 0.1)
    assert [{id(each) for each in group["params"]} for group in groups] == [
        {id(each) for each in group["params"]} for group in ready
    ]


def test_dtype_mode_and_frozen_parameters() -> None:
    model = convolution(acon_torch.lazy("meta_acon")).double().eval()
    for parameter in model[2].parameters():
        parameter.requires_grad = False
    model(image().double())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert [parameter.requires_grad for parameter in model[2].parameters()] == [False] * 10
    assert not any(module.training for module in model.modules())
    assert acon_torch.lazy("acon_c", dtype=torch.bfloat16)()(image().bfloat16()).dtype == torch.bfloat16


def test_copies() -> None:
    model = convolution(acon_torch.lazy("meta_acon"))
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    model(image())
    assert type(model[2]).__name__ == "MetaAconC"
    copied(torch.randn(1, 3, 8, 8) if not copied.training else image())
    assert type(copied[2]).__name__ == "MetaAconC"
    assert copied[2].p1 is not model[2].p1


def test_state_dicts() -> None:
    model = convolution(acon_torch.lazy("meta_acon", reduction=2))
    assert not model.load_state_dict(convolution(acon_torch.lazy("meta_acon", reduction=2)).state_dict()).missing_keys
    model(image())
    model.eval()
    fresh = convolution(acon_torch.lazy("meta_acon", reduction=2), seed=8).eval()
    optimizer = torch.optim.SGD(fresh.parameters(), lr=0.1)
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh(image(1)), model(image(1)), rtol=0, atol=0)
    assert type(fresh[2]).__name__ == "MetaAconC"
    assert {id(each) for each in optimizer.param_groups[0]["params"]} == {id(each) for each in fresh.parameters()}
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "2.p1", "2.p2", "2.fc1.weight"'):
        convolution(acon_torch.lazy("meta_acon")).load_state_dict(convolution(nn.SiLU).state_dict())
    of_two_widths = model.state_dict() | {"2.p1": torch.zeros(1, 12, 1, 1)}
    with pytest.raises(RuntimeError, match=r'While copying the parameter named "2.p1"'):
        convolution(acon_torch.lazy("meta_acon", reduction=2)).load_state_dict(of_two_widths)


def test_compiled() -> None:
    model = convolution(acon_torch.lazy("acon_c"))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    y = compiled(image())
    assert type(model[2]).__name__ == "AconC"
    model[1].reset_running_stats()
    torch.testing.assert_close(model(image()), y)


def test_the_channel_axis_is_never_guessed() -> None:
    tokens = torch.randn(2, 5, 6)
    with pytest.raises(SpecError, match=r"lazy AconC: an input of shape \(2, 5, 6\) may be \(N, C, L\) or tokens"):
        acon_torch.lazy("acon_c")()(tokens)
    for axis, width in ((1, 5), (-1, 6)):
        made = acon_torch.lazy("acon_c", channel_axis=axis)()
        assert made(tokens).shape == tokens.shape
        assert (made.spec.channels, made.spec.channel_axis) == (width, axis)
    assert acon_torch.lazy("acon_c")()(torch.randn(4, 3)).shape == (4, 3)
    with pytest.raises(SpecError, match=r"lazy AconC: an input of shape \(4,\) has no channel axis 1"):
        acon_torch.lazy("acon_c")()(torch.randn(4))
    called = acon_torch.lazy("acon_c")()
    called(image())
    with pytest.raises(SpecError, match="expected an input with 3 channels at axis 1"):
        called(torch.randn(2, 4, 7, 9))
    for wrong in ("akon", "acon_c(reduction=3)"):
        with pytest.raises(SpecError):
            acon_torch.lazy(wrong)
