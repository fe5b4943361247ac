"""What the leaves of the vision transformers compute.

Values are (N, C, L) and (N, C, H, W); what lies in memory with the channels last stays so, and costs no copy on its way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acon_core import spec


def image_size(x: Tensor, height: int, width: int) -> Tensor:
    """The image, whose size is its module's to check. (N, C, height, width) -> the same."""
    return x


def pad_to_multiple(x: Tensor, size: int) -> Tensor:
    """Zeros below and to the right, up to the next multiple of `size` pixels. (N, C, H, W) -> (N, C, H', W')."""
    below, right = -x.shape[2] % size, -x.shape[3] % size
    return F.pad(x, (0, right, 0, below)) if below or right else x


def flatten_space(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H W)."""
    return x.flatten(2)


def prepend_token(x: Tensor, token: Tensor) -> Tensor:
    """Tokens (N, C, L) and the first (1, 1, C) -> (N, C, 1 + L)."""
    return torch.cat([token.to(x.dtype).expand(x.shape[0], -1, -1), x.mT], 1).mT


def add_position(x: Tensor, position: Tensor) -> Tensor:
    """Tokens (N, C, L) and positions (1, L, C) -> (N, C, L)."""
    return x + position.to(x.dtype).mT


def select_token(x: Tensor, index: int) -> Tensor:
    """(N, C, L) -> (N, C)."""
    return x[:, :, index]


def space_to_channels(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 4 C, H / 2, W / 2), rounded up: y[:, (2 j + i) C + c, h, w] = x[:, c, 2 h + i, 2 w + j]."""
    squares = pad_to_multiple(x, 2).movedim(1, -1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    return squares.permute(0, 1, 3, 4, 2, 5).flatten(3).movedim(-1, 1)


def attention(qkv: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Self-attention, in each of `heads` heads; `bias` (B, heads, L, L) is added before the softmax, for B samples in turn.

    (N, 3 C, L) -> (N, C, L), the channels of the input being q, k, v in turn, each head by head.
    """
    q, k, v = qkv.mT.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    # Scaled here: PyTorch may multiply both q and k by the root of it, which rounds large logits twice more.
    q = q * q.shape[-1] ** -0.5
    if bias is None:
        y = F.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(1, 2)
    else:
        # The B samples as so many times the heads: the bias is one for all, and the fused kernels take four axes.
        q, k, v = (each.unflatten(0, (-1, len(bias))).flatten(1, 2) for each in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, bias.flatten(0, 1)[None], scale=1.0)
        y = y.unflatten(1, (-1, heads)).flatten(0, 1).transpose(1, 2)
        # Exporters take the order in memory of one kernel for that of another, where a bias is trained: the copy settles it.
        y = y.clone(memory_format=torch.contiguous_format)
    return y.flatten(2).mT


def _rolled(rows: Tensor, shift: int) -> Tensor:
    """(N, H, W, C) moved by `shift` pixels up and left, around the edges."""
    # Not torch.roll, which torch.compile cannot lower where the height may vary (2.13).
    for axis in (1, 2):
        first, rest = rows.tensor_split((shift,), axis)
        rows = torch.cat([rest, first], axis)
    return rows


def window_partition(x: Tensor, window: int, shift: int) -> Tensor:
    """An image (N, C, H, W), moved by `shift` pixels up and left, in windows of tokens (N windows, C, window^2)."""
    rows = pad_to_multiple(x, window).movedim(1, -1)
    if shift:
        rows = _rolled(rows, shift)
    tiles = rows.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return tiles.transpose(2, 3).flatten(3, 4).flatten(0, 2).mT


def window_merge(windows: Tensor, image: Tensor, window: int, shift: int) -> Tensor:
    """Windows (N windows, C, window^2) as the image (N, C, H, W) that `window_partition` took apart; `image` has its size."""
    height, width = image.shape[2:]
    across = -(-width // window)
    tiles = windows.mT.unflatten(1, (window, window)).unflatten(0, (image.shape[0], -1, across))
    rows = tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2)
    if shift:
        rows = _rolled(rows, -shift)
    return rows[:, :height, :width].movedim(-1, 1)


class WindowAttention(nn.Module):
    """Attention inside of each window, with the table's bias for the way from one token to the other."""

    index: Tensor
    apart: Tensor

    def __init__(self, node: spec.WindowAttention) -> None:
        super().__init__()
        self.spec = node
        self.register_buffer("index", torch.from_numpy(spec.relative_position_index(node.window)), persistent=False)
        # The four windows of an image of two by two: in any image, all but the last of a column or row are like the first.
        apart = spec.shifted_window_mask(node, (1, 1, 2 * node.window, 2 * node.window))
        kinds = None if apart is None else torch.from_numpy(apart).unflatten(0, (2, 2))
        self.register_buffer("shifted_window_mask", kinds, persistent=False)

    def forward(self, windows: Tensor, table: Tensor, image: Tensor) -> Tensor:
        self.spec.out_shapes(windows.shape, table.shape, image.shape)
        bias = table[self.index].permute(2, 0, 1)[None]
        if self.spec.shift:
            grid = self.spec.grid(image.shape)
            rows, columns = (torch.arange(1, count + 1, device=table.device) // count for count in grid)
            apart = self.apart[rows][:, columns].flatten(0, 1)
            bias = bias + apart[:, None].to(bias.dtype)
        return attention(windows, self.spec.heads, bias)

    def extra_repr(self) -> str:
        return str(self.spec)
