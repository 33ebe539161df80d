"""The transformer of SAM's mask decoder: a few tokens and many image tokens attend to each other."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention with its own projections, optionally with a narrower inner width and class weights."""

    def __init__(self, *, embed_dim: int, num_heads: int, downsample_rate: int = 1) -> None:
        """
        Args:
            embed_dim: width of queries, keys and values.
            num_heads: number of heads; divides the inner width.
            downsample_rate: the inner width is `embed_dim` divided by this.
        """
        super().__init__()
        inner = embed_dim // downsample_rate
        if inner % num_heads:
            raise ValueError(f"{num_heads} heads do not divide the attention's inner width {inner}.")
        self.num_heads = num_heads
        self.q_proj = nn.Linear(embed_dim, inner)
        self.k_proj = nn.Linear(embed_dim, inner)
        self.v_proj = nn.Linear(embed_dim, inner)
        self.out_proj = nn.Linear(inner, embed_dim)

    def _split(self, tokens: Tensor, batch: int) -> Tensor:
        heads = tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        output: Tensor = heads.expand(batch, -1, -1, -1)
        return output

    def forward(self, q: Tensor, k: Tensor, v: Tensor, weights: Tensor | None = None) -> Tensor:
        """Attend from q [B or 1, n, C] to k and v [B or 1, m, C].

        Args:
            q: queries.
            k: keys.
            v: values.
            weights: [B, n, m], multiplied to the attention of all heads after the softmax, without renormalization (the
                learnable mask cross-attention of H-SAM, Cheng et al., CVPR 2024).

        Returns:
            [B, n, C].
        """
        batch = max(q.shape[0], k.shape[0])
        q = self._split(self.q_proj(q), batch)
        k = self._split(self.k_proj(k), batch)
        v = self._split(self.v_proj(v), batch)
        if weights is None:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            attention = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(dim=-1)
            out = (attention * weights[:, None]).to(v.dtype) @ v
        output: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return output


class TokenMlp(nn.Module):
    """Two linear layers with a ReLU between."""

    def __init__(self, *, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(embed_dim, hidden_dim)
        self.lin2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., embed_dim] to the same shape."""
        output: Tensor = self.lin2(F.relu(self.lin1(x)))
        return output


class TwoWayBlock(nn.Module):
    """One layer: token self-attention, token-to-image attention, MLP, image-to-token attention."""

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        mlp_dim: int,
        cross_first: bool,
        cross_downsample: int,
        is_first: bool,
        dropout: float = 0.0,
    ) -> None:
        """
        Args:
            embed_dim: width of all tokens.
            num_heads: heads of every attention.
            mlp_dim: hidden width of the MLP.
            cross_first: tokens attend to the image before attending to each other (H-SAM); otherwise after (SAM).
            cross_downsample: factor by which both cross attentions are narrower inside.
            is_first: the first layer's self-attention has neither residual nor positions, as in SAM.
            dropout: dropout on the token-to-image result in training.
        """
        super().__init__()
        self.cross_first = cross_first
        self.is_first = is_first
        self.self_attn = Attention(embed_dim=embed_dim, num_heads=num_heads)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.cross_attn_token_to_image = Attention(
            embed_dim=embed_dim, num_heads=num_heads, downsample_rate=cross_downsample
        )
        self.norm2 = nn.LayerNorm(embed_dim)
        self.mlp = TokenMlp(embed_dim=embed_dim, hidden_dim=mlp_dim)
        self.norm3 = nn.LayerNorm(embed_dim)
        self.cross_attn_image_to_token = Attention(
            embed_dim=embed_dim, num_heads=num_heads, downsample_rate=cross_downsample
        )
        self.norm4 = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def _attend_tokens(self, tokens: Tensor, token_pe: Tensor) -> Tensor:
        q = tokens + token_pe
        attended = self.self_attn(tokens, tokens, tokens) if self.is_first else tokens + self.self_attn(q, q, tokens)
        output: Tensor = self.norm1(attended)
        return output

    def _attend_image(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor, weights: Tensor | None
    ) -> Tensor:
        seen = self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image, weights)
        output: Tensor = self.norm2(tokens + self.dropout(seen))
        return output

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor, class_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens [B, n, C] and image tokens [B, N, C] to the same shapes; `class_weights` [B, n, N] or None."""
        if self.cross_first:
            tokens = self._attend_image(tokens, image, token_pe, image_pe, class_weights)
            tokens = self._attend_tokens(tokens, token_pe)
        else:
            tokens = self._attend_tokens(tokens, token_pe)
            tokens = self._attend_image(tokens, image, token_pe, image_pe, class_weights)
        tokens = self.norm3(tokens + self.mlp(tokens))
        weights = None if class_weights is None else class_weights.transpose(1, 2)
        seen = self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens, weights)
        return tokens, self.norm4(image + seen)


class TwoWayTransformer(nn.Module):
    """Two-way layers followed by a final token-to-image attention."""

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        mlp_dim: int = 2048,
        depth: int = 2,
        cross_first: bool = False,
        cross_downsample: int = 2,
        dropout: float = 0.0,
    ) -> None:
        """See `TwoWayBlock`; `depth` is the number of layers."""
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(
                embed_dim=embed_dim,
                num_heads=num_heads,
                mlp_dim=mlp_dim,
                cross_first=cross_first,
                cross_downsample=cross_downsample,
                is_first=index == 0,
                dropout=dropout,
            )
            for index in range(depth)
        )
        self.final_attn_token_to_image = Attention(embed_dim=embed_dim, num_heads=num_heads, downsample_rate=2)
        self.norm_final_attn = nn.LayerNorm(embed_dim)

    def forward(
        self, tokens: Tensor, image: Tensor, image_pe: Tensor, class_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the transformer.

        Args:
            tokens: [B or 1, n, C]; also used as their own positions.
            image: image tokens [B, N, C].
            image_pe: positions of the image tokens [1, N, C].
            class_weights: [B, n, N], weights of the layers' cross attentions, or None.

        Returns:
            tokens [B, n, C] and image tokens [B, N, C].
        """
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe, class_weights)
        seen = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + seen), image
