"""Random networks: layers, widths, groups, nesting and names drawn from a random source.

With Hypothesis's source (`st.randoms`), failing examples shrink. With `random.Random(seed)`, the
networks are plain samples.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import ml_dtypes
import numpy as np

from acon_core import spec
from acon_core.spec import Graph, Node, Param, Shape, graph, sequential

KERNELS = ((1, 1), (1, 3), (3, 1), (3, 5), (5, 3), (3, 3), (2, 3))
ACTIVATIONS = (
    *("relu", "swish", "prelu", "prelu(shared=false)", "arelu", "dyrelu(reduction=2)", "dyrelu(variant=B,reduction=3)"),
    *("frelu", "acon_a", "acon_b", "acon_c", "meta_acon(reduction=2)", "meta_acon(level=pixel,reduction=3)", "acon_frelu"),
    *("repact(variant=1)", "repact(variant=2)", "repact(variant=3)", "meta_acon(norm=none,reduction=2)", "acon_c(shared=true)"),
)
# Names with a meaning in a framework or format, which must not be layer names.
ODD = (
    "weight",
    "bias",
    "kernel",
    "scale",
    "mean",
    "0",
    "10",
    "module",
    "state_dict",
    "running_mean",
    "_mean",
    "W",
    "w",
    "été",
    "層",
)
INPUT = (2, 6, 10, 13)

Namer = Callable[[Random], str]


def any_name(random: Random) -> str:
    """Draw a word of letters, or one with a meaning elsewhere."""
    if random.random() < 0.3:
        return random.choice(ODD)
    return "".join(random.choice("abcdeyz_ABC019ßж") for _ in range(random.randint(1, 8)))


def plain_name(random: Random) -> str:
    """Draw a name that is a valid attribute in every framework and no attribute of its layers."""
    return "part_" + "".join(random.choice("abcdexyz019_") for _ in range(random.randint(1, 6)))


def network(random: Random, name: Namer) -> Graph:
    """Draw a network for images of shape INPUT: two to five pieces, nested up to three deep."""
    body, shape = _chain(random, name, INPUT, random.randint(2, 5), 2)
    kind = random.choice(("image", "vector", "tokens"))
    members: list[Node] = [body]
    if kind == "vector":
        members += [spec.GlobalAvgPool(), spec.Flatten(), spec.Linear(shape[1], random.randint(2, 7), random.random() < 0.7)]
    elif kind == "tokens":
        members.append(_tokens(random, name, shape))
    return sequential(**dict(zip(_names(random, name, len(members)), members, strict=True)))


def _names(random: Random, name: Namer, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[name(random) + ("" if len(found) < 20 and random.random() < 0.9 else str(len(found)))] = None
    return list(found)


def _chain(random: Random, name: Namer, shape: Shape, length: int, depth: int) -> tuple[Node, Shape]:
    members = []
    for _ in range(length):
        piece = random.choice(PIECES if depth else FLAT)(random, name, shape, depth)
        (shape,) = piece.out_shapes(shape)
        members.append(piece)
    return sequential(**dict(zip(_names(random, name, length), members, strict=True))), shape


# Each builds a piece that maps an image (N, C, H, W) to an image.


def _divisor(random: Random, *numbers: int) -> int:
    return random.choice([d for d in range(1, min(numbers) + 1) if not any(n % d for n in numbers)])


def _conv(random: Random, name: Namer, shape: Shape, depth: int) -> Node:
    channels, out = shape[1], random.choice((shape[1], 2 * shape[1], random.randint(2, 12)))
    kernel, dilation = random.choice(KERNELS), random.choice(((1, 1), (1, 1), (1, 2), (2, 1)))
    padding = (dilation[0] * (kernel[0] // 2), dilation[1] * (kernel[1] // 2))
    stride = random.choice(((1, 1), (1, 1), (2, 1), (1, 2))) if min(shape[2:]) > 4 else (1, 1)
    groups = random.choice((1, _divisor(random, channels, out), channels if out % channels == 0 else 1))
    return spec.Conv2d(channels, out, kernel, stride, padding, dilation, groups, random.random() < 0.5)


def _batch_norm(random: Random, name: Namer, shape: Shape, depth: int) -> Node:
    return spec.BatchNorm(shape[1], random.choice((1e-5, 1e-3)))


def _layer_norm(random: Random, name: Namer, shape: Shape, depth: int) -> Node:
    return spec.LayerNorm(shape[1])


def _linear(random: Random, name: Namer, shape: Shape, depth: int) -> Node:
    return spec.Linear(shape[1], random.choice((shape[1], random.randint(2, 9))), random.random() < 0.7)


def _activation(random: Random, name: Namer, shape: Shape, depth: int) -> Node:
    return spec.activation(random.choice(ACTIVATIONS), shape[1])


def _nested(random: Random, name: Namer, shape: Shape, depth: int) -> Node:
    return _chain(random, name, shape, random.randint(1, 3), depth - 1)[0]


def _residual(random: Random, name: Namer, shape: Shape, depth: int) -> Node:
    inner, made = _chain(random, name, shape, random.randint(1, 2), depth - 1)
    branch, back, add = _names(random, name, 3)
    if made != shape:  # its branch leads elsewhere: only a gate reads it
        pool = spec.GlobalAvgPool()
        gate = spec.Conv2d(made[1], shape[1], 1)
        program = [f"t = {branch}(x)", "m = pool(t)", f"g = {back}(m)", f"y = {add}(x, g)"]
        return _graph(program, {branch: inner, "pool": pool, back: gate, add: spec.ChannelScale()})
    return _graph([f"t = {branch}(x)", f"y = {add}(x, t)"], {branch: inner, add: spec.Add()})


def _graph(program: list[str], children: dict[str, Node]) -> Node:
    return graph("x", program, "y", children)


def _halves(random: Random, name: Namer, shape: Shape, depth: int) -> Node:
    if shape[1] % 2:
        return spec.Conv2d(shape[1], shape[1] + 1, 1)
    half = (shape[0], shape[1] // 2, *shape[2:])
    width = random.randint(2, 6)
    split, work, join, mix = _names(random, name, 4)
    children: dict[str, Node] = {
        join: spec.Concat(),  # defined before its inputs: the state follows the order of definition
        work: spec.Conv2d(half[1], width, (3, 1), 1, (1, 0)),
        split: spec.Split(2, random.random() < 0.5),
        mix: spec.ChannelShuffle(_divisor(random, half[1] + width)),
    }
    return _graph([f"a, b = {split}(x)", f"c = {work}(b)", f"d = {join}(c, a)", f"y = {mix}(d)"], children)


def _windows(random: Random, name: Namer, shape: Shape, depth: int) -> Node:
    heads, width, window = random.randint(1, 3), random.randint(1, 3), random.choice((2, 3))
    shift = random.randrange(window)
    index = spec.relative_position_index(window)
    params = {
        "table": Param(((2 * window - 1) ** 2, heads), spec.Normal(0.1)),
        "index": Param(index.shape, spec.Values(tuple(index.ravel().tolist())), kind="derived", dtype="int64"),
    }
    children = {
        "qkv": spec.Linear(shape[1], 3 * heads * width),
        "parted": spec.WindowPartition(window, shift),
        "attend": spec.WindowAttention(window, shift, heads),
        "merged": spec.WindowReverse(window, shift),
        "proj": spec.Linear(heads * width, random.randint(2, 8)),
    }
    program = ["a = qkv(x)", "b = parted(a)", "c = attend(b, table, x)", "d = merged(c, x)", "y = proj(d)"]
    return graph("x", program, "y", children, params)


def _tokens(random: Random, name: Namer, shape: Shape) -> Node:
    count, width, heads = shape[2] * shape[3] + 1, random.randint(1, 3), random.randint(1, 3)
    params = {
        "first": Param((1, 1, shape[1]), spec.Normal(0.5)),
        "places": Param((1, count, shape[1]), spec.Normal(0.5)),
    }
    children: dict[str, Node] = {
        "flat": spec.FlattenSpace(),
        "prepend": spec.PrependToken(),
        "position": spec.AddPosition(),
        "qkv": spec.Linear(shape[1], 3 * heads * width),
        "attend": spec.Attention(heads),
        "select": spec.SelectToken(0),
        "head": spec.Linear(heads * width, random.randint(2, 7)),
    }
    program = [
        *("t = flat(x)", "u = prepend(t, first)", "v = position(u, places)", "q = qkv(v)", "a = attend(q)"),
        *("s = select(a)", "y = head(s)"),
    ]
    return graph("x", program, "y", children, params)


FLAT = (_conv, _conv, _batch_norm, _layer_norm, _linear, _activation, _activation)
PIECES = (*FLAT, _nested, _residual, _residual, _halves, _windows)

FLOATS = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}


def any_state(node: Node, seed: int, dtypes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Draw a state of random bits, including NaN payloads, each tensor in one of the dtypes."""
    source = np.random.default_rng(seed)
    state = {}
    for path, param in spec.named_params(node).items():
        if param.kind == "derived":
            state[path] = spec.initial_state(node)[path]
            continue
        kind = np.dtype(np.int64) if param.integer else np.dtype(FLOATS[dtypes[int(source.integers(len(dtypes)))]])
        count = int(np.prod(param.shape, dtype=np.int64)) * kind.itemsize
        state[path] = source.integers(0, 256, count, dtype=np.uint8).view(kind).reshape(param.shape)
    return state


def trained_state(node: Node, seed: int) -> dict[str, np.ndarray]:
    """Draw a float32 state as after training: no two values equal, statistics far from 0 and 1."""
    source = np.random.default_rng(seed)
    state = spec.initial_state(node, seed)
    for path, param in spec.named_params(node).items():
        if param.kind == "statistic" and path.endswith("var"):
            state[path] = source.uniform(0.5, 2.0, param.shape).astype(np.float32)
        elif not param.integer:
            state[path] = state[path] + source.normal(0, 0.1, param.shape).astype(np.float32)
    return state
