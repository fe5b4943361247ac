"""The options of a network that the shapes in a file decide, such as widths and depths."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from acon_core.networks import NETWORKS, Network
from acon_core.networks.mobilenet_v3 import HIDDEN
from acon_core.networks.resnet import BASIC, REPEATS, STEM
from acon_core.networks.swin import HEAD_WIDTH
from acon_core.spec.node import walk
from acon_core.spec.param import Shape
from acon_core.spec.tokens import Attention


class Tensors(Protocol):
    """What is known about a file, under the paths that a network with default options has."""

    def shape(self, path: str) -> Shape:
        """Return the shape in the spec's layout; () if the tensor is absent or of another rank."""

    def elements(self, path: str) -> int:
        """Return the number of elements in any layout; 0 if the tensor is absent."""

    def count(self, path: str, child: str) -> int:
        """Return how many of the children 0, 1, 2, ... of `path` have the tensor `child`."""


def resnet_sizes(file: Tensors, name: str) -> dict[str, Any]:
    """Stem, blocks per stage, and groups and width of the bottlenecks."""
    depth = int(name.rpartition("resnet")[2])
    first, second, third, fourth = (file.count(f"layer{stage}", "conv1.weight") for stage in range(1, 5))
    repeats = (first, second, third, fourth)
    found: dict[str, Any] = {"cifar_stem": file.shape("conv1.weight")[2:] == (3, 3)}
    kind = [each for each in REPEATS if (each in BASIC) == (depth in BASIC)]
    # Other depths have names of their own.
    if 0 not in repeats and repeats not in [REPEATS[each] for each in kind] and depth == kind[0]:
        found["repeats"] = repeats
    if depth not in BASIC:
        (width, *_) = file.shape("layer1.0.conv1.weight") or (0,)
        if width and file.elements("layer1.0.conv2.weight"):
            found["groups"] = max(9 * width * width // file.elements("layer1.0.conv2.weight"), 1)
            found["width_per_group"] = max(width // found["groups"] * 64 // STEM, 1)
    return found


def shufflenet_sizes(file: Tensors, name: str) -> dict[str, Any]:
    """Blocks per stage, and the five numbers of channels."""
    outputs = [2 * file.shape(f"stage{stage}.0.branch2.0.weight")[:1][0] for stage in (2, 3, 4)]
    stem, last = (file.shape(f"{path}.0.weight")[0] for path in ("conv1", "conv5"))
    repeats = tuple(file.count(f"stage{stage}", "branch2.0.weight") for stage in (2, 3, 4))
    found: dict[str, Any] = {"repeats": repeats}
    # Published channels have names of their own.
    published = [each for each in NETWORKS if each.startswith(name.rpartition("_x")[0])]
    channels = (stem, *outputs, last)
    if name == published[0] and channels not in [_shufflenet_channels(each) for each in published]:
        found["channels"] = channels
    return found


def _shufflenet_channels(name: str) -> tuple[int, ...]:
    children = NETWORKS[name]().graph.children
    stages = [children[f"stage{stage}"].children["0"].children["branch2"].children["0"] for stage in (2, 3, 4)]
    ends = [children[f"conv{place}"].children["0"] for place in (1, 5)]
    widths = [node.params["weight"].shape[0] for node in (*stages, *ends)]
    return (widths[3], *(2 * each for each in widths[:3]), widths[4])


def mobilenet_sizes(file: Tensors, name: str) -> dict[str, Any]:
    """Whether the tail is reduced."""
    return {"reduced_tail": 2 * file.shape("classifier.0.weight")[0] == HIDDEN[name.rpartition("_")[2]]}


def swin_sizes(file: Tensors, name: str) -> dict[str, Any]:
    """Patch, width, depths and heads, and the window, from the table of its relative positions."""
    embed_dim, _, patch_size, _ = file.shape("patch_embed.proj.weight")
    tables = [file.shape(f"layers.{stage}.blocks.0.attn.relative_position_bias_table") for stage in range(4)]
    heads = tuple(shape[1] for shape in tables)
    found = {
        "embed_dim": embed_dim,
        "patch_size": patch_size,
        "depths": tuple(file.count(f"layers.{stage}.blocks", "norm1.weight") for stage in range(4)),
        "window_size": (math.isqrt(tables[0][0]) + 1) // 2,
    }
    usual = tuple(embed_dim * 2**stage // HEAD_WIDTH for stage in range(4))
    return found if heads == usual else {**found, "num_heads": heads}


def vit_sizes(file: Tensors, name: str) -> dict[str, Any]:
    """Patch, width, depth and image size. The number of heads cannot be seen."""
    embed_dim, _, patch_size, _ = file.shape("patch_embed.proj.weight")
    side = math.isqrt(file.shape("pos_embed")[1] - 1)
    return {
        "embed_dim": embed_dim,
        "patch_size": patch_size,
        "depth": file.count("blocks", "norm1.weight"),
        "image_size": side * patch_size,
    }


_SIZES: dict[str, Callable[[Tensors, str], dict[str, Any]]] = {
    "acon/resnet": resnet_sizes,
    "torchvision/resnet": resnet_sizes,
    "repact/shufflenet": shufflenet_sizes,
    "torchvision/shufflenet": shufflenet_sizes,
    "repact/mobilenet": mobilenet_sizes,
    "torchvision/mobilenet": mobilenet_sizes,
    "repact/swin": swin_sizes,
    "timm/swin": swin_sizes,
    "repact/vit": vit_sizes,
    "timm/vit": vit_sizes,
}


def sizes_of(file: Tensors, network: Network) -> dict[str, Any]:
    """Return the options, other than the defaults, that the shapes in a file decide.

    Options that no network of this name has are left to the comparison of the shapes, which says
    what differs.
    """
    found: dict[str, Any] = {}
    if network.stem is not None:
        found["in_channels"] = (*file.shape(f"{network.stem[0]}.weight"), 3, 3)[1]
    infer = next((infer for prefix, infer in _SIZES.items() if network.name.startswith(prefix)), None)
    with suppress(IndexError, ValueError):  # a tensor that decides is absent, or has another rank
        found |= infer(file, network.name) if infer else {}
    defaults = {"in_channels": 3} | {
        name: parameter.default for name, parameter in inspect.signature(NETWORKS[network.name]).parameters.items()
    }
    return {name: value for name, value in found.items() if value != defaults[name]}


def unseen(network: Network) -> list[str]:
    """Return what the shapes in a file do not show about the sizes that were taken from them."""
    notes = []
    if "embed_dim" in network.options and "num_heads" not in network.options and "/vit" in network.name:
        heads = next(node.heads for _, node in walk(network.graph) if isinstance(node, Attention))
        notes.append(f"the tensors do not show the attention heads: taken as {heads}; pass num_heads if they are others")
    if network.options.get("cifar_stem"):
        notes.append("the tensors do not show the stride: a 3x3 stem is taken to have stride 1 and no pooling")
    return notes
