"""The function name of each primitive without parameters, the same in every backend."""

from __future__ import annotations

from acon_core.spec import gated, primitives, rearrange, tokens
from acon_core.spec.activations import ACTIVATIONS
from acon_core.spec.node import Node
from acon_core.spec.pointwise import Elementwise

__all__ = ["PARAMETERLESS"]

PARAMETERLESS: dict[type[Node], str] = {
    primitives.MaxPool2d: "max_pool2d",
    primitives.GlobalAvgPool: "global_avg_pool",
    rearrange.ReduceSample: "reduce_sample",
    rearrange.Flatten: "flatten",
    rearrange.Add: "add",
    rearrange.ChannelScale: "channel_scale",
    rearrange.Concat: "concat",
    rearrange.Split: "split",
    rearrange.ChannelShuffle: "channel_shuffle",
    rearrange.MoveAxis: "move_axis",
    rearrange.FlattenToOneChannel: "flatten_to_one_channel",
    rearrange.ReshapeLike: "reshape_like",
    tokens.ImageSize: "image_size",
    tokens.PadToMultiple: "pad_to_multiple",
    tokens.FlattenSpace: "flatten_space",
    tokens.PrependToken: "prepend_token",
    tokens.AddPosition: "add_position",
    tokens.SelectToken: "select_token",
    tokens.SpaceToDepth: "space_to_depth",
    tokens.Attention: "attention",
    tokens.WindowPartition: "window_partition",
    tokens.WindowAttention: "window_attention",
    tokens.WindowReverse: "window_reverse",
    gated.SmoothMaximum: "smooth_maximum",
    gated.Maximum: "maximum",
    gated.PReLUFunction: "prelu",
    gated.AReLUFunction: "arelu",
    gated.RepActCoefficients: "repact_coefficients",
    gated.DynamicMaximum: "dynamic_maximum",
    **{kind: name for name, kind in ACTIVATIONS.items() if issubclass(kind, Elementwise)},
}
"""Primitives that hold no parameters and draw no random numbers, by the name of their function.

A backend calls the function with the values and with the node's fields as keywords. It registers a
rule of its own for a type where the framework has a module that serves better. `Acon` and
`RepActFunction` are not here: their fields decide which values they take (functions `acon` and
`repact`).
"""
