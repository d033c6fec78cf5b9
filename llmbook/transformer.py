"""The Transformer's block, and the encoder that is made of it.

    a = x + MultiHead(LN(x))       y = a + FFN(LN(a))          pre-norm  (Xiong et al., 2020, figure 1b)
    a = LN(x + MultiHead(x))       y = LN(a + FFN(a))          post-norm (Vaswani et al., 2017, section 3.1)

One :class:`Block` serves all: with a mask that hides the future it is a GPT's, with a second attention that reads an
encoder's output it is a translator's (:mod:`llmbook.decoder`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from llmbook.attention import MultiHeadAttention
from llmbook.cache import LayerCache
from llmbook.checks import check_positions
from llmbook.config import EncoderConfig
from llmbook.embedding import Embedding
from llmbook.masks import causal_mask, padding_mask

__all__ = ["Block", "Embedding", "Encoder", "EncoderConfig", "FeedForward", "causal_mask", "padding_mask"]


class FeedForward(nn.Module):
    """``FFN(x) = W_2 f(W_1 x + b_1) + b_2``, for each position alone (Vaswani et al., 2017, equation 2).

    The original has ``f = max(0, ·)``; GELU (Hendrycks & Gimpel, 2016) is BERT's and GPT's.
    """

    def __init__(self, d_model: int, d_ff: int, *, activation: str = "gelu") -> None:
        super().__init__()
        self.W_1, self.W_2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.activation: Callable[[Tensor], Tensor] = activation_function(activation)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., d_model)`` to ``(..., d_model)``."""
        return self.W_2(self.activation(self.W_1(x)))


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """The function behind a name of :attr:`EncoderConfig.activation`."""
    functions: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "gelu_tanh": _gelu_tanh, "relu": F.relu}
    return functions[name]


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


class Block(nn.Module):
    """One layer: attention, in a decoder a second attention that reads ``memory``, and a feed-forward network.

    Each of them is a *sublayer* inside a residual connection (He et al., 2016) with a layer norm (Ba et al., 2016).

    Args:
        config: the sizes and choices.
        cross: whether the block has the attention that reads another sequence.
    """

    def __init__(self, config: EncoderConfig, *, cross: bool = False) -> None:
        super().__init__()
        d, self.pre = config.d_model, config.norm == "pre"
        self.attention = MultiHeadAttention(d, config.n_heads, rotary=config.positions == "rotary")
        self.attention_norm = nn.LayerNorm(d, eps=config.norm_eps)
        self.cross = MultiHeadAttention(d, config.n_heads) if cross else None
        self.cross_norm = nn.LayerNorm(d, eps=config.norm_eps) if cross else None
        self.feed_forward = FeedForward(d, config.d_ff, activation=config.activation)
        self.feed_forward_norm = nn.LayerNorm(d, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        rows: Tensor | None = None,
        cache: LayerCache | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Pass ``x`` through the sublayers.

        Args:
            x: ``(B, T, d_model)``.
            mask: booleans that broadcast to ``(B, n_heads, T, T)``; ``True`` = may attend.
            memory: ``(B, T_m, d_model)``, what the cross-attention reads.
            memory_mask: booleans that broadcast to ``(B, n_heads, T, T_m)``.
            rows: positions ``(B, K)``: compute the output at these only. Keys and values still come from all.
            cache: keys and values of the positions before ``x``.
            causal: hide the future, in place of a ``mask``.

        Returns:
            ``(B, T, d_model)``, or ``(B, K, d_model)`` with ``rows``.

        Raises:
            ValueError: ``memory`` is missing in a block with cross-attention, or given to one without; ``rows`` come
                together with ``causal`` or ``cache``.
        """
        if (memory is None) != (self.cross is None):
            wanted, came = ("no tensor", "one") if self.cross is None else ("a tensor", "none")
            raise ValueError(f"memory: expected {wanted} in a block with cross={self.cross is not None}, got {came}")
        if rows is not None and (causal or cache is not None):
            raise ValueError(
                "rows: expected neither causal nor cache beside them, which the encoder's blocks never need"
            )
        if rows is None:
            x = self._residual(
                x, self.attention_norm, lambda z: self.attention(z, mask=mask, cache=cache, causal=causal)
            )
        else:
            x = self._attend_at(x, mask, rows)
        if self.cross is not None and self.cross_norm is not None:
            cross = self.cross
            x = self._residual(x, self.cross_norm, lambda z: cross(z, memory, memory_mask))
        return self._residual(x, self.feed_forward_norm, self.feed_forward)

    def _residual(self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre:
            return x + self.dropout(sublayer(norm(x)))
        return norm(x + self.dropout(sublayer(x)))

    def _attend_at(self, x: Tensor, mask: Tensor | None, rows: Tensor) -> Tensor:
        """The attention sublayer with queries at ``rows`` alone: K queries read T keys."""
        everywhere = self.attention_norm(x) if self.pre else x
        x, queries = take(x, rows), take(everywhere, rows)  # (B, K, d_model) each
        output = x + self.dropout(self.attention(queries, everywhere, rows_of(mask, rows), at=rows))
        return output if self.pre else self.attention_norm(output)


def take(x: Tensor, rows: Tensor) -> Tensor:
    """The rows ``(B, K)`` of ``x (B, T, d)``: ``(B, K, d)``."""
    return x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))


def rows_of(mask: Tensor | None, rows: Tensor) -> Tensor | None:
    """The rows ``(B, K)`` of a mask that broadcasts to ``(B, H, T, T)``; one that is the same for all queries stays."""
    if mask is None or mask.ndim < 2 or mask.shape[-2] == 1:
        return mask
    mask = mask.expand(rows.shape[0], *mask.shape[-3:]) if mask.ndim > 2 else mask.expand(rows.shape[0], 1, *mask.shape)
    return mask.gather(2, rows[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3]))


class Stack(nn.Module):
    """What encoders and decoders are made of: an embedding, ``n_layers`` blocks, and perhaps a last layer norm.

    Post-norm is as in Vaswani et al. (2017, section 3.1) and BERT; pre-norm ends in one more layer norm, without which
    the sum of all sublayers would leave unnormalised (Xiong et al., 2020, table 1).

    Args:
        config: the sizes and choices.
        cross: whether the blocks have the attention that reads another sequence.
    """

    def __init__(self, config: EncoderConfig, *, cross: bool = False) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.blocks = nn.ModuleList(Block(config, cross=cross) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model, eps=config.norm_eps) if config.norm == "pre" else nn.Identity()
        initialise(self, config)


class Encoder(Stack):
    """The Transformer encoder: every position's vector, made of all positions that the mask lets it read."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        *,
        types: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Encode a batch.

        Args:
            ids: token ids ``(B, T)``.
            mask: booleans that broadcast to ``(B, n_heads, T, T)``; ``True`` = may attend (for padding
                :func:`~llmbook.masks.padding_mask`).
            types: token types ``(B, T)``; all 0 unless given.
            positions: ``(B, K)``: return the vectors at these positions only. The last block then computes queries
                and feed-forward at them alone; the result is the same.

        Returns:
            ``(B, T, d_model)``, or ``(B, K, d_model)`` with ``positions``.

        Raises:
            TypeError: ``ids`` are not integers.
            ValueError: ``ids`` are no ``(B, T)``, too long, or outside the vocabulary; ``types`` in a model without, or
                unlike ``ids``; ``positions`` outside the rows.
        """
        x = self.embedding(ids, types)
        if positions is not None:
            check_positions(positions, ids)
        for block in self.blocks[:-1]:
            x = block(x, mask)
        return self.norm(self.blocks[-1](x, mask, rows=positions))


def initialise(model: nn.Module, config: EncoderConfig) -> None:
    """Weights from N(0, init_std²), biases 0, layer norms 1 and 0 (Devlin et al., 2019; their code).

    In pre-norm models the last matrix of each sublayer is smaller by ``1/√(2 n_layers)``, so that the sum over all
    sublayers does not grow with the depth (Radford et al., 2019, section 2.3).
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            last = config.norm == "pre" and name.endswith((".W_o", ".W_2"))
            nn.init.normal_(
                module.weight, std=config.init_std / (2 * config.n_layers) ** 0.5 if last else config.init_std
            )
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, Embedding) and config.positions == "learned":
            nn.init.normal_(module.positions, std=config.init_std)
