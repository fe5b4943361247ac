"""Follow the channel axis through a run: layers set it, other functions carry it on."""

from __future__ import annotations

from itertools import chain
from math import prod
from typing import Any

import torch
from torch import Tensor

_LAST = {"linear", "embedding", "layer_norm", "rms_norm", "scaled_dot_product_attention", "multi_head_attention_forward"}
_SPATIAL = {f"{kind}{n}d": n for kind in ("conv", "conv_transpose") for n in (1, 2, 3)}
_SECOND = {"batch_norm", "group_norm", "instance_norm"}
_PERMUTING = {"permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "transpose_", "t_"}
_MIXING = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "einsum", "addmm", "baddbmm", "tensordot"}
_SHAPED = (2, 3, 5, 7, 11, 13, 17, 19)
_NAME = "_acon_axis"


def axis_of(x: Tensor) -> int | str | None:
    """Return the channel axis of a tensor of the run, why it is contradictory, or None."""
    found: int | str | None = getattr(x, _NAME, None)
    return found


def note_axis(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
    """Note the channel axis of what a function returned."""
    for each in result if isinstance(result, list | tuple) else (result,):
        if isinstance(each, Tensor):
            axis = _axis(function, args, kwargs, each)
            if axis is not None or hasattr(each, _NAME):
                setattr(each, _NAME, axis)


def _axis(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor) -> int | str | None:
    name = getattr(function, "__name__", "")
    values = (*args, *kwargs.values())
    tensors = [each for each in chain(*(each if isinstance(each, list | tuple) else (each,) for each in values))
               if isinstance(each, Tensor)]  # fmt: skip
    if name in _SPATIAL:
        return y.ndim - 1 - _SPATIAL[name]
    if name in ("layer_norm", "rms_norm") and y.ndim > 1:
        # Over several axes, it says nothing of the channels.
        shape = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ())
        return y.ndim - 1 if len(shape) == 1 else _carried(tensors[:1], y)
    if name in _LAST and y.ndim:
        return y.ndim - 1
    if name in _SECOND and y.ndim > 1:
        return 1
    if name in _MIXING:
        weights = [each for each in tensors if each.ndim <= 2 and isinstance(each, torch.nn.Parameter)]
        return y.ndim - 1 if weights and y.ndim else None
    if name in _PERMUTING and tensors and isinstance(axis_of(tensors[0]), int):
        x = tensors[0]
        small = torch.empty(_SHAPED[: x.ndim], device="meta")
        moved = function(small, *args[1:], **{key: value for key, value in kwargs.items() if value is not x})
        return tuple(moved.shape).index(_SHAPED[axis_of(x)])  # type: ignore[index]
    return _carried(tensors, y)


def _carried(tensors: list[Tensor], y: Tensor) -> int | str | None:
    """Return the axis that the inputs agree on, at its place in the output."""
    tagged = [each for each in tensors if axis_of(each) is not None]
    found = {_moved(each, y) for each in tagged if each.ndim > 1 or y.ndim == 1} - {None}
    if len(found) > 1:
        text = next((each for each in found if isinstance(each, str)), None)
        return text or f"the layers before it have their channels at the axes {' and '.join(sorted(map(str, found)))}"
    return next(iter(found), None)


def _moved(x: Tensor, y: Tensor) -> int | str | None:
    axis = axis_of(x)
    if not isinstance(axis, int) or x.ndim == y.ndim:
        return axis
    channels = x.shape[axis]
    if x.numel() == y.numel():  # a reshape: what lies before the channels has the same size
        before = prod(x.shape[:axis])
        fitting = [at for at in range(y.ndim) if y.shape[at] == channels and prod(y.shape[:at]) == before]
        return fitting[0] if fitting else 1 if axis == 1 and y.ndim == 2 else None
    if axis == x.ndim - 1:
        return y.ndim - 1 if y.ndim and y.shape[-1] == channels else None
    return axis if axis < y.ndim and y.shape[axis] == channels else None
