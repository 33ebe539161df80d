"""Self-attention over a token grid with SAM's decomposed relative positions, exact and in bounded memory.

For a query at (i, j) and a key at (u, v) the logit is ``q.k / sqrt(d) + q.Rh[i - u] + q.Rw[j - v]`` (Li et al.,
"MViTv2", CVPR 2022; Kirillov et al., "Segment Anything", ICCV 2023). Two observations avoid most of the work of a plain
implementation without changing the result:

* the position term is the sum of one number per (query, key row) and one per (query, key column), so the bias between
  token pairs is built only for the queries being attended;
* SAM pads windows with tokens that are zero before the `qkv` projection. Their keys and values all equal the
  projection's bias and differ in position only, so those of a padded column together weigh as much as one key whose
  column term is the logsumexp of theirs. One extra row and one extra column of keys stand for all padding, and no query
  is computed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from HSAMSegmentLib.models.encoders.sam_layers import cut, put, tiles

_CACHED_LOGITS = 2**20
"""Logits attended at once on a CPU: 4 MiB in float32, to fit in the cache."""

_MANY_KEYS = 512
"""With fewer keys than this (windows), the fused CPU kernel beats explicit products in float32."""

_HELD_LOGITS = 2**26
"""Logits attended at once on other devices without CUDA's kernels, which materialize them: 256 MiB in float32."""

_KEPT_LOGITS = 2**25
"""With more logits than this (128 MiB in float32), the backward pass recomputes them instead of storing them."""


class GridAttention(nn.Module):
    """Multi-head self-attention over tokens [B, rows, columns, dim], over the whole grid or inside windows.

    Args:
        dim: width of a token.
        num_heads: heads; each has dim / num_heads channels.
        grid_side: side n of the attended square: the window, or the whole grid. The relative position tables
            `rel_pos_h` and `rel_pos_w` have the shape [2n - 1, dim / num_heads].
        windowed: whether larger grids are cut into windows of side n from the top left, the last ones padded with zero
            tokens, as in SAM. Otherwise the grid must have n x n tokens.
    """

    def __init__(self, *, dim: int, num_heads: int, grid_side: int, windowed: bool) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide the width {dim}.")
        self.num_heads = num_heads
        self.grid_side = grid_side
        self.windowed = windowed
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid_side - 1, dim // num_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid_side - 1, dim // num_heads))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, rows, columns, dim] to tokens of the same shape."""
        batch, rows, columns, dim = x.shape
        if not self.windowed and (rows, columns) != (self.grid_side, self.grid_side):
            raise ValueError(f"The attention spans {self.grid_side} x {self.grid_side} tokens, not {rows} x {columns}.")
        qkv = self.qkv(x).view(batch, rows, columns, 3, self.num_heads, -1)
        joined = qkv.new_empty(batch, rows, columns, self.num_heads, dim // self.num_heads)
        for tile in tiles(rows, columns, self.grid_side):
            logits_per_head = batch * tile.rows.count * tile.columns.count * tile.area**2
            for heads in self._head_chunks(logits_per_head, qkv):
                q, k, v = (cut(part[..., heads, :], tile).flatten(0, 2) for part in qkv.unbind(3))
                if torch.is_grad_enabled() and not qkv.is_cuda and logits_per_head * self.num_heads > _KEPT_LOGITS:
                    attended = checkpoint(self._attend, q, k, v, heads, use_reentrant=False)
                else:
                    attended = self._attend(q, k, v, heads)
                put(joined[..., heads, :], tile, attended)
        output: Tensor = self.proj(joined.flatten(3))
        return output

    def _head_chunks(self, logits_per_head: int, qkv: Tensor) -> Iterator[slice]:
        """Split the heads so that the logits stay within the budget; all heads at once on CUDA."""
        step = self.num_heads if qkv.is_cuda else min(self.num_heads, max(1, _budget(qkv) // logits_per_head))
        for head in range(0, self.num_heads, step):
            yield slice(head, head + step)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, heads: slice) -> Tensor:
        """Queries, keys and values [windows, heads, rows, columns, d] to [windows, heads, rows * columns, d]."""
        rows, columns = q.shape[2:4]
        row_terms = torch.einsum("whrcd,rkd->whrck", q, self._table(self.rel_pos_h, rows).to(q.dtype))
        column_terms = torch.einsum("whrcd,ckd->whrck", q, self._table(self.rel_pos_w, columns).to(q.dtype))
        if rows < self.grid_side or columns < self.grid_side:
            _, key_bias, value_bias = self.qkv.bias.to(q.dtype).view(3, self.num_heads, -1)[:, heads]
            k, v = self._with_padding(k, key_bias), self._with_padding(v, value_bias)
        return biased_attention(
            q.flatten(2, 3),
            k.flatten(2, 3),
            v.flatten(2, 3),
            merge_padding(row_terms, rows).flatten(2, 3),
            merge_padding(column_terms, columns).flatten(2, 3),
        )

    def _table(self, rel_pos: Tensor, queries: int) -> Tensor:
        """Relative positions [queries, n, d] between the first queries of an axis and all of its n keys."""
        side = self.grid_side
        positions = torch.arange(side, device=rel_pos.device)
        return rel_pos[positions[:queries, None] - positions[None, :] + side - 1]

    def _with_padding(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """Append to keys or values the row and the column that stand for all padding; both equal the bias."""
        windows, heads, rows, columns, channels = tokens.shape
        shape = (windows, heads, _with_extra(rows, self.grid_side), _with_extra(columns, self.grid_side), channels)
        padded = bias[None, :, None, None, :].expand(shape).clone()
        padded[:, :, :rows, :columns] = tokens
        return padded


def merge_padding(terms: Tensor, real: int) -> Tensor:
    """Merge the position terms of padded keys into one: [..., n] to [..., real + 1], or unchanged if all are real.

    Keys that differ only in their position term act in the softmax like one key whose term is the logsumexp of theirs.
    """
    if real == terms.shape[-1]:
        return terms
    precise = torch.promote_types(terms.dtype, torch.float32)
    merged = torch.logsumexp(terms[..., real:].to(precise), dim=-1, keepdim=True)
    return torch.cat([terms[..., :real], merged.to(terms.dtype)], dim=-1)


def biased_attention(q: Tensor, k: Tensor, v: Tensor, row_terms: Tensor, column_terms: Tensor) -> Tensor:
    """Scaled dot-product attention over a grid of keys, with one bias per key row and one per key column.

    Args:
        q: queries [windows, heads, Q, d].
        k: keys [windows, heads, rows * columns, d].
        v: values of the same shape.
        row_terms: [windows, heads, Q, rows], added to the logits of all keys of a row.
        column_terms: [windows, heads, Q, columns], added to the logits of all keys of a column.

    Returns:
        [windows, heads, Q, d].
    """
    if q.is_cuda:
        return _widened_attention(q, k, v, row_terms, column_terms)
    attend: Callable[..., Tensor] = _summed_attention
    if q.device.type == "cpu" and not torch.is_grad_enabled() and (q.itemsize < 4 or k.shape[2] >= _MANY_KEYS):
        attend = _explicit_attention
        k = (k * k.shape[-1] ** -0.5).transpose(2, 3).contiguous()
    windows, heads, queries, _ = q.shape
    logits = windows * heads * queries * v.shape[2]
    if logits <= _budget(q):
        return attend(q, k, v, row_terms, column_terms)
    output = torch.empty_like(q)
    for part in _chunks(q.shape, v.shape[2], _budget(q)):
        output[part] = attend(q[part], k[part[0]], v[part[0]], row_terms[part], column_terms[part])
    return output


def _chunks(query_shape: torch.Size, keys: int, budget: int) -> Iterator[tuple[slice, slice, slice]]:
    """Split the queries into parts (windows, all heads, queries) whose logits stay within the budget."""
    windows, heads, queries, _ = query_shape
    per_query = heads * keys
    query_step = max(1, min(queries, budget // per_query))
    window_step = max(1, budget // (per_query * query_step))
    for window in range(0, windows, window_step):
        for query in range(0, queries, query_step):
            yield slice(window, window + window_step), slice(None), slice(query, query + query_step)


def _summed_attention(q: Tensor, k: Tensor, v: Tensor, row_terms: Tensor, column_terms: Tensor) -> Tensor:
    """Build the bias of these queries and call the fused kernel."""
    bias = row_terms[..., :, None] + column_terms[..., None, :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.flatten(-2))


def _explicit_attention(q: Tensor, keys: Tensor, v: Tensor, row_terms: Tensor, column_terms: Tensor) -> Tensor:
    """Two products and a softmax in float32; `keys` are scaled and transposed, [windows, heads, d, rows * columns].

    The fused CPU kernel multiplies in small blocks, in bfloat16 hardly faster than in float32; whole products over a
    cache-sized part of the queries run as fast as linear layers.
    """
    logits = (q @ keys).float().unflatten(-1, (row_terms.shape[-1], column_terms.shape[-1]))
    logits += row_terms[..., :, None]
    logits += column_terms[..., None, :]
    output: Tensor = logits.flatten(-2).softmax(dim=-1).to(v.dtype) @ v
    return output


def _widened_attention(q: Tensor, k: Tensor, v: Tensor, row_terms: Tensor, column_terms: Tensor) -> Tensor:
    """Let a fused kernel add the bias: queries carry the terms, keys a one for their row and one for their column."""
    rows, columns = row_terms.shape[-1], column_terms.shape[-1]
    scale = q.shape[-1] ** -0.5
    row_of_key = torch.eye(rows, dtype=q.dtype, device=q.device).repeat_interleave(columns, dim=0)
    column_of_key = torch.eye(columns, dtype=q.dtype, device=q.device).repeat(rows, 1)
    place = torch.cat([row_of_key, column_of_key], dim=-1).expand(*k.shape[:2], -1, -1)
    wide_q = torch.cat([q * scale, row_terms, column_terms], dim=-1)
    wide_k = torch.cat([k, place], dim=-1)
    # The memory-efficient kernels need widths divisible by 8; zero padding changes no product.
    fill = -wide_q.shape[-1] % 8
    return F.scaled_dot_product_attention(F.pad(wide_q, (0, fill)), F.pad(wide_k, (0, fill)), v, scale=1.0)


def _budget(tokens: Tensor) -> int:
    return _CACHED_LOGITS if tokens.device.type == "cpu" else _HELD_LOGITS


def _with_extra(real: int, side: int) -> int:
    return real if real == side else real + 1
