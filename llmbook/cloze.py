"""How well a model fills a gap: one protocol for masked language models and for those that count.

Of each held-out text a few positions are chosen, always the same; one at a time is hidden, all the rest is seen as it
is, and the hidden token is to be named. Whoever answers gives a distribution over the vocabulary::

    answers = answer(MaskedPredictor(model), questions(sequences))
    score(answers)["top1"]          # (estimate, low, high)

A model that counts sees more here than it may seem: both neighbours, and neither of them corrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from llmbook.checks import check_sizes
from llmbook.mlm import MaskedLM
from llmbook.modes import in_mode
from llmbook.ngram import NGram
from llmbook.text import CLS, MASK, PAD, SEP, SPECIAL, encode


class Questions(NamedTuple):
    """Gaps to fill: ``ids (N, T)``, the texts as they are, ``[CLS] … [SEP]`` and filling; in each the ``position (N,)``
    that is asked for; and the number of the ``text (N,)``, for questions about one text are not independent."""

    ids: Tensor
    position: Tensor
    text: Tensor

    @property
    def target(self) -> Tensor:
        """The hidden tokens ``(N,)``."""
        return self.ids.gather(1, self.position[:, None]).squeeze(1)


class Answers(NamedTuple):
    """Of each question the ``rank (N,)`` of the hidden token, from 1, and its ``loss (N,)`` −ln p in nats."""

    rank: Tensor
    loss: Tensor
    text: Tensor


Predictor = Callable[[Questions], Tensor]
"""Log-probabilities ``(B, V)`` for some questions; it must not look at what is hidden."""


def questions(sequences: Iterable[Sequence[int]], *, length: int = 64, per_text: int = 4, seed: int = 0) -> Questions:
    """Choose up to ``per_text`` positions of each text; none has a special token.

    Args:
        sequences: the token ids of each text, without ``[CLS]`` and ``[SEP]``; what has no room in a row is cut off.
        length: T, tokens in a row.
        per_text: positions asked for in a text, if it has so many.
        seed: what the choice depends on.

    Raises:
        ValueError: a row has no room for a token between ``[CLS]`` and ``[SEP]``, ``per_text`` is below 1, or no text
            has a token to ask for.
    """
    check_sizes(per_text=per_text)
    if length < 3:
        raise ValueError(f"length: expected at least 3, got {length}")
    rng = np.random.default_rng(seed)
    rows, positions, text = [], [], []
    for i, ids in enumerate(sequences):
        row = [CLS, *ids[: length - 2], SEP]
        places = [p for p in rng.permutation(len(row)).tolist() if row[p] >= len(SPECIAL)][:per_text]
        rows += [row + [PAD] * (length - len(row))] * len(places)
        positions += sorted(places)
        text += [i] * len(places)
    if not rows:
        raise ValueError("sequences: expected a text with a token to ask for, found none")
    return Questions(torch.tensor(rows), torch.tensor(positions), torch.tensor(text))


@torch.no_grad()
def answer(predict: Predictor, asked: Questions, *, batch_size: int = 256) -> Answers:
    """Ask a predictor. Where it gives several tokens the same probability, the hidden one counts as the last of them.

    Raises:
        ValueError: the log-probabilities are not ``(B, V)``.
    """
    ranks, losses = [], []
    for start in range(0, len(asked.ids), batch_size):
        batch = Questions(*(x[start : start + batch_size] for x in asked))
        log_p = predict(batch)
        if log_p.ndim != 2 or len(log_p) != len(batch.ids):
            raise ValueError(f"predict: expected log-probabilities ({len(batch.ids)}, V), got {tuple(log_p.shape)}")
        right = log_p.gather(1, batch.target[:, None])  # (B, 1)
        ranks.append((log_p >= right).sum(1))
        losses.append(-right.squeeze(1))
    return Answers(torch.cat(ranks), torch.cat(losses), asked.text)


def score(answers: Answers, *, resamples: int = 1000, seed: int = 0) -> dict[str, tuple[float, float, float]]:
    """Top-1 and top-5 accuracy and loss, each with a 95 % interval ``(estimate, low, high)``.

    The interval is a bootstrap over texts, not over questions (Efron & Tibshirani, 1993).
    """
    measures = {"top1": answers.rank <= 1, "top5": answers.rank <= 5, "loss": answers.loss}
    return {name: _interval(x, answers.text, resamples, seed) for name, x in measures.items()}


def difference(a: Answers, b: Answers, *, resamples: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """Top-1 accuracy of ``a`` minus that of ``b`` on the same questions, with a 95 % interval.

    Raises:
        ValueError: they answer different questions.
    """
    if not torch.equal(a.text, b.text):
        raise ValueError(f"b: expected answers to the {len(a.text)} questions of a, got {len(b.text)} others")
    return _interval((a.rank <= 1).double() - (b.rank <= 1).double(), a.text, resamples, seed)


def _interval(x: Tensor, text: Tensor, resamples: int, seed: int) -> tuple[float, float, float]:
    _, group = text.unique(return_inverse=True)
    sums, counts = (group.bincount(w.double()).numpy() for w in (x, torch.ones_like(x, dtype=torch.float64)))
    rng, n = np.random.default_rng(seed), len(sums)
    means = [sums[drawn].sum() / counts[drawn].sum() for drawn in (rng.integers(n, size=n) for _ in range(resamples))]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(x.double().mean()), float(low), float(high)


class Masked:
    """A masked language model as a predictor: the gap becomes ``[MASK]``, and filling is not read."""

    def __init__(self, model: MaskedLM) -> None:
        self.model = model

    def __call__(self, asked: Questions) -> Tensor:
        device = next(self.model.parameters()).device
        width = int((asked.ids != PAD).sum(1).max())  # filling at the end is of no use to anyone
        ids = asked.ids[:, :width].scatter(1, asked.position[:, None], MASK).to(device)
        with in_mode(self.model, training=False):
            logits = self.model(ids, asked.position[:, None].to(device), (ids != PAD)[:, None, None, :])
        return logits.squeeze(1).float().log_softmax(-1).cpu()


class Counts:
    """What counting can say of a gap, from the training texts alone.

    With ``left`` and ``right``, the tokens beside the gap::

        "unigram"      p(w)
        "left"         p(w | left), interpolated Kneser–Ney of order 2
        "two-sided"    max(c(left w right) − D, 0) / C  +  (D N / C) q(w),   q(w) ∝ p(w | left) p(right | w)

    with C the sum of c(left w right) over all w, and N the number of w with c > 0. The last is absolute discounting
    on trigrams with the gap in the middle, and where these were never seen, the posterior of a bigram model, which
    is exact for it: no other token of the text depends on w.

    Args:
        sequences: the training texts, as for :func:`questions`.
        vocab_size: V.
        kind: one of the three.

    Raises:
        ValueError: another kind.
    """

    def __init__(self, sequences: Iterable[Sequence[int]], vocab_size: int, kind: str = "two-sided") -> None:
        if kind not in ("unigram", "left", "two-sided"):
            raise ValueError(f"kind: expected unigram, left or two-sided, got {kind!r}")
        self.kind, self.vocab_size = kind, vocab_size
        rows = [torch.tensor([CLS, *ids, SEP]) for ids in sequences]
        if kind == "unigram":
            counts = torch.cat([row[1:-1] for row in rows]).bincount(minlength=vocab_size).double() + 0.1
            self.log_unigram = (counts / counts.sum()).log()
            return
        bigram = NGram(2, vocab_size).fit(rows)
        self.next = bigram(torch.arange(vocab_size)[:, None]).squeeze(1)  # (V, V), ln p(w | left)
        if kind == "two-sided":
            triples = torch.cat([row.unfold(0, 3, 1) for row in rows if len(row) > 2])  # (M, 3): left, w, right
            keys = (triples[:, 0] * vocab_size + triples[:, 2]) * vocab_size + triples[:, 1]
            keys, counts = keys.unique(return_counts=True)
            once, twice = ((counts == n).sum().item() for n in (1, 2))
            self.keys, self.counts, self.discount = keys, counts, once / (once + 2 * twice) if once and twice else 0.75

    def __call__(self, asked: Questions) -> Tensor:
        if self.kind == "unigram":
            return self.log_unigram.expand(len(asked.ids), -1)
        left, right = (asked.ids.gather(1, asked.position[:, None] + i).squeeze(1) for i in (-1, 1))
        if self.kind == "left":
            return self.next[left]
        q = (self.next[left] + self.next[:, right].T).double().softmax(-1)  # (B, V)
        for i, context in enumerate((left * self.vocab_size + right).tolist()):
            low, high = torch.searchsorted(self.keys, torch.tensor([context, context + 1]) * self.vocab_size).tolist()
            if low < high:
                counts = self.counts[low:high].double()
                q[i] *= self.discount * (high - low) / counts.sum()
                q[i, self.keys[low:high] % self.vocab_size] += (counts - self.discount) / counts.sum()
        return q.log()


class Guess(NamedTuple):
    """A token for a gap, as text, and its probability."""

    token: str
    probability: float


@torch.no_grad()
def fill(model: MaskedLM, tokenizer: Tokenizer, text: str, k: int = 5) -> list[list[Guess]]:
    """The ``k`` likeliest tokens at each ``[MASK]`` of ``text``, each gap on its own.

    Raises:
        ValueError: there is no ``[MASK]``, or the text is longer than the model can read.
    """
    check_sizes(k=k)
    ids = torch.tensor([[CLS, *encode(tokenizer, text), SEP]])
    positions = (ids[0] == MASK).nonzero().T  # (1, K)
    if not positions.numel():
        raise ValueError(f"text: expected a [MASK] in it, got {text!r}")
    device = next(model.parameters()).device
    with in_mode(model, training=False):
        p = model(ids.to(device), positions.to(device)).float().softmax(-1)[0]  # (K, V)
    best = p.topk(k)
    return [[Guess(tokenizer.decode([i]), p) for i, p in zip(row, ps, strict=True)]
            for row, ps in zip(best.indices.tolist(), best.values.tolist(), strict=True)]  # fmt: skip
