"""Decoders: the Transformer's block with a mask that hides the future.

:class:`CausalLM` is a GPT (Radford et al., 2018; 2019); :class:`EncoderDecoder` is the Transformer of Vaswani et al.
(2017, figure 1), whose decoder also reads what an encoder made of another sequence.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmbook.cache import KVCache
from llmbook.checks import check_ids, check_mask
from llmbook.masks import causal_mask
from llmbook.modes import in_mode
from llmbook.transformer import Encoder, EncoderConfig, Stack


class CausalLM(Stack):
    """A language model: ``ids (B, T) → logits (B, T, V)``, where ``logits[:, t]`` score the token at ``t + 1``.

    The logits are dot products of the last vectors with the token embeddings, which thus serve twice (Press & Wolf,
    2017).

    Args:
        config: the sizes and choices.
        cross: whether its blocks read a second sequence.
    """

    def __init__(self, config: EncoderConfig, *, cross: bool = False) -> None:
        super().__init__(config, cross=cross)
        self.vocab_size = config.vocab_size
        self.max_len: int | None = config.max_len

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        *,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Score the next token at every position.

        Args:
            ids: token ids ``(B, T)``.
            mask: booleans that broadcast to ``(B, n_heads, T, T)``; ``True`` = may attend. The future stays hidden
                whatever it says. With a cache its last axis counts the cached positions too.
            memory: ``(B, T_m, d_model)``, what the cross-attention reads.
            memory_mask: booleans that broadcast to ``(B, n_heads, T, T_m)``.
            cache: what :meth:`new_cache` returned: ``ids`` then go on where the last call ended.

        Returns:
            logits ``(B, T, vocab_size)``.

        Raises:
            TypeError, ValueError: as :meth:`llmbook.transformer.Encoder.forward`.
        """
        start = 0 if cache is None else cache.length
        x = self.embedding(ids, start=start)
        causal = mask is None and start == 0  # the common case, for which the fused kernel needs no mask
        if not causal and ids.shape[1] > 1:  # a single query is the last position: it may read all
            past = causal_mask(ids.shape[1], start + ids.shape[1], device=ids.device)
            mask = past if mask is None else past & check_mask(mask, (ids.shape[0], self.config.n_heads, *past.shape))
        for i, block in enumerate(self.blocks):
            layer = None if cache is None else cache.layers[i]
            x = block(x, mask, memory=memory, memory_mask=memory_mask, cache=layer, causal=causal)
        return F.linear(self.norm(x), self.embedding.tokens.weight)

    def new_cache(self) -> KVCache:
        """An empty cache for this model."""
        return KVCache(self.config.n_layers)


class EncoderDecoder(nn.Module):
    """An encoder that reads the source, and a decoder that writes the target while it looks at the source.

    Both have the sizes of ``config`` and share the token embeddings (Vaswani et al., 2017, section 3.4), so source and
    target have one vocabulary.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = CausalLM(config, cross=True)
        self.decoder.embedding.tokens = self.encoder.embedding.tokens

    def forward(
        self, source: Tensor, target: Tensor, source_mask: Tensor | None = None, target_mask: Tensor | None = None
    ) -> Tensor:
        """Score the next target token at every target position.

        Args:
            source: token ids ``(B, T_s)``.
            target: token ids ``(B, T_t)``.
            source_mask: booleans that broadcast to ``(B, n_heads, 1, T_s)``; ``True`` = may attend.
            target_mask: booleans that broadcast to ``(B, n_heads, T_t, T_t)``; the future is hidden anyway.

        Returns:
            logits ``(B, T_t, vocab_size)``.
        """
        memory = self.encoder(source, source_mask)
        return self.decoder(target, target_mask, memory=memory, memory_mask=source_mask)

    def given(self, source: Tensor, source_mask: Tensor | None = None) -> Translation:
        """The language model of the target that remains when the source ``(B, T_s)`` is fixed."""
        return Translation(self, source, source_mask)


class Translation(nn.Module):
    """``P(target | source)`` for a fixed source: a language model like any other, so that all of
    :mod:`llmbook.generate` works on it.

    The source is read once, in evaluation mode and without gradients: this class decodes, it does not train.
    """

    memory: Tensor
    memory_mask: Tensor | None

    def __init__(self, model: EncoderDecoder, source: Tensor, source_mask: Tensor | None = None) -> None:
        super().__init__()
        self.decoder, self.vocab_size, self.max_len = model.decoder, model.decoder.vocab_size, model.decoder.max_len
        with torch.no_grad(), in_mode(model.encoder, training=False):
            memory = model.encoder(source, source_mask)
        self.register_buffer("memory", memory, persistent=False)
        self.register_buffer("memory_mask", source_mask, persistent=False)

    def forward(self, ids: Tensor, *, cache: KVCache | None = None) -> Tensor:
        """Target ids ``(B, T)`` to logits ``(B, T, V)``; a source of one row serves every row of ``ids``.

        Raises:
            TypeError, ValueError: as :meth:`CausalLM.forward`; and several sources need as many rows.
        """
        check_ids(ids, self.vocab_size)
        if len(self.memory) not in (1, len(ids)):
            raise ValueError(f"ids: expected B={len(self.memory)} rows, one a source, got {len(ids)}")
        memory = self.memory.expand(len(ids), -1, -1)
        return self.decoder(ids, memory=memory, memory_mask=self.memory_mask, cache=cache)

    def new_cache(self) -> KVCache:
        """An empty cache for the decoder."""
        return self.decoder.new_cache()
