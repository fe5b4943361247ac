"""The lazy form of an activation: its number of channels is that of the first input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter, is_lazy

from acon_core import spec
from acon_core.errors import SpecError
from acon_torch.activations import CLASSES
from acon_torch.build import BuildContext
from acon_torch.checkpoint.layout import layout


def lazy(
    name: str,
    *,
    channel_axis: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **options: Any,
) -> Callable[..., nn.Module]:
    """Return a maker of activations that take their number of channels from their first input.

    It is for libraries that make the activations themselves, such as the `act_layer` of timm and
    the `activation_layer` of torchvision.

    Parameters
    ----------
    name : str
        Name of the activation, as for `activation`. It may carry options.
    channel_axis : int, optional
        Axis of the channels in the input. The default is 1, for inputs (N, C) and images
        (N, C, H, W). For inputs of rank 3 it must be given, since (N, C, L) and the tokens
        (N, L, C) cannot be told apart. Images with channels last, as in the MLPs of ConvNeXt, need
        -1.
    dtype : torch.dtype, optional
        Dtype of the parameters. The default is PyTorch's.
    device : torch.device or str, optional
        Device of the parameters. The default is PyTorch's.
    **options
        Options of the activation, such as ``level="pixel"``.

    Returns
    -------
    callable
        It takes `inplace`, which such libraries pass and which is ignored, and returns a new
        module. As `torch.nn.LazyConv2d`, the module becomes one of the public class in its first
        call or when a state dict is loaded. An optimizer may be made before that.

    Raises
    ------
    SpecError
        If the name, an option or a value does not exist; in the first call, if `channel_axis` is
        invalid for the input or must be given.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from acon_torch import lazy
    >>> act_layer = lazy("meta_acon", reduction=4)
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), act_layer(inplace=True))
    >>> _ = model(torch.zeros(2, 3, 16, 16))
    >>> type(model[1]).__name__, model[1].spec.channels
    ('MetaAconC', 8)
    """
    node = spec.activation(name, channel_axis=1 if channel_axis is None else channel_axis, **options)
    return partial(_make, node, channel_axis, dtype, device)


def _make(
    node: spec.Node,
    channel_axis: int | None,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
    *,
    inplace: bool = False,
) -> nn.Module:
    """Make one module of `lazy`; only those whose parameters depend on the width are lazy."""
    if isinstance(node, spec.ChannelwiseActivation) and not getattr(node, "shared", False):
        return LazyActivation(node, channel_axis, dtype, device)
    if type(node) in CLASSES:
        return _public(node, dtype, device)
    from acon_torch.backend import frontend

    made: nn.Module = frontend.make(node, dtype=dtype, device=device)
    return made


def _public(node: Any, dtype: torch.dtype | None, device: torch.device | str | None) -> nn.Module:
    """Return an instance of the public class of a spec."""
    values = {each.name: getattr(node, each.name) for each in fields(node)}
    made: nn.Module = CLASSES[type(node)](**values, dtype=dtype, device=device)
    return made


class LazyActivation(LazyModuleMixin, nn.Module):  # type: ignore[misc]
    """An activation before its first call.

    It has the parameters of the activation, uninitialised, under their names in the state dict.
    They stay the same objects, so that an optimizer that has them keeps them. It has no buffers
    yet, since PyTorch cannot copy uninitialised ones.
    """

    def __init__(
        self,
        node: spec.ChannelwiseActivation,
        channel_axis: int | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> None:
        super().__init__()
        self.spec = spec.bind(node, 1)  # says which parameters there are, and which decay
        self.lazy_axis = channel_axis
        like: nn.Module = CLASSES[type(node)](self.spec, BuildContext(dtype or torch.get_default_dtype()))
        for path, parameter in like.named_parameters():
            self._parameters[path] = UninitializedParameter(dtype=parameter.dtype, device=device)

    @property
    def cls_to_become(self) -> type[Any]:
        """The public class, which the mixin sets after the first call."""
        return CLASSES[type(self.spec)]  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        """Run the public class: PyTorch looks this method up before the class is set."""
        y: Tensor = type(self).forward(self, x)
        return y

    def initialize_parameters(self, x: Tensor) -> None:
        """Set the width from an input."""
        if not self.has_uninitialized_params():  # a state dict was loaded
            return
        axis, rank = self.lazy_axis, x.ndim
        name = type(self.spec).__name__
        if axis is None and rank == 3:
            raise SpecError(
                f"lazy {name}: an input of shape {tuple(x.shape)} may be (N, C, L) or tokens (N, L, C); "
                "pass channel_axis=1 or channel_axis=-1 to lazy(...)"
            )
        axis = 1 if axis is None else axis
        if not -rank < axis < rank:
            raise SpecError(f"lazy {name}: an input of shape {tuple(x.shape)} has no channel axis {axis}")
        self._become(x.shape[axis])

    def _become(self, width: int) -> None:
        """Fill the parameters as a new activation of this width does, and take over the rest."""
        own = self._parameters
        first = next(iter(own.values()))
        made = _public(spec.bind(self.spec, width), first.dtype, first.device)
        with torch.no_grad():
            for path, parameter in [*made.named_parameters()]:
                own[path].materialize(parameter.shape)
                own[path].copy_(parameter)
                holder, _, name = path.rpartition(".")
                made.get_submodule(holder)._parameters[name] = own[path]
        made.train(self.training)
        del self.lazy_axis
        hooks = set(vars(nn.Module())) - {"_parameters", "_buffers", "_modules"}
        vars(self).update({name: value for name, value in vars(made).items() if name not in hooks})

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        # A state dict of a module that had not been called either has nothing to load.
        if not all(is_lazy(state_dict.get(prefix + path)) for path in self._parameters):
            super()._load_from_state_dict(state_dict, prefix, *others)

    def _lazy_load_hook(self, state_dict: Any, prefix: str, *others: Any) -> None:
        """Set the width with which the tensors of a state dict fit, if there is one."""
        paths = layout.native_shapes(self.spec)
        shapes = {path: tuple(state_dict[prefix + path].shape) for path in paths if prefix + path in state_dict}
        widths = {size for shape in shapes.values() for size in shape} if self.has_uninitialized_params() else ()
        for width in sorted(widths):
            if shapes.items() <= layout.native_shapes(spec.bind(self.spec, width)).items():
                self._become(width)
                return

    def extra_repr(self) -> str:
        """Show the spec, whose width is open until the first call."""
        return str(replace(self.spec, channels=None))
