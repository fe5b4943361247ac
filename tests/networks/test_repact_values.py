"""Outputs of the RepAct code's networks against a second, direct implementation.

It computes channels last, one window and one head at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from acon_core import spec
from acon_core.networks import create, swin_tiny, vit_base
from acon_core.reference import forward

Array = np.ndarray
State = Mapping[str, Array]


def norm(x: Array, state: State, path: str, eps: float) -> Array:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * state[f"{path}.weight"] + state[
        f"{path}.bias"
    ]


def linear(x: Array, state: State, path: str) -> Array:
    return x @ state[f"{path}.weight"].T + state.get(f"{path}.bias", 0.0)


def patches(x: Array, state: State, path: str, size: int) -> Array:
    """Embed the patches of (N, 3, H, W) as (N, H / size, W / size, C)."""
    n, _, height, width = x.shape
    cut = x.reshape(n, 3, height // size, size, width // size, size).transpose(0, 2, 4, 1, 3, 5)
    weight = state[f"{path}.weight"]
    return cut.reshape(*cut.shape[:3], -1) @ weight.reshape(len(weight), -1).T + state[f"{path}.bias"]


def mlp(x: Array, state: State, path: str) -> Array:
    hidden = linear(x, state, f"{path}.fc1")
    hidden = np.maximum(hidden, 0) + state[f"{path}.act.weight"] * np.minimum(hidden, 0)
    return linear(hidden, state, f"{path}.fc2")


def attention(tokens: Array, state: State, path: str, heads: int, bias: Array | float = 0.0) -> Array:
    """Compute attention of tokens (L, C), with a bias of shape (heads, L, L); return (L, C)."""
    width = tokens.shape[1] // heads
    q, k, v = np.split(linear(tokens, state, f"{path}.qkv"), 3, -1)
    parts = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        logits = q[:, part] @ k[:, part].T / math.sqrt(width) + (bias if isinstance(bias, float) else bias[head])
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        parts.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
    return linear(np.concatenate(parts, -1), state, f"{path}.proj")


def vit(x: Array, state: State, depth: int) -> Array:
    tokens = patches(x, state, "patch_embed.proj", 16)
    tokens = tokens.reshape(len(x), -1, tokens.shape[-1])
    tokens = np.concatenate([np.tile(state["cls_token"], (len(x), 1, 1)), tokens], 1) + state["pos_embed"]
    for block in (f"blocks.{i}" for i in range(depth)):
        normed = norm(tokens, state, f"{block}.norm1", 1e-6)
        tokens = tokens + np.stack([attention(each, state, f"{block}.attn", 12) for each in normed])
        tokens = tokens + mlp(norm(tokens, state, f"{block}.norm2", 1e-6), state, f"{block}.mlp")
    return linear(norm(tokens, state, "norm", 1e-6)[:, 0], state, "head")


def window_attention(image: Array, state: State, path: str, heads: int, shift: int) -> Array:
    """Compute shifted-window attention of an image (H, W, C), pixel by pixel.

    Each pixel finds the tokens of its window by walking over the image, without wrapping around.
    """
    height, width, channels = image.shape
    down, across = -(-height // 7) * 7, -(-width // 7) * 7
    padded = np.zeros((down, across, channels))
    padded[:height, :width] = image
    table = state[f"{path}.relative_position_bias_table"]
    y = np.zeros_like(padded)
    for top in range(0, down, 7):
        for left in range(0, across, 7):
            places = [(top + i, left + j) for i in range(7) for j in range(7)]
            source = [((r + shift) % down, (c + shift) % across) for r, c in places]
            # Two tokens attend to each other if both or neither were shifted across the same edge.
            over = [(r + shift >= down, c + shift >= across) for r, c in places]
            bias = np.array(
                [
                    [
                        table[(a[0] - b[0] + 6) * 13 + a[1] - b[1] + 6] - 100.0 * (over[i] != over[j])
                        for j, b in enumerate(places)
                    ]
                    for i, a in enumerate(places)
                ]
            ).transpose(2, 0, 1)
            made = attention(np.array([padded[place] for place in source]), state, f"{path}.attn", heads, bias)
            for place, value in zip(source, made, strict=True):
                y[place] = value
    return y[:height, :width]


def swin(x: Array, state: State, depths: tuple[int, ...]) -> Array:
    height, width = x.shape[2:]
    x = np.pad(x, ((0, 0), (0, 0), (0, -height % 4), (0, -width % 4)))
    images = norm(patches(x, state, "patch_embed.proj", 4), state, "patch_embed.norm", 1e-5)
    for stage, depth in enumerate(depths):
        for place in range(depth):
            block = f"layers.{stage}.blocks.{place}"
            normed = norm(images, state, f"{block}.norm1", 1e-5)
            shared = {key.replace(".attn.relative", ".relative"): value for key, value in state.items()}
            heads, shift = 3 * 2**stage, 3 * (place % 2)
            images = images + np.stack([window_attention(each, shared, block, heads, shift) for each in normed])
            images = images + mlp(norm(images, state, f"{block}.norm2", 1e-5), state, f"{block}.mlp")
        if stage < 3:
            even = np.pad(images, ((0, 0), (0, images.shape[1] % 2), (0, images.shape[2] % 2), (0, 0)))
            merged = np.concatenate([even[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
            path = f"layers.{stage}.downsample"
            images = linear(norm(merged, state, f"{path}.norm", 1e-5), state, f"{path}.reduction")
    return linear(norm(images, state, "norm", 1e-5).mean((1, 2)), state, "head")


def random_state(graph: spec.Node) -> dict[str, Array]:
    """Draw values that differ from all initial values and keep activations near 1."""
    random = np.random.default_rng(11)
    state = {}
    for path, param in spec.named_params(graph).items():
        size = math.prod(param.shape[1:]) if len(param.shape) > 1 and path.endswith("weight") else 1
        state[path] = random.uniform(-1, 1, param.shape) * math.sqrt(3 / size) / 2
        if path.endswith("running_var") or (len(param.shape) == 1 and path.endswith("weight")):
            state[path] = np.abs(state[path]) + 0.5
    return state


def test_vit_outputs() -> None:
    graph = vit_base("prelu", 5, image_size=48, depth=2).graph
    state = random_state(graph)
    x = np.random.default_rng(2).uniform(-1, 1, (2, 3, 48, 48))
    np.testing.assert_allclose(forward(graph, state, [x]).values[0], vit(x, state, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(48, 64), (46, 64), (30, 61)])
def test_swin_outputs(size: tuple[int, int]) -> None:
    """Includes a size with one side divisible by 4, which the published code pads by a patch."""
    depths = (2, 1, 1, 1)
    graph = swin_tiny("prelu", 5, depths).graph
    state = random_state(graph)
    x = np.random.default_rng(2).uniform(-1, 1, (2, 3, *size))
    np.testing.assert_allclose(forward(graph, state, [x]).values[0], swin(x, state, depths), rtol=0, atol=1e-12)


def batch_norm(x: Array, state: State, path: str, eps: float) -> Array:
    weight, bias, mean, variance = (
        state[f"{path}.{name}"].reshape(-1, 1, 1) for name in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


def convolution(x: Array, state: State, path: str, stride: int = 1) -> Array:
    """Convolve with same padding; depthwise if the weight has one input channel."""
    weight = state[f"{path}.weight"]
    reach = weight.shape[2] // 2
    x = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    view = sliding_window_view(x, weight.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    depthwise = weight.shape[1] == 1 and x.shape[1] > 1
    y = np.einsum("nchwij,cij->nchw", view, weight[:, 0]) if depthwise else np.einsum("nchwij,ocij->nohw", view, weight)
    return y + (state[f"{path}.bias"].reshape(-1, 1, 1) if f"{path}.bias" in state else 0.0)


def prelu(x: Array, state: State, path: str) -> Array:
    return np.maximum(x, 0) + state[f"{path}.weight"] * np.minimum(x, 0)


def mobile_convolution(x: Array, state: State, path: str, stride: int = 1, act: bool = True) -> Array:
    y = batch_norm(convolution(x, state, f"{path}.0", stride), state, f"{path}.1", 1e-3)
    return prelu(y, state, f"{path}.2") if act else y


def mobilenet(x: Array, state: State, strides: list[int]) -> Array:
    x = mobile_convolution(x, state, "features.0", 2)
    for index, stride in enumerate(strides):
        y, path = x, f"features.{index + 1}.block"
        count = 1 + max(int(name.split(".")[3]) for name in state if name.startswith(f"{path}."))
        for place in range(count):
            inner = f"{path}.{place}"
            if f"{inner}.fc1.weight" in state:
                mean = y.mean((2, 3), keepdims=True)
                factor = convolution(np.maximum(convolution(mean, state, f"{inner}.fc1"), 0), state, f"{inner}.fc2")
                y = y * np.clip(factor / 6 + 0.5, 0, 1)
            else:
                depthwise = state[f"{inner}.0.weight"].shape[1] == 1
                y = mobile_convolution(y, state, inner, stride if depthwise else 1, act=place < count - 1)
        x = x + y if stride == 1 and x.shape == y.shape else y
    x = mobile_convolution(x, state, f"features.{len(strides) + 1}").mean((2, 3))
    hidden = linear(x, state, "classifier.0")
    return linear(hidden * np.clip(hidden / 6 + 0.5, 0, 1), state, "classifier.3")


@pytest.mark.parametrize(
    ("size", "strides"),
    [("small", [2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1]), ("large", [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1])],
)
def test_mobilenet_outputs(size: str, strides: list[int]) -> None:
    graph = create(f"repact/mobilenet_v3_{size}", "prelu", 5).graph
    state = random_state(graph)
    x = np.random.default_rng(2).uniform(-1, 1, (2, 3, 47, 66))
    found = forward(graph, state, [x]).values[0]
    np.testing.assert_allclose(found, mobilenet(x, state, strides), rtol=0, atol=1e-12 * np.abs(found).max())


def shuffle_branch(x: Array, state: State, path: str, stride: int, kinds: str) -> Array:
    """Compute one branch.

    `kinds`: p pointwise and d depthwise, each with its norm; a activation.
    """
    place = 0
    for kind in kinds:
        if kind == "a":
            x, place = prelu(x, state, f"{path}.{place}"), place + 1
        else:
            x = convolution(x, state, f"{path}.{place}", stride if kind == "d" else 1)
            x, place = batch_norm(x, state, f"{path}.{place + 1}", 1e-5), place + 2
    return x


def shufflenet(x: Array, state: State) -> Array:
    x = prelu(batch_norm(convolution(x, state, "conv1.0", 2), state, "conv1.1", 1e-5), state, "conv1.2")
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    x = sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2].max((4, 5))
    for stage, count in ((2, 4), (3, 8), (4, 4)):
        for place in range(count):
            path, half = f"stage{stage}.{place}", x.shape[1] // 2
            if place == 0:
                left = shuffle_branch(x, state, f"{path}.branch1", 2, "dpa")
                right = shuffle_branch(x, state, f"{path}.branch2", 2, "padpa")
            else:
                left, right = x[:, :half], shuffle_branch(x[:, half:], state, f"{path}.branch2", 1, "padpa")
            x = np.stack([left, right], 2).reshape(len(x), -1, *left.shape[2:])
    x = prelu(batch_norm(convolution(x, state, "conv5.0"), state, "conv5.1", 1e-5), state, "conv5.2")
    return linear(x.mean((2, 3)), state, "fc")


@pytest.mark.parametrize("width", ["0_5", "1_0"])
def test_shufflenet_outputs(width: str) -> None:
    graph = create(f"repact/shufflenet_v2_x{width}", "prelu", 5).graph
    state = random_state(graph)
    x = np.random.default_rng(2).uniform(-1, 1, (2, 3, 47, 66))
    found = forward(graph, state, [x]).values[0]
    np.testing.assert_allclose(found, shufflenet(x, state), rtol=0, atol=1e-12 * np.abs(found).max())
