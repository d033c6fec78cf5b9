"""MaskingExplorer: which tokens of a sentence are chosen for masked language modelling, and what becomes of them."""

from __future__ import annotations

from math import floor
from typing import Any

import traitlets as t

from .base import Explorer, _items, _uniform, table

LONGEST = 64  # tokens
MOST = 2000  # draws; the module has the same number
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")  # tokens that are not chosen, unless it is said which are not


class MaskingExplorer(Explorer):
    """A sentence, and what a draw makes of it: [MASK], random tokens, tokens that stay; the labels; and the counts.

    Each ordinary token is chosen with probability ``p``. A chosen one becomes ``[MASK]`` with probability ``mask``, a
    token drawn from ``vocabulary`` with probability ``random``, and stays otherwise (Devlin et al., 2019, section 3.1
    and appendix A.1). The chosen ones alone have a label, and so a loss. Below stand the counts of this draw and of
    all so far, beside what is expected, ± its standard deviation. Draw number ``d`` (from 1) takes its random numbers
    from the seed ``seed + d - 1``, whatever ``p`` and the shares: as they move, the same numbers are read differently.
    Every argument is also a trait: read it, set it, ``observe`` it. To change the sentence, or both shares, set all
    that depends on it inside ``with explorer.hold_trait_notifications():``.

    Args:
        tokens: the sentence, 1 to 64 tokens.
        vocabulary: the tokens that a random one is drawn from.
        special: numbers (from 0) of tokens that are never chosen; those of [PAD], [CLS], [SEP], [MASK] unless given.
        p: the probability that a token is chosen.
        mask, random: the shares of the chosen that become ``[MASK]``, and a random token. The rest stays.
        quota: ``False``: each token is chosen or not by itself, so that their number is binomial. ``True``: of ``n``
            that may be chosen, ``p·n`` are, rounded up or down at random, as by :func:`llmbook.mlm.mask_tokens`.
        seed: of the first draw.
        draws: how many have been made, 1 to 2000; the last is shown.
        lang: ``"en"`` or ``"zh"``; the language of the page unless given.

    Raises:
        traitlets.TraitError: there are no tokens, or too many; a token is empty; none may be chosen; a probability is
            none, or the shares sum to more than 1; ``seed`` or ``draws`` is out of range. The message names the
            argument. What the explorer held before stays.
    """

    files = "masking"
    state = ("tokens", "vocabulary", "special", "p", "mask", "random", "quota", "seed", "draws")

    tokens = t.List(t.Unicode(), ["a"]).tag(sync=True)
    vocabulary = t.List(t.Unicode(), ["a"]).tag(sync=True)
    special = t.List(t.Int(), []).tag(sync=True)
    p = t.Float(0.15).tag(sync=True)
    mask = t.Float(0.8).tag(sync=True)
    random = t.Float(0.1).tag(sync=True)
    quota = t.Bool(False).tag(sync=True)
    seed = t.Int(0).tag(sync=True)
    draws = t.Int(1).tag(sync=True)

    def __init__(self, tokens: Any, vocabulary: Any, *, special: Any = None, **kwargs: Any) -> None:
        tokens, vocabulary = _items("tokens", tokens, "tokens"), _items("vocabulary", vocabulary, "tokens")
        if special is None:
            special = [i for i, token in enumerate(tokens) if token in SPECIAL]
        super().__init__(tokens=tokens, vocabulary=vocabulary, special=special, **kwargs)

    @t.validate("tokens", "vocabulary", "special")
    def _fits(self, proposal: Any) -> Any:
        now = {name: getattr(self, name) for name in ("tokens", "vocabulary", "special")}
        now[proposal["trait"].name] = proposal["value"]
        n = len(now["tokens"])
        if not 1 <= n <= LONGEST:
            raise t.TraitError(f"tokens: expected 1 to {LONGEST}, got {n}")
        if not now["vocabulary"]:
            raise t.TraitError("vocabulary: expected tokens to draw from, got none")
        for name in ("tokens", "vocabulary"):
            if "" in now[name]:
                raise t.TraitError(f"{name}: expected non-empty strings, got '' at {now[name].index('')}")
        for i in now["special"]:
            if isinstance(i, bool) or not 0 <= i < n:
                raise t.TraitError(f"special: expected whole numbers from 0 to {n - 1}, got {i!r}")
        if len(set(now["special"])) == n:
            raise t.TraitError(f"special: expected one of the {n} tokens to be ordinary, all are special")
        return proposal["value"]

    @t.validate("p", "mask", "random")
    def _probable(self, proposal: Any) -> float:
        name, value = proposal["trait"].name, proposal["value"]
        if not 0 <= value <= 1:
            raise t.TraitError(f"{name}: expected a probability between 0 and 1, got {value!r}")
        shares = {"mask": self.mask, "random": self.random, name: value}
        if (both := shares["mask"] + shares["random"]) > 1 + 1e-9:
            raise t.TraitError(f"mask, random: expected shares that sum to 1 at most, got {both:.4g}")
        return float(value)

    @t.validate("seed", "draws")
    def _counted(self, proposal: Any) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        least, most = {"seed": (0, 2**31 - 1), "draws": (1, MOST)}[name]
        if isinstance(value, bool) or not least <= value <= most:
            raise t.TraitError(f"{name}: expected a whole number from {least} to {most}, got {value!r}")
        return int(value)

    def draw(self, number: int | None = None) -> tuple[list[str], list[str]]:
        """What draw ``number`` (from 1; the last one unless given) does to the tokens.

        Returns:
            ``(kinds, inputs)``: of each token what becomes of it, ``"mask"``, ``"random"``, ``"kept"``, or ``""`` for
            one that is not chosen; and the corrupted sentence.
        """
        seed = self.seed + (self.draws if number is None else number) - 1
        kinds, inputs = [""] * len(self.tokens), list(self.tokens)
        for i in self._chosen(seed):
            fate = _uniform(seed, 3 * i + 1)
            kinds[i] = "mask" if fate < self.mask else "random" if fate < self.mask + self.random else "kept"
            other = self.vocabulary[floor(_uniform(seed, 3 * i + 2) * len(self.vocabulary))]
            inputs[i] = {"mask": "[MASK]", "random": other, "kept": self.tokens[i]}[kinds[i]]
        return kinds, inputs

    def _chosen(self, seed: int) -> list[int]:
        ordinary = [i for i in range(len(self.tokens)) if i not in self.special]
        noise = {i: _uniform(seed, 3 * i) for i in ordinary}
        if not self.quota:
            return [i for i in ordinary if noise[i] < self.p]
        size = floor(self.p * len(ordinary) + _uniform(seed, 3 * LONGEST))
        return sorted(ordinary, key=noise.__getitem__)[:size]

    def __repr__(self) -> str:
        return (f"MaskingExplorer({len(self.tokens)} tokens, p={self.p:g}, mask={self.mask:g}, "
                f"random={self.random:g}, seed={self.seed}, draws={self.draws})")  # fmt: skip

    def fallback(self) -> str:
        """The sentence, what a model gets to see of it, and the labels, as a table; -100 where there is no loss."""
        kinds, inputs = self.draw()
        labels = [token if kind else "−100" for token, kind in zip(self.tokens, kinds, strict=True)]
        return table(["x", *self.tokens], ["x̃", *inputs], ["y", *labels])
