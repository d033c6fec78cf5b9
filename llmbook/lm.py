"""What every language model of the book has in common, and how well one predicts: loss and perplexity.

    loss = −1/N Σ ln p(w_{t+1} | w_0 … w_t)          perplexity = exp(loss)

over the N tokens that are predicted. A model that chooses evenly among V tokens has perplexity V, one that is never
in doubt has 1 (Jelinek, Mercer, Bahl & Baker, 1977).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmbook.checks import check_ids, check_sizes
from llmbook.modes import in_mode

IGNORE = -100
"""The target that stands for "no prediction here", as in torch's ``cross_entropy``."""


class LanguageModel(Protocol):
    """Any ``nn.Module`` that scores, at every position, every token that may come next.

    ``model(ids)`` takes token ids ``(B, T)`` with ``T >= 1`` and gives logits ``(B, T, V)``: ``logits[:, t]`` are the
    scores of the token at position ``t + 1`` given the tokens 0 to ``t``, and never depend on later ones.

    A model may also go on from where it stopped: ``cache = model.new_cache()`` gives a fresh :class:`Cache`, and
    ``model(ids, cache=cache)`` takes ``ids`` as the continuation of all that went through this cache before, gives
    the logits of the new positions alone and updates the cache in place.
    """

    vocab_size: int
    max_len: int | None
    """The longest ``T`` that the model can read; ``None`` = any."""

    def __call__(self, ids: Tensor) -> Tensor: ...

    def modules(self) -> Iterator[nn.Module]: ...


class Cache(Protocol):
    """What a model remembers of the tokens that it has read, for a batch of sequences."""

    length: int
    """Tokens read so far."""

    def reorder(self, index: Tensor) -> None:
        """Keep the rows ``index`` of the batch, in that order; a row may be kept more than once."""


def token_losses(logits: Tensor, ids: Tensor, pad_id: int | None = None) -> Tensor:
    """The cross-entropy of each predicted token: ``−ln p(ids[b, t + 1])`` by ``logits[b, t]``, in nats.

    Args:
        logits: ``(B, T, V)``, what a model made of ``ids``.
        ids: token ids ``(B, T)``.
        pad_id: tokens with this id are not predicted.

    Returns:
        losses ``(N,)`` of the N predicted tokens, row by row; a token of logit −∞ has loss ∞.

    Raises:
        ValueError: the shapes do not fit together.
    """
    if logits.ndim != 3 or logits.shape[:2] != ids.shape:
        raise ValueError(f"logits: expected shape (B, T, V) with ids of shape (B, T), "
                         f"got logits {tuple(logits.shape)} and ids {tuple(ids.shape)}")  # fmt: skip
    targets = ids[:, 1:].flatten().long()
    if pad_id is not None:
        targets = targets.masked_fill(targets == pad_id, IGNORE)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # a sum of many losses overflows float16
    losses = F.cross_entropy(logits[:, :-1].flatten(0, 1), targets, ignore_index=IGNORE, reduction="none")
    return losses[targets != IGNORE]


def next_token_loss(logits: Tensor, ids: Tensor, pad_id: int | None = None) -> Tensor:
    """The mean of :func:`token_losses`, which takes the same arguments: a scalar, in nats per predicted token.

    Raises:
        ValueError: as :func:`token_losses`; and there is no token to predict.
    """
    losses = token_losses(logits, ids, pad_id)
    if losses.numel() == 0:
        raise ValueError(_nothing(ids, pad_id))
    return losses.mean()


def training_loss(model: nn.Module, ids: Tensor) -> tuple[Tensor, int]:
    """The loss of a batch ``(B, T)`` as :func:`llmbook.train.train` asks for it: the sum, and the number of targets."""
    losses = token_losses(model(ids), ids)
    return losses.sum(), losses.numel()


@torch.no_grad()
def perplexity(model: LanguageModel, ids: Tensor, *, pad_id: int | None = None, batch_size: int = 32) -> float:
    """The exponential of the mean loss per predicted token, every token of ``ids`` weighing the same.

    Args:
        model: any language model; it is evaluated without dropout, and left in the mode in which it came.
        ids: token ids ``(B, T)``, on the model's device. The first token of each row is given, not predicted.
        pad_id: tokens with this id are not predicted.
        batch_size: rows per forward pass; it does not change the result.

    Returns:
        The perplexity: 1 or more, and ∞ where the model gives a token of ``ids`` no probability at all.

    Raises:
        ValueError: there is no token to predict, or a row is longer than the model can read.
        TypeError: ``ids`` is no tensor of integers.
    """
    check_ids(ids, model.vocab_size, model.max_len)
    check_sizes(batch_size=batch_size)
    total, count = 0.0, 0
    with in_mode(model, training=False):
        for batch in ids.split(batch_size):
            losses = token_losses(model(batch), batch, pad_id)
            total, count = total + losses.sum().item(), count + losses.numel()
    if count == 0:
        raise ValueError(_nothing(ids, pad_id))
    return torch.tensor(total / count, dtype=torch.float64).exp().item()  # ∞ where math.exp would overflow


def _nothing(ids: Tensor, pad_id: int | None) -> str:
    return f"ids: expected a token to predict after the first of a row, got shape {tuple(ids.shape)}, pad_id={pad_id}"
