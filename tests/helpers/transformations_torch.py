"""The rows of PyTorch's tables in docs/transformations.md."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import acon_torch
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint
from transformations import ACTIVATIONS, CHANNELS, NETWORKS, Subject, Transformation


def make(subject: Subject, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Make the subject in evaluation mode, with parameters off their initial values."""
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
    return (module.double() if dtype == torch.float64 else module).eval()


def images(subject: Subject, batch: int = 3, wider: int = 0) -> Tensor:
    """Return inputs; `wider` is added to height and width."""
    generator = torch.Generator().manual_seed(batch)
    height, width = subject.size
    channels = 3 if subject.act else CHANNELS
    shape = (batch, channels, height + wider, width + wider)
    return 4 * torch.rand(shape, generator=generator, dtype=torch.float64) - 2


def weighted(y: Tensor) -> Tensor:
    """Return a sum to differentiate, in which each element has a weight of its own."""
    return (y * torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)).sum()


def derived(call: Callable[[Tensor], Tensor], x: Tensor, module: nn.Module) -> list[Tensor]:
    """Return the value, and the gradients of the input and of every parameter by name."""
    leaf = x.clone().requires_grad_()
    y = call(leaf)
    parameters = [parameter for _, parameter in sorted(module.named_parameters())]
    return [y.detach(), *torch.autograd.grad(weighted(y), [leaf, *parameters])]


def agree(found: Any, expected: Any) -> None:
    """Compare tensors, or sequences of them: 1e-9 of the largest element."""
    if isinstance(expected, Tensor):
        bound = 1e-9 * max(float(expected.detach().abs().max()), 1e-3)
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


def export_strict(subject: Subject) -> None:
    module = make(subject)
    sizes: dict[int, Any] = {0: torch.export.Dim("batch")}
    program = torch.export.export(module, (images(subject),), dynamic_shapes=(sizes,), strict=True)
    agree(program.module()(images(subject, CHANNELS)), module(images(subject, CHANNELS)))


def make_fx_symbolic(subject: Subject) -> None:
    module = make(subject)
    traced = make_fx(module, tracing_mode="symbolic", _allow_non_fake_inputs=True)(images(subject))
    agree(traced(images(subject, CHANNELS)), module(images(subject, CHANNELS)))


def fx_symbolic_trace(subject: Subject) -> None:
    module = make(subject)
    for whole in (module, nn.Sequential(nn.Hardtanh(-1.5, 1.5), module)):
        traced = torch.fx.symbolic_trace(whole)
        for batch in (3, CHANNELS):
            agree(derived(traced, images(subject, batch), traced), derived(whole, images(subject, batch), whole))
        assert dict(traced.named_parameters()).keys() == dict(whole.named_parameters()).keys()
        copied = pickle.loads(pickle.dumps(traced))
        agree(copied(images(subject)), whole(images(subject)))


def jit_trace(subject: Subject) -> None:
    module = make(subject)
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(module, images(subject))
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    for batch in (CHANNELS, 5):
        agree(derived(loaded, images(subject, batch), loaded), derived(module, images(subject, batch), module))


def fake_tensors(subject: Subject) -> None:
    expected = make(subject)(images(subject)).shape
    with FakeTensorMode():
        module = make(subject, torch.float32)
        y = module(images(subject).float())
        y.sum().backward()
    assert y.shape == expected
    assert all(parameter.grad.shape == parameter.shape for parameter in module.parameters())


def meta_device(subject: Subject) -> None:
    expected = acon_torch.activation(subject.name, CHANNELS)
    torch.manual_seed(5)
    expected.reset_parameters()
    with torch.device("meta"):
        module = acon_torch.activation(subject.name, CHANNELS)
    assert module(images(subject).float().to("meta")).shape == images(subject).shape
    module.to_empty(device="cpu")
    for tensor in (*module.parameters(), *module.buffers()):
        nn.init.constant_(tensor, 7)
    torch.manual_seed(5)
    module.reset_parameters()
    agree(list(module.state_dict().values()), list(expected.state_dict().values()))
    for part in module.modules():  # as FSDP does
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    assert module.eval()(images(subject).float()).isfinite().all()


def functional_call(subject: Subject) -> None:
    module = make(subject)
    state = {name: 1.1 * tensor.detach() for name, tensor in module.named_parameters()}
    x = images(subject)

    def value(parameters: dict[str, Tensor]) -> Tensor:
        return weighted(torch.func.functional_call(module, parameters, (x,)))

    found = torch.func.grad(value)(state)
    changed = copy.deepcopy(module)
    changed.load_state_dict(state, strict=False)
    weighted(changed(x)).backward()
    agree(list(found.values()), [parameter.grad for parameter in changed.parameters()])


def per_sample_gradients(subject: Subject) -> None:
    module = make(subject)
    state = {name: tensor.detach() for name, tensor in module.named_parameters()}

    def value(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return weighted(torch.func.functional_call(module, parameters, (x[None],)))

    x = images(subject)
    found = torch.func.vmap(torch.func.grad(value), in_dims=(None, 0))(state, x)
    for index, sample in enumerate(x):
        agree([each[index] for each in found.values()], list(torch.func.grad(value)(state, sample).values()))


def ensembles(subject: Subject) -> None:
    modules = [make(subject), make(subject)]
    with torch.no_grad():
        for parameter in modules[1].parameters():
            parameter.mul_(0.9)
    parameters, buffers = torch.func.stack_module_state(modules)
    x = images(subject)

    def value(*state: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(modules[0], state, (x,))

    found = torch.func.vmap(value)(parameters, buffers)
    agree(list(found), [module(x) for module in modules])


def forward_mode(subject: Subject) -> None:
    module, x = make(subject), images(subject)
    tangent = torch.cos(torch.arange(x.numel(), dtype=x.dtype)).reshape(x.shape)
    found = torch.func.jvp(module, (x,), (tangent,))[1]
    y = module(x)
    weights = torch.sin(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)
    gradient = torch.func.vjp(module, x)[1](weights)[0]
    agree((found * weights).sum(), (gradient * tangent).sum())


def double_backward(subject: Subject) -> None:
    module, x = make(subject), images(subject, 2).requires_grad_()

    def slope(leaf: Tensor) -> Tensor:
        return torch.autograd.grad(module(leaf).cos().sum(), leaf, create_graph=True)[0].square().sum()

    direction = torch.cos(torch.arange(x.numel(), dtype=x.dtype)).reshape(x.shape)
    found = (torch.autograd.grad(slope(x), x)[0] * direction).sum()
    step = 1e-6
    ends = [slope((x + sign * step * direction).detach().requires_grad_()).detach() for sign in (1, -1)]
    torch.testing.assert_close(found, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-6)


def copies(subject: Subject) -> None:
    module = make(subject)
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    made = (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(buffer, weights_only=False),
        torch.optim.swa_utils.AveragedModel(module).module,
    )
    for copied in made:
        agree(derived(copied, images(subject), copied), derived(module, images(subject), module))
        assert next(copied.parameters()).data_ptr() != next(module.parameters()).data_ptr()


def replicas(subject: Subject) -> None:
    """Copy a module as `torch.nn.parallel.replicate` does, which needs several GPUs."""
    module = make(subject)
    made = {part: part._replicate_for_data_parallel() for part in module.modules()}
    weights = []
    for part, replica in made.items():
        for name, child in part._modules.items():
            replica._modules[name] = made[child]
        for name, parameter in part._parameters.items():
            if parameter is not None:
                value = parameter.detach().clone().requires_grad_()
                weights.append(value)
                setattr(replica, name, value)
        for name, value in part._buffers.items():
            replica._buffers[name] = value
    found, expected = made[module](images(subject)), module(images(subject))
    agree(found, expected)
    agree(torch.autograd.grad(weighted(found), weights), torch.autograd.grad(weighted(expected), list(module.parameters())))


def checkpointing(subject: Subject) -> None:
    module = make(subject)
    expected = derived(module, images(subject), module)
    agree(derived(lambda x: checkpoint(module, x, use_reentrant=False), images(subject), module), expected)
    x = images(subject).requires_grad_()
    weighted(checkpoint(module, x, use_reentrant=True)).backward()
    found, x.grad = x.grad, None
    weighted(module(x)).backward()
    agree(found, x.grad)


def saved_tensor_hooks(subject: Subject) -> None:
    module = make(subject)
    expected = derived(module, images(subject), module)
    packed = []

    def pack(tensor: Tensor) -> int:
        packed.append(tensor.detach().clone())
        return len(packed) - 1

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda place: packed[place]):
        agree(derived(module, images(subject), module), expected)
    assert packed
    with torch.autograd.graph.save_on_cpu():
        agree(derived(module, images(subject), module), expected)


class Doubled(nn.Module):
    def forward(self, tensor: Tensor) -> Tensor:
        return 2 * tensor


def parametrizations(subject: Subject) -> None:
    module = make(subject)
    changed = copy.deepcopy(module)
    for path, parameter in list(module.named_parameters()):
        part, _, name = path.rpartition(".")
        owner = changed.get_submodule(part)
        if name == "weight" and parameter.ndim > 1:
            torch.nn.utils.parametrizations.weight_norm(owner)
        else:
            parametrize.register_parametrization(owner, name, Doubled())
            with torch.no_grad():
                getattr(owner.parametrizations, name).original.mul_(0.5)
    agree(changed(images(subject)), module(images(subject)))
    assert all(parameter.grad_fn is None for parameter in changed.parameters())
    weighted(changed(images(subject))).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in changed.parameters() if parameter.numel() > 1)


def state_hooks(subject: Subject) -> None:
    module = make(subject)
    other = copy.deepcopy(module)
    for parameter in other.parameters():
        nn.init.constant_(parameter, 0.5)

    def rename(_: nn.Module, state: dict[str, Tensor], prefix: str, __: Any) -> None:
        for name in list(state):
            state[name.replace(prefix, prefix + "old_", 1)] = state.pop(name)

    def undo(_: nn.Module, state: dict[str, Tensor], prefix: str, *__: Any) -> None:
        for name in list(state):
            state[name.replace(prefix + "old_", prefix, 1)] = state.pop(name)

    module.register_state_dict_post_hook(rename)
    other.register_load_state_dict_pre_hook(undo)
    state = nn.ModuleDict({"act": module}).state_dict()
    assert all(name.startswith("act.old_") for name in state)
    nn.ModuleDict({"act": other}).load_state_dict({name: each.clone() for name, each in state.items()}, assign=True)
    agree(derived(other, images(subject), other), derived(module, images(subject), module))


def data_parallel(subject: Subject) -> None:
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        module = make(subject).train()
        alone = copy.deepcopy(module)
        parallel = nn.parallel.DistributedDataParallel(module)
        for each in (parallel, alone):
            weighted(each(images(subject))).backward()
        agree([each.grad for each in module.parameters()], [each.grad for each in alone.parameters()])
        agree(list(module.state_dict().values()), list(alone.state_dict().values()))
    finally:
        torch.distributed.destroy_process_group()


FEW = (*ACTIVATIONS, NETWORKS[0])

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
        on=FEW,
    ),
    Transformation(
        "`torch.export(strict=True)`",
        "values of a batch of as many images as there are channels",
        export_strict,
        on=ACTIVATIONS,
    ),
    Transformation('`make_fx(tracing_mode="symbolic")`', "values of another batch", make_fx_symbolic, on=ACTIVATIONS),
    Transformation(
        "`torch.fx.symbolic_trace`",
        "alone and inside of a model, at two batch sizes; the traced module is pickled too",
        fx_symbolic_trace,
    ),
    Transformation(
        "`torch.jit.trace`", "without a warning; saved, loaded, and differentiated at two other batch sizes", jit_trace
    ),
    Transformation("`FakeTensorMode`", "made, run and differentiated without values", fake_tensors, on=FEW),
    Transformation(
        '`device="meta"`', "then `to_empty` and `reset_parameters` give the values of a new module", meta_device, on=ACTIVATIONS
    ),
    Transformation("`torch.func.functional_call`, `grad`", "gradients at other parameters", functional_call, on=FEW),
    Transformation("`vmap` of `grad`", "the gradients of each sample", per_sample_gradients, on=ACTIVATIONS),
    Transformation("`vmap` over modules", "an ensemble by `stack_module_state`", ensembles, on=FEW),
    Transformation("`torch.func.jvp`", "forward mode beside reverse mode, in float64", forward_mode, on=ACTIVATIONS),
    Transformation("double backward", "beside finite differences, in float64", double_backward, on=ACTIVATIONS),
    Transformation("`deepcopy`, `pickle`, `torch.save`", "of the whole module, and `AveragedModel`", copies, on=FEW),
    Transformation("`DataParallel`", "replicas as it makes them, on the CPU", replicas, on=FEW),
    Transformation(
        "`DistributedDataParallel`", "gradients and running statistics in training, in one process", data_parallel, on=FEW
    ),
    Transformation("`torch.utils.checkpoint`", "reentrant and not", checkpointing, on=FEW),
    Transformation("saved-tensor hooks", "tensors that are packed, and `save_on_cpu`", saved_tensor_hooks, on=FEW),
    Transformation("`parametrize`, `weight_norm`", "of every parameter", parametrizations, on=ACTIVATIONS),
    Transformation("hooks of the state dict", "which rename its tensors; loaded with `assign=True`", state_hooks, on=FEW),
)
