"""The kernel library is PyTorch's path on the CPU, is right, and gives way to the formula."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from acon_core import kernels, spec
from acon_core.kernels import Plan
from acon_core.reference import forward

pytestmark = [
    pytest.mark.backend("torch"),
    pytest.mark.skipif(kernels.library() is None, reason="acon-kernels is not installed, or is turned off"),
]

X = (2, 5, 3, 4)
EPSILON = {"float64": 1e-13, "float32": 2e-6, "bfloat16": 1e-2, "float16": 2e-3}


@pytest.fixture
def torch():  # type: ignore[no-untyped-def]
    import torch

    torch.manual_seed(0)
    torch._dynamo.reset()
    return torch


@pytest.fixture
def F(torch):  # type: ignore[no-untyped-def]  # noqa: N802
    from acon_torch import functional

    return functional


def ran(call, *values):  # type: ignore[no-untyped-def]
    """Return what a call returns, and how often the library has run in it."""
    before = Plan.runs
    result = call(*values)
    return result, Plan.runs - before


def gates(torch, shapes, dtype="float64"):  # type: ignore[no-untyped-def]
    return [torch.randn(shape, dtype=torch.float64).to(getattr(torch, dtype)) for shape in shapes]


CASES = {
    "acon": (spec.Acon(), "acon", [X, (5,), (1, 5, 1, 1), (2, 5, 1, 1)]),
    "acon one gate": (spec.Acon(), "acon", [X, (1,), (1,), (1,)]),
    "acon per sample": (spec.Acon(), "acon", [X, (5,), (5,), (2, 1, 1, 1)]),
    "acon pixel": (spec.Acon(), "acon", [X, (1, 5, 1, 1), (5,), X]),
    "acon features": (spec.Acon(), "acon", [(7, 5), (5,), (1, 5), (7, 5)]),
    "acon volumes": (spec.Acon(), "acon", [(2, 5, 3, 4, 2), (5,), (1, 5, 1, 1), (2, 5, 1, 1, 1)]),
    "swish": (spec.Acon(p1=1.0, p2=0.0), "swish", [X, (5,)]),
    "prelu": (spec.PReLUFunction(), "prelu", [X, (5,)]),
    "prelu shared": (spec.PReLUFunction(), "prelu", [X, (1,)]),
    "arelu": (spec.AReLUFunction(), "arelu", [X, (1,), (1, 5, 1, 1)]),
    "repact": (spec.RepActFunction(), "repact", [X, (1,), (1,), (1,)]),
    "repact shift": (spec.RepActFunction(shift=True), "repact", [X, (5,), (5,), (1,), (1, 5, 1, 1)]),
    "dynamic_maximum": (spec.DynamicMaximum(), "dynamic_maximum", [X, (2, 20), (4,), (4,)]),
    "dynamic_maximum shared": (spec.DynamicMaximum(), "dynamic_maximum", [X, (2, 4), (4,), (4,)]),
    "maximum": (spec.Maximum(), "maximum", [X, X]),
}


def layouts(torch, x):  # type: ignore[no-untyped-def]
    """Return x as it is, with the channels last in memory, and with gaps."""
    last = x.movedim(1, -1).contiguous().movedim(-1, 1)
    gaps = torch.full((*x.shape[:-1], 2 * x.shape[-1]), 7.0, dtype=x.dtype)[..., ::2]
    return {"contiguous": x, "channels last": last, "gaps": gaps.copy_(x), "expanded": x[:1].expand(x.shape)}


@pytest.mark.parametrize("dtype", list(EPSILON))
@pytest.mark.parametrize("case", list(CASES))
def test_value_and_gradients_come_from_the_library_and_are_right(torch, F, case, dtype) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    node, name, (shape, *shapes) = CASES[case]
    call = (lambda x, beta: F.acon(x, 1.0, 0.0, beta)) if name == "swish" else getattr(F, name)
    like_x = dtype if shape in shapes else "float32"
    values = gates(torch, shapes, "float64" if dtype == "float64" else like_x)
    cotangents = layouts(torch, torch.randn(shape, dtype=torch.float64).to(getattr(torch, dtype)))
    fixed = 2 if name == "dynamic_maximum" else 0  # its last two arguments are buffers
    for layout, x in layouts(torch, 2 * gates(torch, [shape], dtype)[0]).items():
        arguments = [each.detach().requires_grad_() for each in (x, *values)]
        leaves = arguments[: len(arguments) - fixed]
        y, forwards = ran(call, *arguments)
        assert forwards == 1, layout
        assert y.stride() == torch.empty_like(x).stride(), layout
        exact = forward(node, {}, [each.detach().double().numpy() for each in arguments])
        scale = np.abs(exact.values[0]).max()
        assert np.abs(y.detach().double().numpy() - exact.values[0]).max() <= EPSILON[dtype] * scale, layout
        for g in (cotangents["contiguous"], cotangents[layout]):
            found, backwards = ran(torch.autograd.grad, y, leaves, g, True)
            assert backwards == 1, layout
            expected = exact.vjp((g.double().numpy(),))
            for leaf, gradient, right, scales in zip(leaves, found, expected.inputs, expected.input_scales, strict=False):
                assert (gradient.shape, gradient.dtype) == (leaf.shape, leaf.dtype)
                error = np.abs(gradient.double().numpy() - right)
                assert (error <= 2 * EPSILON[dtype] * np.maximum(scales, 0.1)).all(), (layout, tuple(leaf.shape))


def test_only_the_gradients_that_are_needed_are_computed(torch, F) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    values = gates(torch, [X, (5,), (5,), (5,)])
    full = torch.autograd.grad(F.acon(*[each.requires_grad_() for each in values]).sum(), values)
    for index in range(4):
        leaves = [each.detach().requires_grad_(place == index) for place, each in enumerate(values)]
        (only,), runs = ran(lambda leaves=leaves, index=index: torch.autograd.grad(F.acon(*leaves).sum(), leaves[index]))
        assert runs == 2
        assert torch.equal(only, full[index])
    (y, runs) = ran(F.acon, *[each.detach() for each in values])
    assert (y.requires_grad, runs) == (False, 1)
    with torch.inference_mode():
        assert ran(lambda: F.acon(*[each.clone() for each in values]))[1] == 1


def test_tokens_and_the_channel_axis(torch, F) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    tokens, *values = gates(torch, [(3, 7, 5), (5,), (5,), (3, 5, 1, 1)])
    y, runs = ran(lambda: F.acon(tokens, *values, channel_axis=-1))
    exact = forward(spec.Acon(), {}, [tokens.mT.numpy(), *(each.numpy() for each in values)]).values[0]
    assert runs == 1
    np.testing.assert_allclose(y.mT.numpy(), exact, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", sorted(spec.ACTIVATIONS))
def test_modules(torch, name) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    kinds = (spec.Acon, spec.PReLUFunction, spec.AReLUFunction, spec.RepActFunction, spec.DynamicMaximum, spec.Maximum)
    module = acon_torch.activation(name, 6).eval()
    inner = [getattr(each, "spec", None) for each in module.modules()]
    calls = sum(isinstance(node, kinds) or (isinstance(node, spec.SmoothMaximum) and name == "acon_frelu") for node in inner)
    x = torch.randn(2, 6, 5, 4, requires_grad=True)
    y, forwards = ran(module, x)
    _, backwards = ran(y.sum().backward)
    assert (forwards, backwards) == (calls, calls)
    copy_of_x = x.detach().double().numpy()
    exact = forward(module.spec, {path: each.double().numpy() for path, each in module.state_dict().items()}, [copy_of_x])
    np.testing.assert_allclose(y.detach().numpy(), exact.values[0], rtol=1e-5, atol=1e-5)


def transforms(torch):  # type: ignore[no-untyped-def]
    """Name ways of calling a function for which the formula must be used."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    class Subclass(torch.Tensor):
        pass

    def meta(call, x, *rest):  # type: ignore[no-untyped-def]
        return torch.empty_like(call(x.to("meta"), *(each.to("meta") for each in rest)), device="cpu").copy_(call(x, *rest))

    def fake(call, *values):  # type: ignore[no-untyped-def]
        mode = FakeTensorMode()
        fakes = [mode.from_tensor(each) for each in values]
        assert ran(call, *fakes)[1] == 0
        with mode:
            assert ran(call, *fakes)[1] == 0

    def negative(call, x, *rest):  # type: ignore[no-untyped-def]
        return call(torch._neg_view(-x), *rest)

    def vmap_over_gates(call, x, *rest):  # type: ignore[no-untyped-def]
        return torch.func.vmap(lambda *each: call(x, *each))(*(each[None] for each in rest))[0]

    def dual(call, x, *rest):  # type: ignore[no-untyped-def]
        from torch.autograd import forward_ad

        with forward_ad.dual_level():
            return forward_ad.unpack_dual(call(forward_ad.make_dual(x, x), *rest)).primal

    def exported(call, *values, strict=True):  # type: ignore[no-untyped-def]
        class Module(torch.nn.Module):
            def forward(self, *arguments):  # type: ignore[no-untyped-def]
                return call(*arguments)

        program = torch.export.export(Module(), values, strict=strict)
        assert "acon" not in {str(node.target).split(".")[0] for node in program.graph.nodes}
        return program.module()(*values)

    return {
        "vmap": lambda call, x, *rest: torch.func.vmap(lambda each: call(each[None], *rest)[0])(x),
        "vmap over gates": vmap_over_gates,
        "func.grad": lambda call, x, *rest: torch.func.grad(lambda each: call(each, *rest).sum())(x),
        "func.vjp": lambda call, x, *rest: torch.func.vjp(call, x, *rest)[0],
        "jvp": lambda call, x, *rest: torch.func.jvp(lambda each: call(each, *rest), (x,), (x,))[0],
        "dual tensors": dual,
        "hessian": lambda call, x, *rest: torch.func.hessian(lambda each: call(each, *rest).sum())(x),
        "fake tensors": fake,
        "make_fx": lambda call, *values: make_fx(lambda x, p1, p2, beta: call(x, p1, p2, beta))(*values)(*values),
        "jit.trace": lambda call, *values: torch.jit.trace(call, values, check_trace=False)(*values),
        "export": exported,
        "export, not strict": lambda call, *values: exported(call, *values, strict=False),
        "negative view": negative,
        "subclass": lambda call, x, *rest: call(x.as_subclass(Subclass), *rest).as_subclass(torch.Tensor),
        "complex part": lambda call, x, *rest: call(torch.conj(torch.complex(x, -x)).imag, *rest),
        "compile of vmap": lambda call, *values: torch.compile(lambda x, *rest: torch.func.vmap(
            lambda each: call(each[None], *rest)[0])(x), backend="eager", fullgraph=True)(*values),
    }  # fmt: skip


def test_formula_where_memory_cannot_be_worked_on(torch, F) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    values = gates(torch, [X, (5,), (5,), (1, 5, 1, 1)])
    expected, runs = ran(F.acon, *values)
    assert runs == 1
    for name, transform in transforms(torch).items():
        found, runs = ran(transform, F.acon, *values)
        assert runs == 0, name
        if name not in ("func.grad", "hessian", "fake tensors"):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, msg=name)
    meta = F.acon(*[each.to("meta") for each in values])
    assert (meta.device.type, meta.shape) == ("meta", X)


def test_formula_for_other_dtypes_and_shapes(torch, F) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    x, *values = gates(torch, [X, (5,), (5,), (5,)], "float32")
    wide = [each.double() for each in values]
    y, runs = ran(F.acon, x, *wide)  # the library would round gates in float64
    assert runs == 0
    torch.testing.assert_close(y, F.acon(x.double(), *wide).float())
    for arguments in ([x.bfloat16(), *values[:2], x], [x, x, *values[1:]], [torch.zeros(0, 5, 3), *values]):
        assert ran(F.acon, *arguments)[1] == 0
    assert ran(F.maximum, x, x[:1])[1] == 0
    assert ran(F.acon, x.bfloat16(), *values)[1] == 1


@pytest.mark.parametrize("case", list(CASES))
def test_gradients_of_the_formula_and_of_the_library_agree(torch, F, case) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    """At kinks and ties too; and where 1 - sigmoid(z) would have lost every digit."""
    _, name, (shape, *shapes) = CASES[case]
    call = (lambda x, beta: F.acon(x, 1.0, 0.0, beta)) if name == "swish" else getattr(F, name)
    x, *values = gates(torch, [shape, *shapes])
    x.view(-1)[:5] = torch.tensor([0.0, -3.0, 3.0, 40.0, -40.0])
    if shape in shapes:
        values[-1].view(-1)[:3] = x.view(-1)[:3]
    leaves = [each.requires_grad_() for each in (x, *values)]
    y, g = call(*leaves), torch.randn(shape, dtype=torch.float64)
    formula, runs = ran(lambda: torch.autograd.grad(y, leaves, g, create_graph=True))
    library, more = ran(lambda: torch.autograd.grad(y, leaves, g))
    assert (runs, more) == (0, 1)
    for one, other in zip(formula, library, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-14)


def test_the_formula_keeps_the_digits_of_small_gradients(torch, F) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    x, beta = torch.tensor([[40.0]]), torch.ones(1)
    p1, p2 = torch.ones(1), torch.zeros(1, requires_grad=True)
    (gradient,) = torch.autograd.grad(F.acon(x, p1, p2, beta), p2, create_graph=True)
    t = np.exp(-40.0)
    assert gradient.item() == pytest.approx(40 * (t - 40 * t), rel=1e-5, abs=0)


def test_double_backward_uses_the_formula(torch, F) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    for case, (_, name, shapes) in CASES.items():
        if name in ("acon", "prelu", "arelu", "repact", "dynamic_maximum"):
            small = [(2, *shape[1:2], 2) if shape == X else shape for shape in shapes]
            values = [each.requires_grad_() for each in gates(torch, small)]
            call = getattr(F, name)
            assert torch.autograd.gradcheck(call, values, check_forward_ad=True, check_batched_grad=True), case
            assert torch.autograd.gradgradcheck(call, values, check_batched_grad=True), case
    values = [each.requires_grad_() for each in gates(torch, [X, (5,), (5,), (5,)])]
    y = F.acon(*values).sum()
    assert ran(lambda: torch.autograd.grad(y, values, create_graph=True))[1] == 0
    assert ran(lambda: torch.autograd.grad(y, values, retain_graph=True))[1] == 1
    batch = torch.stack([torch.ones(()), -torch.ones(())]).double()
    assert ran(lambda: torch.autograd.grad(y, values, batch, is_grads_batched=True))[1] == 0


def test_autocast_and_saved_tensor_hooks(torch, F) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    x, *values = [each.requires_grad_() for each in gates(torch, [X, (5,), (5,), (1, 5, 1, 1)], "float32")]
    expected = torch.autograd.grad(F.acon(x, *values).sum(), [x, *values])
    last = torch.channels_last
    packs = {
        "same": (nullcontext(), lambda each: each),
        "copied": (torch.autograd.graph.save_on_cpu(), None),
        "another memory order": (None, lambda each: each.contiguous(memory_format=last) if each.ndim == 4 else each),
    }
    for name, (hooks, unpack) in packs.items():
        with hooks or torch.autograd.graph.saved_tensors_hooks(lambda each: each, unpack):
            y, forwards = ran(F.acon, x, *values)
        found, backwards = ran(lambda y=y: torch.autograd.grad(y.sum(), [x, *values]))
        assert (forwards, backwards) == (1, 1), name
        torch.testing.assert_close(found, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, runs = ran(F.acon, x.bfloat16(), *values)
    assert (y.dtype, runs) == (torch.bfloat16, 1)
    assert [each.dtype for each in torch.autograd.grad(y.float().sum(), [x, *values])] == [torch.float32] * 4


def test_a_changed_argument_is_noticed(torch, F) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    x, *values = [each.requires_grad_() for each in gates(torch, [X, (5,), (5,), (5,)])]
    y = F.acon(x, *values)
    with torch.no_grad():
        values[0].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_wrong_gates_are_named(torch, F) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    from acon_core.errors import SpecError

    x, *values = gates(torch, [X, (5,), (4,), (5,)])
    with pytest.raises(SpecError, match=r"found \(4,\) beside x \(2, 5, 3, 4\)"):
        F.acon(x, *values)


@pytest.mark.parametrize("generator", ["aot_eager", "inductor"])
def test_compiled_code_calls_the_library(torch, F, generator) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    """One graph with dynamic sizes, also of x with gaps; numbers as gates; all functions."""

    def network(x, p1, p2, beta, theta, lambdas, init_v, other):  # type: ignore[no-untyped-def]
        y = F.acon(2 * x, p1, p2, beta) + F.prelu(x, p2) + F.arelu(x, p1, p2)
        y = y * F.repact(x, p1, p2, beta) + F.maximum(F.dynamic_maximum(x, theta, lambdas, init_v), other)
        return y + F.acon(x, 1.0, 0.0, p1)

    def small(x, p1, p2, beta, *unused):  # type: ignore[no-untyped-def]
        return F.acon(x, 1.0, 0.0, beta) + 2 * F.acon(x, p1, p2, beta)

    called = network if generator == "aot_eager" else small
    values = gates(torch, [(5,), (5,), (1, 5, 1, 1), (2, 20), (4,), (4,)], "float32")
    compiled = torch.compile(called, fullgraph=True, dynamic=True, backend=generator)
    for size in (3, 6):
        for layout, x in layouts(torch, torch.randn(2, 5, size, 4)).items():
            if (size, layout) in ((3, "contiguous"), (6, "contiguous"), (6, "gaps")):
                leaves = [each.detach().requires_grad_() for each in (x, *values, torch.randn_like(x))]
                results = []
                for call in (called, compiled):
                    y, forwards = ran(call, *leaves)
                    found, backwards = ran(
                        lambda y=y, leaves=leaves: torch.autograd.grad((y * y).sum(), leaves, allow_unused=True)
                    )
                    assert forwards == backwards == (7 if called is network else 2), (layout, call)
                    results.append([y, *found])
                torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-4)
    half, runs = ran(torch.compile(F.acon, backend="aot_eager"), x.bfloat16(), *values[:3])
    assert (half.dtype, runs) == (torch.bfloat16, 1)


def test_a_module_is_one_graph_before_its_first_call(torch) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    module = acon_torch.AconC(13)  # a width that no other test has: equal specs share what they cache
    assert torch.compile(module, fullgraph=True, backend="eager")(torch.randn(2, 13, 3, 4)).shape == (2, 13, 3, 4)


def test_compiled_operator_falls_back_to_the_formula(torch, F) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    x, *values = gates(torch, [X, (5,), (5,), (5,)], "float32")
    leaves = [x.requires_grad_(), *(each.double().requires_grad_() for each in values)]
    results = []
    for call in (F.acon, torch.compile(F.acon, backend="aot_eager", fullgraph=True)):
        y, runs = ran(call, *leaves)
        assert runs == 0
        results.append([y, *torch.autograd.grad(y.sum(), leaves)])
    torch.testing.assert_close(results[1], results[0])


def test_threads_change_nothing(torch, F) -> None:  # type: ignore[no-untyped-def]  # noqa: N803
    from acon_torch import kernels as bound

    assert bound._PARALLEL
    values = [each.requires_grad_() for each in gates(torch, [(4, 16, 64, 64), (16,), (16,), (4, 16, 1, 1)], "float32")]
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            y = F.acon(*values)
            results.append([y, *torch.autograd.grad(y.square().sum(), values)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, three) for one, three in zip(*results, strict=True))


def test_switch(torch) -> None:  # type: ignore[no-untyped-def]
    program = """
import torch, acon_torch
from acon_core import kernels
module = acon_torch.AconC(5)
module(torch.ones(2, 5, 3, 4, requires_grad=True)).sum().backward()
print(kernels.Plan.runs, kernels.status())
"""
    for value, expected in (("0", "0 operations of the framework: turned off by ACON_KERNELS=0"), ("1", "2 acon-kernels")):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "ACON_KERNELS": value},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(expected)


def test_a_gate_of_one_element_has_any_shape(torch: Any, F: Any) -> None:  # noqa: N803
    x, beta = torch.randn(2, 3, 4), torch.full((1, 1, 1, 1, 1), 0.5)
    before = Plan.runs
    found = F.acon(x, 1.0, 0.0, beta)
    assert Plan.runs == before + 1
    torch.testing.assert_close(found, x * torch.sigmoid(0.5 * x))
