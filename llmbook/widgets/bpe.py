"""BPEExplorer: byte-pair encoding, one merge at a time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import traitlets as t

from .base import Explorer, Pairs, table

EXAMPLE = [("e", "s"), ("es", "t"), ("l", "o"), ("lo", "w"), ("e", "w"), ("n", "ew"), ("new", "est"), ("d", "est"),
           ("i", "dest"), ("w", "idest")]  # fmt: skip
LONGEST = 200  # characters of a text; the module has the same number


class BPEExplorer(Explorer):
    """A slider for the number of merges, and a text to edit; its tokens and their number follow.

    The text is cut into words at blanks, each word into characters (code points); then the first ``step`` merges are
    applied in order. Opens with the first ten merges learnt from *low* five times, *lower* twice, *newest* six times
    and *widest* three times when nothing is given. Every argument is also a trait: read it, set it, ``observe`` it.
    To put fewer merges than ``step`` in, set both inside ``with explorer.hold_trait_notifications():``.

    Args:
        merges: the pairs to join, in order; each is two non-empty strings.
        text: what they are applied to, at most 200 characters.
        step: how many of the merges are applied at first; none unless given.
        lang: ``"en"`` or ``"zh"``; the language of the page unless given.

    Raises:
        traitlets.TraitError: a merge is no pair of non-empty strings, there is none, ``text`` is too long or ``step``
            is not a number of merges; the message names the argument. What the explorer held before stays.
    """

    files = "bpe"
    state = ("merges", "text", "step")

    merges = Pairs(EXAMPLE).tag(sync=True)
    text = t.Unicode("low lower newest widest").tag(sync=True)
    step = t.Int(0).tag(sync=True)

    def __init__(self, merges: Any = None, text: str | None = None, step: int | None = None, **kwargs: Any) -> None:
        given = {name: x for name, x in (("merges", merges), ("text", text), ("step", step)) if x is not None}
        super().__init__(**given, **kwargs)

    @t.validate("merges", "step")
    def _fits(self, proposal: Any) -> Any:
        now = {"merges": self.merges, "step": self.step, proposal["trait"].name: proposal["value"]}
        n, step = len(now["merges"]), now["step"]
        if isinstance(step, bool) or not 0 <= step <= n:
            raise t.TraitError(f"step: expected a whole number from 0 to {n}, the number of merges, got {step!r}")
        return proposal["value"]

    @t.validate("text")
    def _short(self, proposal: Any) -> str:
        if (n := len(proposal["value"])) > LONGEST:
            raise t.TraitError(f"text: expected at most {LONGEST} characters, got {n}")
        return str(proposal["value"])

    @property
    def tokens(self) -> list[list[str]]:
        """The tokens of each word of what the explorer shows now."""
        words = [list(word) for word in self.text.split()]
        for pair in self.merges[: self.step]:
            words = [_merge(word, pair) for word in words]
        return words

    def __repr__(self) -> str:
        return f"BPEExplorer({len(self.merges)} merges, step={self.step}, {sum(map(len, self.tokens))} tokens)"

    def fallback(self) -> str:
        """Words and their tokens as a table; its head has the merge made last."""
        last = ["{} + {} → {}".format(*pair, "".join(pair)) for pair in self.merges[: self.step][-1:]]
        words = ((word, " ".join(tokens)) for word, tokens in zip(self.text.split(), self.tokens, strict=True))
        return table([f"{self.step} / {len(self.merges)}", *(last or [""])], *words)


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    """Walk through the word, and join a symbol to the one before it where the two are the pair."""
    if pair not in pairwise(word):
        return word
    result: list[str] = []
    for symbol in word:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result
