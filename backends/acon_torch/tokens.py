"""The primitives of the vision transformers on PyTorch tensors.

Tokens are (N, C, L), images (N, C, H, W). Values that lie in memory with the channels last stay so,
without a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acon_core import spec
from acon_torch.tracing import is_traced, sizes


def image_size(x: Tensor, height: int, width: int) -> Tensor:
    """Return the image; `Function` has checked its size."""
    return x


def pad_to_multiple(x: Tensor, size: int) -> Tensor:
    """Pad (N, C, H, W) with zeros below and to the right, to the next multiple of `size` pixels."""
    below, right = -x.shape[2] % size, -x.shape[3] % size
    return F.pad(x, (0, right, 0, below)) if is_traced() or below or right else x


def flatten_space(x: Tensor) -> Tensor:
    """Reshape (N, C, H, W) -> (N, C, H W)."""
    return x.flatten(2)


def prepend_token(x: Tensor, token: Tensor) -> Tensor:
    """Prepend a token (1, 1, C) to tokens (N, C, L): (N, C, 1 + L)."""
    return torch.cat([token.to(x.dtype).expand(x.shape[0], -1, -1), x.mT], 1).mT


def add_position(x: Tensor, position: Tensor) -> Tensor:
    """Add positions (1, L, C) to tokens (N, C, L)."""
    return x + position.to(x.dtype).mT


def select_token(x: Tensor, index: int) -> Tensor:
    """Select one token: (N, C, L) -> (N, C)."""
    return x[:, :, index]


def space_to_depth(x: Tensor) -> Tensor:
    """Stack 2x2 squares: y[:, (2 j + i) C + c, h, w] = x[:, c, 2 h + i, 2 w + j].

    (N, C, H, W) -> (N, 4 C, H / 2, W / 2), rounded up.
    """
    squares = pad_to_multiple(x, 2).movedim(1, -1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    return squares.permute(0, 1, 3, 4, 2, 5).flatten(3).movedim(-1, 1)


def attention(qkv: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Compute self-attention, (N, 3 C, L) -> (N, C, L); channels are q, k, v, each head by head.

    `bias` (B, heads, L, L) is added before the softmax, to each B consecutive samples.
    """
    q, k, v = qkv.mT.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    # Scale q here: PyTorch may scale q and k by the square root each, which rounds twice more.
    width = sizes(q)[-1] if is_traced() else q.shape[-1]  # in a trace, the power of a size is a float32
    q = q * width**-0.5
    if bias is None:
        y = F.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(1, 2)
    else:
        # Merge B with the heads: the fused kernels take four axes and one bias for all samples.
        q, k, v = (each.unflatten(0, (-1, bias.shape[0])).flatten(1, 2) for each in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, bias.flatten(0, 1)[None], scale=1.0)
        y = y.unflatten(1, (-1, heads)).flatten(0, 1).transpose(1, 2)
        # With a trained bias, exporters assume the memory order of another kernel: copy to fix it.
        y = y.clone(memory_format=torch.contiguous_format)
    return y.flatten(2).mT


def _roll(rows: Tensor, shift: int) -> Tensor:
    """Roll (N, H, W, C) by `shift` pixels up and left."""
    # Not torch.roll: torch.compile cannot lower it for a dynamic height (2.13).
    for axis in (1, 2):
        first, rest = rows.tensor_split((shift,), axis)
        rows = torch.cat([rest, first], axis)
    return rows


def window_partition(x: Tensor, window: int, shift: int) -> Tensor:
    """Roll an image by -shift and cut it: (N, C, H, W) -> (N windows, C, window^2)."""
    rows = pad_to_multiple(x, window).movedim(1, -1)
    if shift:
        rows = _roll(rows, shift)
    tiles = rows.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return tiles.transpose(2, 3).flatten(3, 4).flatten(0, 2).mT


def window_reverse(windows: Tensor, image: Tensor, window: int, shift: int) -> Tensor:
    """Undo `window_partition`; `image` (N, any, H, W) gives the size of the result."""
    height, width = image.shape[2:]
    across = -(-width // window)
    tiles = windows.mT.unflatten(1, (window, window)).unflatten(0, (image.shape[0], -1, across))
    rows = tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2)
    if shift:
        rows = _roll(rows, -shift)
    return rows[:, :height, :width].movedim(-1, 1)


class WindowAttention(nn.Module):
    """Self-attention inside each window, with a relative position bias from a table."""

    index: Tensor
    mask: Tensor

    def __init__(self, node: spec.WindowAttention) -> None:
        super().__init__()
        self.spec = node
        index, mask = self._constants()
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("mask", mask, persistent=False)

    def _constants(self) -> tuple[Tensor, Tensor | None]:
        node = self.spec
        index = torch.from_numpy(spec.relative_position_index(node.window))
        # Of a 2x2 image: in any image, all windows of a row but the last are like the first.
        mask = spec.shifted_window_mask(node, (1, 1, 2 * node.window, 2 * node.window))
        return index, None if mask is None else torch.from_numpy(mask).unflatten(0, (2, 2))

    def reset_parameters(self) -> None:
        """Set the buffers again, which `to_empty` has emptied."""
        index, mask = self._constants()
        self.index.copy_(index)
        if mask is not None:
            self.mask.copy_(mask)

    def forward(self, windows: Tensor, table: Tensor, image: Tensor) -> Tensor:
        self.spec.out_shapes(sizes(windows), sizes(table), sizes(image))
        bias = table[self.index].permute(2, 0, 1)[None]
        if self.spec.shift:
            grid = self.spec.grid(image.shape)
            rows, columns = (torch.arange(1, count + 1, device=table.device) // count for count in grid)
            mask = self.mask[rows][:, columns].flatten(0, 1)
            bias = bias + mask[:, None].to(bias.dtype)
        return attention(windows, self.spec.heads, bias)

    def extra_repr(self) -> str:
        return str(self.spec)
