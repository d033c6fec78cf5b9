"""NgramExplorer: what a text counted word by word says about the next one, and how soon the counts run out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import traitlets as t

from .base import Explorer, table

MOST = 3000  # words of a text
LONGEST = 100  # words written; the module has the same number
ORDERS = 5  # the largest n; the module has the same number
TOP = 8  # continuations that the table names
SEED_LIMIT = 2**31


class NgramExplorer(Explorer):
    """The n-grams of a small text: what followed a context, how often, and the probabilities that this makes.

    The first part of the words is counted; the rest, ``held_out`` of them, is kept for testing. V is the number of
    different words in both, so that every word of the test has an id. The probabilities are those of
    :class:`llmbook.ngram.NGram` with ``smoothing="none"`` (maximum likelihood) and ``"kneser-ney"``. Shown for each n:
    the share of the n-grams of the held-out part that were not counted at all, and of the different contexts (n − 1
    words and something after them) the share that was seen once only; and for the chosen n the perplexity of the
    held-out part. What is written by choosing, drawing or typing is cut into the fewest pieces that stand in the
    counted part just so. Every argument is also a trait: read it, set it, ``observe`` it.

    Args:
        words: the text, 2 to 3000 tokens; single characters, or words.
        order: n, from 1 to 5; the last n − 1 words are looked at.
        context: the words so far, at most 100; the most frequent n − 1 words unless given.
        smoothing: ``"none"`` or ``"kneser-ney"``; by which the next word is drawn and the perplexity computed.
        held_out: the share of the words that is kept for testing, from 0 to 0.5.
        seed: of the next draw.
        lang: ``"en"`` or ``"zh"``; the language of the page unless given.

    Raises:
        traitlets.TraitError: there are too few or too many words, a word is empty, or a number is out of its range; the
            message names the argument. What the explorer held before stays.
    """

    files = "ngram"
    state = ("words", "order", "context", "smoothing", "held_out", "seed")

    words = t.List(t.Unicode(), ["a", "b"]).tag(sync=True)
    order = t.Int(3).tag(sync=True)
    context = t.List(t.Unicode(), []).tag(sync=True)
    smoothing = t.Enum(["none", "kneser-ney"], "none").tag(sync=True)
    held_out = t.Float(0.2).tag(sync=True)
    seed = t.Int(0).tag(sync=True)

    def __init__(self, words: Iterable[str], *, order: int = 3, context: Any = None, **kwargs: Any) -> None:
        super().__init__(words=list(words), order=order, context=list(context or []), **kwargs)
        if context is None:
            self.context = list(Counter(self._grams(order - 1)).most_common(1)[0][0])

    @t.validate("words", "context")
    def _filled(self, proposal: Any) -> list[str]:
        name, value = proposal["trait"].name, proposal["value"]
        least, most = {"words": (2, MOST), "context": (0, LONGEST)}[name]
        if not least <= len(value) <= most:
            raise t.TraitError(f"{name}: expected {least} to {most} words, got {len(value)}")
        if blank := [word for word in value if not word.strip()]:
            raise t.TraitError(f"{name}: expected words that are not blank, got {blank[0]!r}")
        return list(value)

    @t.validate("order", "seed")
    def _whole(self, proposal: Any) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        least, most = {"order": (1, ORDERS), "seed": (0, SEED_LIMIT - 1)}[name]
        if isinstance(value, bool) or not least <= value <= most:
            raise t.TraitError(f"{name}: expected a whole number from {least} to {most}, got {value!r}")
        return int(value)

    @t.validate("held_out")
    def _share(self, proposal: Any) -> float:
        if not 0 <= proposal["value"] <= 0.5:
            raise t.TraitError(f"held_out: expected a share from 0 to 0.5, got {proposal['value']!r}")
        return float(proposal["value"])

    @property
    def parts(self) -> tuple[list[str], list[str]]:
        """The words that are counted, and those that are held out."""
        cut = len(self.words) - int(self.held_out * len(self.words))
        return self.words[:cut], self.words[cut:]

    @property
    def counts(self) -> dict[str, int]:
        """How often each word followed the last ``order`` − 1 words of the context; the most frequent first."""
        h = tuple(self.context[max(len(self.context) - self.order + 1, 0) :])
        return dict(Counter(gram[-1] for gram in self._grams(len(h) + 1) if gram[:-1] == h).most_common())

    def _grams(self, n: int) -> list[tuple[str, ...]]:
        counted = self.parts[0]
        return [tuple(counted[i : i + n]) for i in range(len(counted) - n + 1)]

    def __repr__(self) -> str:
        return (f"NgramExplorer({len(self.words)} words, order={self.order}, {len(self.context)} words of context, "
                f"smoothing={self.smoothing!r}, {len(self.counts)} continuations)")  # fmt: skip

    def fallback(self) -> str:
        """The eight most frequent continuations of the context, their counts and their shares, as a table."""
        counts, total = self.counts, sum(self.counts.values())
        rows = ([word, str(count), f"{count / total:.3f}"] for word, count in list(counts.items())[:TOP])
        return table([" ".join(self.context[-(self.order - 1) :]) if self.order > 1 else "", "c", "c / C"], *rows)
