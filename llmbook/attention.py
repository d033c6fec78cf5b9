"""Scaled dot-product attention: explicit, fused and tiled; and multi-head attention.

    weights = softmax(q kᵀ / √d_k)          output = weights v

(Vaswani et al., "Attention Is All You Need", 2017, equation 1 and section 3.2). Everywhere in the book a mask is
boolean and ``True`` means *may attend*; a query that may attend nowhere gets an output of zeros, never NaN.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llmbook.cache import LayerCache
from llmbook.checks import check_attention, kind
from llmbook.masks import causal_mask
from llmbook.positions import rotate


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None, *, scale: float | None = None) -> Tensor:
    """The attention weights of every query over every key.

    Args:
        q: queries ``(..., T_q, d_k)``.
        k: keys ``(..., T_k, d_k)``.
        mask: booleans that broadcast to ``(..., T_q, T_k)``; ``True`` = may attend.
        scale: what the dot products are multiplied by; ``1/√d_k`` unless given.

    Returns:
        weights ``(..., T_q, T_k)``: each row is non-negative and sums to 1; entries that the mask forbids are
        exactly 0, and so is the whole row of a query that may attend nowhere.

    Raises:
        TypeError: a tensor is not floating point, the mask is not boolean, or dtypes differ.
        ValueError: the shapes do not fit together.
    """
    check_attention(q, k, k, mask)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = (q * scale) @ k.transpose(-2, -1)  # scaling q costs T·d, scaling the scores T·T
    if mask is None:
        return scores.softmax(-1)
    nowhere = ~mask.any(-1, keepdim=True)
    scores = scores.masked_fill(~(mask | nowhere), -math.inf)  # such a row stays finite here ...
    return scores.softmax(-1).masked_fill(nowhere, 0.0)  # ... and becomes 0, its gradient too


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention, with its weights (Vaswani et al., 2017, equation 1).

    Args:
        q: queries ``(..., T_q, d_k)``.
        k: keys ``(..., T_k, d_k)``.
        v: values ``(..., T_k, d_v)``.
        mask: booleans that broadcast to ``(..., T_q, T_k)``; ``True`` = may attend.
        scale: what the dot products are multiplied by; ``1/√d_k`` unless given.

    Returns:
        ``(output, weights)`` of shapes ``(..., T_q, d_v)`` and ``(..., T_q, T_k)``.

    Raises:
        TypeError, ValueError: as :func:`attention_weights`, for ``v`` too.
    """
    check_attention(q, k, v, mask)
    weights = attention_weights(q, k, mask, scale=scale)
    return weights @ v, weights


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """The output of :func:`attention` by torch's own fused kernel, which never stores the weights.

    Args:
        q, k, v, mask: as :func:`attention`.
        causal: each query may attend to the keys up to its own place. It is the same as a mask that says so, and
            faster: the kernel passes over what lies in the future.

    Returns:
        output ``(..., T_q, d_v)``.

    Raises:
        TypeError, ValueError: as :func:`attention`; and ``causal`` needs as many keys as queries, and no mask.
    """
    check_attention(q, k, v, mask)
    if causal and (mask is not None or q.shape[-2] != k.shape[-2]):
        raise ValueError(f"causal: expected no mask and T_q = T_k, got T_q={q.shape[-2]}, T_k={k.shape[-2]} and "
                         f"{'no' if mask is None else 'a'} mask")  # fmt: skip
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    nowhere = ~mask.any(-1, keepdim=True)
    allowed = torch.atleast_2d(mask | nowhere)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed).masked_fill(nowhere, 0.0)


def tiled_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, tile: tuple[int, int] = (256, 512)
) -> Tensor:
    """The output of :func:`attention` in memory that grows with T, not T²: tile by tile, by the online softmax.

    For each tile of queries the keys are read tile by tile; a running maximum and a running sum per query keep the
    softmax exact (Milakov & Gimelshein, 2018; Rabe & Staats, 2021; Dao et al., 2022, algorithm 1). In the backward
    pass each tile of queries is computed once more instead of being kept.

    Args:
        q, k, v, mask: as :func:`attention`.
        tile: queries and keys per tile.

    Returns:
        output ``(..., T_q, d_v)``.

    Raises:
        TypeError, ValueError: as :func:`attention`; and ``tile`` must be two positive integers.
    """
    check_attention(q, k, v, mask)
    if not isinstance(tile, tuple | list) or len(tile) != 2 or not all(isinstance(n, int) and n > 0 for n in tile):
        raise ValueError(f"tile: expected two positive integers (queries, keys), got {tile!r}")
    if mask is not None:
        mask = mask.expand(*mask.shape[:-2], q.shape[-2], k.shape[-2])  # a view: it costs no memory
    parts = []
    for i in range(0, max(q.shape[-2], 1), tile[0]):
        rows = None if mask is None else mask[..., i : i + tile[0], :]
        args = (q[..., i : i + tile[0], :], k, v, rows, tile[1])
        if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
            parts.append(checkpoint(_online_attention, *args, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(_online_attention(*args))
    return torch.cat(parts, -2)


def _online_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, tile: int) -> Tensor:
    """One tile of queries against all keys, ``tile`` keys at a time, in float32 or better."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    q = q.to(dtype) * q.shape[-1] ** -0.5
    top = q.new_full((*q.shape[:-1], 1), -math.inf)  # largest score so far        (..., T_q, 1)
    total = torch.zeros_like(top)  # Σ exp(score − top) so far                     (..., T_q, 1)
    mixed = q.new_zeros((*q.shape[:-1], v.shape[-1]))  # Σ exp(score − top) v so far (..., T_q, d_v)
    for j in range(0, k.shape[-2], tile):
        scores = q @ k[..., j : j + tile, :].to(dtype).transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask[..., j : j + tile], -math.inf)
        higher = torch.maximum(top, scores.amax(-1, keepdim=True).detach())
        safe = higher.masked_fill(higher == -math.inf, 0.0)  # nothing allowed yet: exp(−∞ − 0) = 0
        p, shrink = (scores - safe).exp(), (top - safe).exp()
        total = total * shrink + p.sum(-1, keepdim=True)
        mixed = mixed * shrink + p @ v[..., j : j + tile, :].to(dtype)
        top = higher
    return (mixed / total.masked_fill(total == 0, 1.0)).to(v.dtype)


class MultiHeadAttention(nn.Module):
    """Multi-head attention: ``n_heads`` attentions side by side in slices of the model's width.

    ``MultiHead(x) = Concat(head_1, …, head_H) W_o`` with ``head_h = Attention(x W_q^h, x W_k^h, x W_v^h)`` (Vaswani
    et al., 2017, section 3.2.2). The three projections are one matrix, :attr:`W_qkv`, whose output is cut into
    queries, keys and values and then into heads of ``d_k = d_model / n_heads``.

    The weights pass through :attr:`weights`, an identity on which a forward hook can listen. While nobody listens,
    the layer takes the fused path and the weights never exist.

    Args:
        d_model: width of input and output.
        n_heads: number of heads; must divide ``d_model``.
        bias: whether the projections add a bias.
        rotary: whether queries and keys are turned by their positions (:func:`llmbook.positions.rotate`).

    Raises:
        ValueError: ``d_model`` is not a positive multiple of ``n_heads``; ``rotary`` with an odd ``d_k``.
    """

    def __init__(self, d_model: int, n_heads: int, *, bias: bool = True, rotary: bool = False) -> None:
        super().__init__()
        if n_heads < 1 or d_model < 1 or d_model % n_heads:
            raise ValueError(f"d_model: expected a positive multiple of n_heads={n_heads}, got d_model={d_model}")
        self.d_model, self.n_heads, self.d_k, self.rotary = d_model, n_heads, d_model // n_heads, rotary
        if rotary and self.d_k % 2:
            raise ValueError(f"rotary: expected an even d_k = d_model / n_heads, got {self.d_k}")
        self.W_qkv = nn.Linear(d_model, 3 * d_model, bias=bias)
        self.W_o = nn.Linear(d_model, d_model, bias=bias)
        self.weights = nn.Identity()

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        at: Tensor | None = None,
        cache: LayerCache | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Attend from ``x`` to ``context``, or to ``x`` itself.

        Args:
            x: ``(..., T_q, d_model)``, the positions that ask.
            context: ``(..., T_k, d_model)``, the positions that are read; ``x`` unless given.
            mask: booleans that broadcast to ``(..., n_heads, T_q, T_k)``; ``True`` = may attend.
            at: the positions of ``x``, ``(T_q,)`` or ``(B, T_q)``; those that follow the cache unless given. Only
                rotary layers look at them; ``context`` stands at 0, 1, 2, …
            cache: keys and values of earlier positions, which are read too (they count in ``T_k``); those of ``x``
                are added to it.
            causal: each position may attend up to itself; without ``context``, ``mask`` and anything in the cache.

        Returns:
            output ``(..., T_q, d_model)``.

        Raises:
            TypeError, ValueError: as :func:`attention`; and the last axis must be ``d_model``.
        """
        if causal and not (mask is None and context is None and (cache is None or cache.length == 0)):
            raise ValueError("causal: expected no mask, no context and nothing in the cache beside it")
        q, k, v = (self._split(z) for z in self._project(x, context))  # (..., H, T, d_k) each
        if self.rotary:
            q, k = self._rotate(q, k, at, 0 if cache is None else cache.length, crossing=context is not None)
        if cache is not None:
            k, v = cache.extend(k, v)
        if self.weights._forward_hooks:
            mask = causal_mask(q.shape[-2], device=q.device) if causal else mask
            output, weights = attention(q, k, v, mask)
            self.weights(weights)
        else:
            output = fused_attention(q, k, v, mask, causal=causal)
        return self.W_o(output.transpose(-3, -2).flatten(-2))  # (..., T_q, d_model)

    def _project(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        for name, z in (("x", x), ("context", context)):
            if z is not None and (not isinstance(z, Tensor) or not z.is_floating_point()):
                raise TypeError(f"{name}: expected a floating-point tensor, got {kind(z)}")
            if z is not None and (z.ndim < 2 or z.shape[-1] != self.d_model):
                raise ValueError(f"{name}: expected shape (..., T, d_model={self.d_model}), got {tuple(z.shape)}")
        if context is None:
            return self.W_qkv(x).chunk(3, -1)
        weight, bias, d = self.W_qkv.weight, self.W_qkv.bias, self.d_model
        bias_q, bias_kv = (None, None) if bias is None else (bias[:d], bias[d:])
        return F.linear(x, weight[:d], bias_q), *F.linear(context, weight[d:], bias_kv).chunk(2, -1)

    def _split(self, z: Tensor) -> Tensor:
        return z.unflatten(-1, (self.n_heads, self.d_k)).transpose(-3, -2)  # (..., T, d_model) -> (..., H, T, d_k)

    @staticmethod
    def _rotate(q: Tensor, k: Tensor, at: Tensor | None, start: int, crossing: bool) -> tuple[Tensor, Tensor]:
        if at is None:
            at = torch.arange(start, start + q.shape[-2], device=q.device)
        return rotate(q, at), rotate(k, torch.arange(k.shape[-2], device=k.device) if crossing else at)

    @classmethod
    def from_torch(cls, layer: nn.MultiheadAttention) -> MultiHeadAttention:
        """The same layer as ``layer``, with its weights copied (its dropout is left behind).

        Raises:
            ValueError: ``layer`` has what this class has not: keys or values of another width, ``add_bias_kv`` or
                ``add_zero_attn``.
        """
        if layer.in_proj_weight is None:
            raise ValueError(f"layer: expected kdim = vdim = embed_dim = {layer.embed_dim}, "
                             f"got kdim={layer.kdim}, vdim={layer.vdim}")  # fmt: skip
        if layer.bias_k is not None or layer.add_zero_attn:
            raise ValueError("layer: expected add_bias_kv=False and add_zero_attn=False")
        new = cls(layer.embed_dim, layer.num_heads, bias=layer.in_proj_bias is not None)
        new.to(layer.in_proj_weight)
        state = {"W_qkv.weight": layer.in_proj_weight, "W_qkv.bias": layer.in_proj_bias,
                 "W_o.weight": layer.out_proj.weight, "W_o.bias": layer.out_proj.bias}  # fmt: skip
        new.load_state_dict({name: value for name, value in state.items() if value is not None})
        return new.train(layer.training)
