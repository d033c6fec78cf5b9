"""Masked language modelling: hide some tokens, and predict them from all the others.

    L = −1/|M| Σ_{i ∈ M} log P(x_i | x̃)

with the masked positions ``M`` and the corrupted sequence ``x̃`` (Devlin et al., "BERT", 2019, section 3.1).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmbook.checks import kind
from llmbook.lm import IGNORE
from llmbook.transformer import Encoder, EncoderConfig, activation_function, initialise


def mask_tokens(
    ids: Tensor,
    *,
    mask_id: int,
    vocab_size: int,
    special_ids: Iterable[int],
    p: float = 0.15,
    words: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose tokens to predict, and hide them: 80 % become ``[MASK]``, 10 % a random token, 10 % stay.

    (Devlin et al., 2019, section 3.1 and appendix A.1.) A row with ``n`` tokens that may be chosen loses ``p·n`` of
    them, rounded up or down at random so that each is chosen with probability ``p`` exactly, however short the row;
    rows of equal length then differ by one at most, and little of ``positions`` is filling.

    Args:
        ids: token ids ``(B, T)``; they are not changed.
        mask_id: the id of ``[MASK]``.
        vocab_size: number of token ids; a random token is any but the special ones.
        special_ids: ids that are never chosen: ``[CLS]``, ``[SEP]``, padding.
        p: probability with which a token is chosen.
        words: ``(B, T)``, the number (0 to T − 1) of the word that each token belongs to, -1 for none: whole words
            are chosen then, with all their tokens (the whole-word masking of BERT's later release).
        generator: the source of randomness, for a reproducible draw.

    Returns:
        ``(inputs, positions, targets)``: the corrupted ids ``(B, T)``; the chosen positions ``(B, K)`` in ascending
        order, ``K`` the most in any row; and their original ids ``(B, K)``. A row with fewer is filled up with
        position 0 and target -100.

    Raises:
        TypeError: ``ids`` or ``words`` are not int64, an id is no integer.
        ValueError: ``ids`` are no ``(B, T)``; ``p`` is no probability; ``mask_id`` is outside the vocabulary; nothing
            is left to draw random tokens from; ``words`` do not fit ``ids``.
    """
    special_ids = [_id("special_ids", i) for i in special_ids]
    _check_masking(ids, _id("mask_id", mask_id), vocab_size, special_ids, p, words)
    special = torch.zeros(vocab_size, dtype=torch.bool)
    special[[*special_ids, mask_id]] = True
    ordinary = (~special).nonzero().squeeze(-1).to(ids.device)
    if not len(ordinary):
        raise ValueError(f"special_ids: expected some of the {vocab_size} ids to be ordinary, all are special")
    chosen = _choose(ids, ~special.to(ids.device)[ids], p, words, generator)

    fate = _uniform(ids.shape, ids.device, generator)
    other = ordinary[(_uniform(ids.shape, ids.device, generator) * len(ordinary)).long()]
    hidden = torch.where(fate < 0.8, mask_id, torch.where(fate < 0.9, other, ids))
    inputs = torch.where(chosen, hidden, ids)

    count = chosen.sum(1, keepdim=True)  # (B, 1)
    order = (~chosen).byte().argsort(dim=1, stable=True)  # the chosen ones first, in ascending order
    positions = order[:, : int(count.max()) if len(count) else 0]  # (B, K)
    real = torch.arange(positions.shape[1], device=ids.device) < count
    positions = positions * real
    return inputs, positions, torch.where(real, ids.gather(1, positions), IGNORE)


def _choose(ids: Tensor, allowed: Tensor, p: float, words: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """The positions to predict, booleans ``(B, T)``."""
    unit = torch.arange(ids.shape[1], device=ids.device).expand_as(ids) if words is None else words
    allowed = allowed & (unit >= 0)
    unit = unit.clamp(min=0)
    present = torch.zeros_like(allowed, dtype=torch.uint8).scatter_reduce(1, unit, allowed.byte(), "amax").bool()
    quota = (p * present.sum(1, keepdim=True) + _uniform((len(ids), 1), ids.device, generator)).floor()
    noise = _uniform(ids.shape, ids.device, generator).masked_fill(~present, 2.0)
    rank = noise.argsort(1).argsort(1)
    return ((rank < quota) & present).gather(1, unit) & allowed


def _id(name: str, value: object) -> int:
    """An id as an int, whether it came as one, as numpy's, or as a tensor's entry."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None


def _uniform(shape: tuple[int, ...] | torch.Size, device: torch.device, generator: torch.Generator | None) -> Tensor:
    where = device if generator is None else generator.device
    return torch.rand(shape, dtype=torch.float64, device=where, generator=generator).to(device)


class MaskedLM(nn.Module):
    """An encoder, and a head that names the token at each masked position.

    ``logits = E · LN(GELU(W h + b)) + b_out`` with the token embeddings ``E`` (Devlin et al., 2019; the transform is
    in their code). Where only some positions are asked for, only these pass the head, and the last block computes
    queries and feed-forward at these only: at 15 % masking most of the work of the head would be thrown away.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config, self.vocab_size, self.max_len = config, config.vocab_size, config.max_len
        self.encoder = Encoder(config)
        self.transform = nn.Linear(config.d_model, config.d_model)
        self.activation = activation_function(config.activation)
        self.norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        initialise(self.transform, config)

    def forward(
        self,
        inputs: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        types: Tensor | None = None,
    ) -> Tensor:
        """Score every token of the vocabulary.

        Args:
            inputs: token ids ``(B, T)``, some of them masked.
            positions: where to predict, ``(B, K)``; everywhere unless given.
            mask: booleans that broadcast to ``(B, n_heads, T, T)``; ``True`` = may attend.
            types: token types ``(B, T)``.

        Returns:
            logits ``(B, K, vocab_size)``, or ``(B, T, vocab_size)`` without ``positions``.

        Raises:
            TypeError, ValueError: as :meth:`llmbook.transformer.Encoder.forward`.
        """
        h = self.encoder(inputs, mask, types=types, positions=positions)
        h = self.norm(self.activation(self.transform(h)))
        return F.linear(h, self.encoder.embedding.tokens.weight, self.bias)


def mlm_loss(logits: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
    """The cross-entropy of the masked tokens, in nats: the mean over the targets that are not -100.

    (The equation at the top of this module.) A batch in which nothing is masked gives 0, never NaN.

    Args:
        logits: ``(B, K, V)``.
        targets: ``(B, K)`` token ids, -100 where nothing is to be predicted.
        reduction: ``"mean"``, or ``"sum"`` for a training loop that divides once, over all its processes.

    Raises:
        ValueError: the shapes do not fit, or ``reduction`` is neither.
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"targets: expected shape {tuple(logits.shape[:-1])} as the logits "
                         f"{tuple(logits.shape)} have, got {tuple(targets.shape)}")  # fmt: skip
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction: expected 'mean' or 'sum', got {reduction!r}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # a sum of many losses overflows float16
    logits, targets = logits.flatten(0, -2), targets.flatten().long()
    total = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
    return total if reduction == "sum" else total / (targets != IGNORE).sum().clamp(min=1)


def training_loss(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The loss of a batch as :func:`llmbook.train.train` asks for it: the sum, and the number of targets.

    Args:
        model: a :class:`MaskedLM`.
        batch: ``(inputs, positions, targets)`` as :func:`mask_tokens` returns them, and a mask after them, if any.
    """
    inputs, positions, targets, *mask = batch
    return mlm_loss(model(inputs, positions, *mask), targets, reduction="sum"), (targets != IGNORE).sum()


def _check_masking(
    ids: Tensor, mask_id: int, vocab_size: int, special_ids: list[int], p: float, words: Tensor | None
) -> None:
    if not isinstance(ids, Tensor) or ids.dtype != torch.int64:
        raise TypeError(f"ids: expected a tensor of int64, got {kind(ids)}")
    if ids.ndim != 2:
        raise ValueError(f"ids: expected shape (B, T), got {tuple(ids.shape)}")
    if not 0 <= p <= 1:
        raise ValueError(f"p: expected a probability between 0 and 1, got {p!r}")
    for name, special in [("mask_id", mask_id), *(("special_ids", i) for i in special_ids)]:
        if not 0 <= special < vocab_size:
            raise ValueError(f"{name}: expected 0 to {vocab_size - 1} (vocab_size={vocab_size}), got {special}")
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise ValueError(f"ids: expected 0 to {vocab_size - 1}, got {int(ids.min())} to {int(ids.max())}")
    if words is not None and (not isinstance(words, Tensor) or words.dtype != torch.int64):
        raise TypeError(f"words: expected a tensor of int64, got {kind(words)}")
    if words is not None and words.numel() and int(words.max()) >= ids.shape[1]:
        raise ValueError(f"words: expected -1 to T - 1 = {ids.shape[1] - 1}, got {int(words.max())}")
    if words is not None and words.shape != ids.shape:
        raise ValueError(f"words: expected shape {tuple(ids.shape)} as ids have, got {tuple(words.shape)}")
