"""Heads for fine-tuning: a small layer on a pre-trained encoder, one for each kind of task.

(Devlin et al., 2019, section 4 and figure 4.) The encoder is trained with the head; only the head starts anew.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from llmbook.transformer import Encoder, initialise


class SequenceClassifier(nn.Module):
    """One class for the whole input: sentiment, topic, entailment.

    ``logits = W · dropout(tanh(W_p h + b_p)) + b`` with ``h`` the vector of the first token, ``[CLS]``, as in BERT, or
    the mean over all real tokens.

    Args:
        encoder: the pre-trained encoder.
        n_classes: number of classes.
        pool: ``"first"`` or ``"mean"``.
        dropout: probability with which components of the pooled vector become 0.

    Raises:
        TypeError: ``encoder`` is no :class:`~llmbook.transformer.Encoder`.
        ValueError: ``n_classes`` is not positive; ``pool`` is unknown.
    """

    def __init__(
        self, encoder: Encoder, n_classes: int, *, pool: Literal["first", "mean"] = "first", dropout: float = 0.1
    ) -> None:
        super().__init__()
        if pool not in ("first", "mean"):
            raise ValueError(f"pool: expected 'first' or 'mean', got {pool!r}")
        self.classifier = _linear(encoder, n_classes)
        self.pooler = _linear(encoder, encoder.config.d_model)
        self.encoder, self.pool, self.dropout = encoder, pool, nn.Dropout(dropout)

    def forward(self, ids: Tensor, mask: Tensor | None = None, *, types: Tensor | None = None) -> Tensor:
        """Ids ``(B, T)`` and a padding mask ``(B, 1, 1, T)`` to logits ``(B, n_classes)``.

        Raises:
            ValueError: ``mask`` is no padding mask, and the mean is to be taken.
        """
        h = self._first(ids, mask, types) if self.pool == "first" else self._mean(ids, mask, types)
        return self.classifier(self.dropout(torch.tanh(self.pooler(h))))

    def _first(self, ids: Tensor, mask: Tensor | None, types: Tensor | None) -> Tensor:
        first = torch.zeros(len(ids), 1, dtype=torch.int64, device=ids.device)
        return self.encoder(ids, mask, types=types, positions=first).squeeze(1)  # the last block at [CLS] alone

    def _mean(self, ids: Tensor, mask: Tensor | None, types: Tensor | None) -> Tensor:
        if mask is not None and mask.shape != (len(ids), 1, 1, ids.shape[1]):
            expected = (len(ids), 1, 1, ids.shape[1])
            raise ValueError(f"mask: expected a padding mask of shape {expected}, got {tuple(mask.shape)}")
        h = self.encoder(ids, mask, types=types)
        real = torch.ones_like(ids).to(h) if mask is None else mask[:, 0, 0].to(h)  # (B, T)
        return (h * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)


class TokenClassifier(nn.Module):
    """One class for every token: parts of speech, named entities. ``logits = W · dropout(h) + b``.

    Args:
        encoder: the pre-trained encoder.
        n_classes: number of classes.
        dropout: probability with which components of the vectors become 0.

    Raises:
        TypeError: ``encoder`` is no :class:`~llmbook.transformer.Encoder`.
        ValueError: ``n_classes`` is not positive.
    """

    def __init__(self, encoder: Encoder, n_classes: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.classifier = _linear(encoder, n_classes)

    def forward(self, ids: Tensor, mask: Tensor | None = None, *, types: Tensor | None = None) -> Tensor:
        """Ids ``(B, T)`` to logits ``(B, T, n_classes)``. Give tokens without a class the target -100."""
        return self.classifier(self.dropout(self.encoder(ids, mask, types=types)))


class SpanExtractor(nn.Module):
    """The first and the last token of an answer in the input: ``P_start(i) = softmax_i(s · h_i)``, and alike for the
    end (Devlin et al., 2019, section 4.2).

    Args:
        encoder: the pre-trained encoder.

    Raises:
        TypeError: ``encoder`` is no :class:`~llmbook.transformer.Encoder`.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.ends = _linear(encoder, 2)

    def forward(
        self, ids: Tensor, mask: Tensor | None = None, *, types: Tensor | None = None, allowed: Tensor | None = None
    ) -> Tensor:
        """Score every position as start and as end.

        Args:
            ids: token ids ``(B, T)``.
            mask: booleans that broadcast to ``(B, n_heads, T, T)``.
            types: token types ``(B, T)``; in BERT 0 for the question, 1 for the text.
            allowed: booleans ``(B, T)``, where an answer may lie; elsewhere the logits are -∞.

        Returns:
            logits ``(B, 2, T)``: of the start, of the end.
        """
        logits = self.ends(self.encoder(ids, mask, types=types)).transpose(1, 2)  # (B, 2, T)
        return logits if allowed is None else logits.masked_fill(~allowed[:, None], -torch.inf)

    @staticmethod
    def best(logits: Tensor, *, max_len: int = 30) -> tuple[Tensor, Tensor]:
        """The most probable span: ``argmax s_i + e_j`` over ``i ≤ j < i + max_len``.

        Returns:
            ``(start, end)``, ``(B,)`` each; the end is the last token of the span.

        Raises:
            ValueError: ``max_len`` is not positive.
        """
        if max_len < 1:
            raise ValueError(f"max_len: expected a positive integer, got {max_len}")
        start, end = logits.unbind(1)
        length = logits.shape[-1]
        valid = torch.ones(length, length, dtype=torch.bool, device=logits.device).triu().tril(max_len - 1)
        scores = (start[:, :, None] + end[:, None, :]).masked_fill(~valid, -torch.inf)  # (B, T, T)
        best = scores.flatten(1).argmax(1)
        return best // length, best % length


def _linear(encoder: Encoder, n_out: int) -> nn.Linear:
    if not isinstance(encoder, Encoder):
        raise TypeError(f"encoder: expected an Encoder, got {type(encoder).__name__} (a MaskedLM has one: .encoder)")
    if not isinstance(n_out, int) or n_out < 1:
        raise ValueError(f"n_classes: expected a positive integer, got {n_out!r}")
    layer = nn.Linear(encoder.config.d_model, n_out)
    initialise(layer, encoder.config)
    return layer.to(encoder.embedding.tokens.weight)
