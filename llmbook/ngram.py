"""Language models that count: n-grams, and what smoothing does for those that were never seen.

Interpolated Kneser–Ney smoothing (Kneser & Ney, 1995; Chen & Goodman, 1999), for a token w after a context h, where h′
is h without its oldest token:

    p(w | h) = max(a(h w) − D, 0) / A(h)  +  λ(h) p(w | h′)          λ(h) = D N(h) / A(h)

where A(h) is the sum of a(h w) over all w and N(h) the number of w with a(h w) > 0; the last p(w | h′) is 1/V. At the
highest order a is the plain count; at the lower ones, which speak only where the higher ones know nothing, it is the
continuation count: after how many different tokens, not how often. "Francisco" is frequent, but after "San" alone:
elsewhere it should not be expected.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmbook.checks import check_ids, check_sizes

SMOOTHINGS = ("kneser-ney", "add-k", "none")


class NGram(nn.Module):
    """A language model that looks at the last ``order − 1`` tokens alone; its logits are log-probabilities.

    The counts a(h w) that enter the equation above:

    - n-grams of length ``order``: how often they were seen;
    - shorter ones: the number of different tokens seen at their left, plus the number of sequences that they begin,
      each start being a left context of its own. (So an n-gram that only ever begins sequences keeps its plain
      count, as in Heafield et al., 2013.) A single token that begins a sequence is not counted for it, because
      nothing predicts it there.

    A context that was never seen leaves all to the shorter one, λ = 1. At the start of a sequence contexts are simply
    shorter, and their distribution is that of the lower order. Before :meth:`fit` the model is uniform. Counts are
    kept outside of ``state_dict``: fit again, or pickle the model.

    Other ``smoothing``, for comparison, without any shorter contexts, c being plain counts and C(h) = Σ_w c(h w):

    - ``"add-k"``: p(w | h) = (c(h w) + k) / (C(h) + k V); k = 1 is Laplace's rule;
    - ``"none"``: p(w | h) = c(h w) / C(h), maximum likelihood: logit −∞ for what was never seen after h. A context
      that was itself never seen has the uniform distribution.

    Args:
        order: length of the longest n-gram; 1 = unigrams, 2 = bigrams, ...
        vocab_size: V, the number of tokens.
        discount: D at every order, above 0 and at most 1; unless given, each order's D = n₁ / (n₁ + 2 n₂) with n_i the
            number of its n-grams with a = i (Ney, Essen & Kneser, 1994), or 0.75 where n₁ or n₂ is 0.
        smoothing: ``"kneser-ney"``, ``"add-k"`` or ``"none"``.
        k: what ``"add-k"`` adds to every count.

    Attributes:
        discounts: after :meth:`fit`, the D of each order, from 1 to ``order`` (Kneser–Ney alone).

    Raises:
        ValueError: an argument is out of its range.
    """

    max_len: int | None = None

    def __init__(
        self,
        order: int,
        vocab_size: int,
        discount: float | None = None,
        *,
        smoothing: str = "kneser-ney",
        k: float = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(order=order, vocab_size=vocab_size)
        if discount is not None and not 0 < discount <= 1:
            raise ValueError(f"discount: expected a number above 0 and at most 1, got {discount}")
        if smoothing not in SMOOTHINGS:
            raise ValueError(f"smoothing: expected one of {', '.join(SMOOTHINGS)}, got {smoothing!r}")
        if not k > 0:
            raise ValueError(f"k: expected a number above 0, got {k}")
        self.order, self.vocab_size, self.discount, self.smoothing, self.k = order, vocab_size, discount, smoothing, k
        self.fit([])

    def fit(self, ids: Tensor | Iterable[Tensor | Sequence[int]]) -> NGram:
        """Count the n-grams of ``ids``, and forget what was counted before.

        Args:
            ids: 1-D sequences of token ids, over whose ends no n-gram reaches; or one long 1-D tensor.

        Returns:
            The model itself.

        Raises:
            ValueError: a sequence is not 1-D, or an id is not below ``vocab_size``.
            TypeError: the ids are not integers.
        """
        sequences = [self._sequence(s) for s in ([ids] if isinstance(ids, Tensor) and ids.ndim == 1 else ids)]
        grams = _count(sequences, self.order, self.vocab_size)
        self.discounts: list[float] = []
        self.levels = []
        for n, gram in enumerate(grams, start=1):
            used = gram.counts
            if self.smoothing == "kneser-ney" and n < self.order:
                used = _continuations(gram, grams[n], starts=n > 1)
            n_contexts = 1 if n == 1 else len(grams[n - 2].keys)
            self.levels.append(self._smooth(gram, used.double(), n_contexts))
        return self

    def forward(self, ids: Tensor) -> Tensor:
        """The log-probabilities of every next token.

        Args:
            ids: token ids ``(B, T)``; at position t the last ``min(order − 1, t + 1)`` of them are looked at.

        Returns:
            logits ``(B, T, V)``, float32, on the device of ``ids``; they are computed on the CPU.

        Raises:
            TypeError, ValueError: ``ids`` is not a batch of token ids.
        """
        check_ids(ids, self.vocab_size)
        windows = F.pad(ids.long().cpu(), (self.order - 1, 0), value=-1).unfold(1, self.order, 1)  # (B, T, order)
        p, index = self._distributions(windows.flatten(0, 1)[:, 1:])
        logits = p.log_().float().to(ids.device)  # (distinct contexts, V)
        return logits[index.to(ids.device)].unflatten(0, ids.shape)  # (B, T, V)

    def probabilities(self, context: Tensor | Sequence[int]) -> Tensor:
        """The distribution ``(V,)`` of the token after ``context``, in float64.

        Args:
            context: token ids, as many as you like; the last ``order − 1`` are looked at.

        Raises:
            TypeError, ValueError: ``context`` is not a 1-D sequence of token ids.
        """
        tokens = self._sequence(context, "context")
        tokens = tokens[max(len(tokens) - self.order + 1, 0) :]
        p, _ = self._distributions(F.pad(tokens, (self.order - 1 - len(tokens), 0), value=-1)[None])
        return p[0]

    def count(self, ngram: Tensor | Sequence[int]) -> int:
        """How often ``ngram``, 1 to ``order`` token ids, was seen.

        Raises:
            TypeError, ValueError: ``ngram`` is not a 1-D sequence of 1 to ``order`` token ids.
        """
        tokens = self._sequence(ngram, "ngram")
        if not 1 <= len(tokens) <= self.order:
            raise ValueError(f"ngram: expected 1 to order={self.order} token ids, got {len(tokens)}")
        place = int(self._find(tokens[None]))
        return 0 if place < 0 else int(self.levels[len(tokens) - 1].counts[place])

    def _smooth(self, gram: _Grams, a: Tensor, n_contexts: int) -> _Level:
        """One order's share of the equation: the first term, and λ. The last context stands for any never seen."""
        parent = gram.keys // self.vocab_size
        total = parent.bincount(a, minlength=n_contexts + 1)  # A(h)
        if self.smoothing == "kneser-ney":
            self.discounts.append(d := self.discount or _discount(a))
            mass = (a - d).clamp(min=0) / total.clamp(min=1)[parent]
            left = d * parent.bincount((a > 0).double(), minlength=n_contexts + 1) / total
        else:  # the same with λ(h) = k V / (C(h) + k V), and 1/V for the shorter context
            prior = self.vocab_size * (self.k if self.smoothing == "add-k" else 0.0)
            mass, left = a / (total + prior)[parent], prior / (total + prior)
        size = parent.bincount(minlength=n_contexts + 1)
        return _Level(gram.keys, gram.counts, mass, left.masked_fill(total == 0, 1.0), size.cumsum(0) - size, size)

    def _distributions(self, contexts: Tensor) -> tuple[Tensor, Tensor]:
        """The equation, from the shortest context to the longest, once for each different context.

        Args:
            contexts: ``(N, order − 1)``, padded on the left with −1.

        Returns:
            ``(p, index)``: distributions ``(distinct, V)``, and which of them belongs to each context ``(N,)``.
        """
        p = torch.full((1, self.vocab_size), 1 / self.vocab_size, dtype=torch.float64)
        index = contexts.new_zeros(len(contexts))  # without any token all contexts are the same
        for n, level in enumerate(self.levels):
            context = contexts[:, self.order - 1 - n :]  # its last n tokens
            if n:
                keys = index * (self.vocab_size + 1) + context[:, 0] + 1
                keys, index = keys.unique(return_inverse=True)
                p = p[keys // (self.vocab_size + 1)]  # of the contexts one token shorter
            place = index.new_empty(len(p)).index_copy_(0, index, self._find(context))  # (distinct,), −1 = never seen
            if self.smoothing != "kneser-ney":  # what a shorter context said is of no account
                p[index[(context >= 0).all(1)]] = 1 / self.vocab_size
            row, gram = level.children(place)
            p *= level.left[place, None]
            p[row, level.keys[gram] % self.vocab_size] += level.mass[gram]
        return p, index

    def _find(self, grams: Tensor) -> Tensor:
        """Where each of ``(N, n)`` n-grams stands among those of its length ``(N,)``; −1 = never seen, or padded."""
        place = grams.new_zeros(len(grams))
        for level, token in zip(self.levels, grams.unbind(1), strict=False):
            key = place * self.vocab_size + token  # negative, and so never found, if the place or the first token is −1
            low, high = (torch.searchsorted(level.keys, key, right=right) for right in (False, True))
            place = torch.where(low < high, low, -1)
        return place

    def _sequence(self, ids: Tensor | Sequence[int], name: str = "ids") -> Tensor:
        tokens = torch.as_tensor(ids).cpu()
        if tokens.ndim != 1:
            raise ValueError(f"{name}: expected a 1-D sequence of token ids, got shape {tuple(tokens.shape)}")
        if len(tokens):
            check_ids(tokens[None], self.vocab_size, name=name)
        return tokens.long()


@dataclass(frozen=True)
class _Level:
    """The n-grams of one length, sorted, and what smoothing has made of their counts."""

    keys: Tensor  # (n,)  place of its context among the shorter n-grams · V + its last token
    counts: Tensor  # (n,)  how often it was seen
    mass: Tensor  # (n,)  max(a(h w) − D, 0) / A(h)
    left: Tensor  # (contexts + 1,)  λ(h)
    first: Tensor  # (contexts + 1,)  the n-grams of a context stand together: from here on ...
    size: Tensor  # (contexts + 1,)  ... so many

    def children(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """The n-grams of the contexts at ``place (N,)``: row of each among the N, and its own place: two ``(M,)``."""
        size = self.size[place]
        row = torch.arange(len(place)).repeat_interleave(size)
        skip = self.first[place] - (size.cumsum(0) - size)
        return row, torch.arange(len(row)) + skip[row]


@dataclass(frozen=True)
class _Grams:
    """The different n-grams of one length in a corpus of ``N`` tokens."""

    keys: Tensor  # (n,)  as in _Level
    counts: Tensor  # (n,)
    at: Tensor  # (N,)  place of the n-gram that starts at each token; −1 where the sequence ends too soon
    begins: Tensor  # (N,)  whether a sequence starts here


def _count(sequences: list[Tensor], order: int, vocab_size: int) -> list[_Grams]:
    """The n-grams of every length from 1 to ``order``: each one is its context, one shorter, and one token more."""
    lengths = torch.tensor([len(s) for s in sequences], dtype=torch.long)
    tokens = torch.cat([lengths.new_empty(0), *sequences])  # (N,)
    rest = lengths.cumsum(0).repeat_interleave(lengths) - torch.arange(len(tokens))  # tokens to the end, this included
    begins, at = rest == lengths.repeat_interleave(lengths), torch.zeros_like(tokens)
    grams = []
    for n in range(1, order + 1):
        start = (rest >= n).nonzero()[:, 0]
        keys = at[start] * vocab_size + tokens[start + n - 1]
        keys, places, counts = keys.unique(return_inverse=True, return_counts=True)
        at = torch.full_like(tokens, -1).index_copy(0, start, places)
        grams.append(_Grams(keys, counts, at, begins))
    return grams


def _continuations(gram: _Grams, longer: _Grams, *, starts: bool) -> Tensor:
    """In how many different left contexts each n-gram was seen ``(n,)``; with those of its ``starts`` or without."""
    here = (longer.at >= 0).nonzero()[:, 0]
    ending = torch.empty_like(longer.keys)  # each longer n-gram without its first token
    ending[longer.at[here]] = gram.at[here + 1]
    seen = ending.bincount(minlength=len(gram.keys))
    return seen + gram.at[gram.begins & (gram.at >= 0)].bincount(minlength=len(gram.keys)) if starts else seen


def _discount(a: Tensor) -> float:
    """D = n₁ / (n₁ + 2 n₂), which leaves the held-out likelihood near its maximum; 0.75 if n₁ or n₂ is 0."""
    once, twice = (int((a == i).sum()) for i in (1, 2))
    return once / (once + 2 * twice) if once and twice else 0.75
