"""SoftmaxExplorer: why attention divides its scores by √d_k."""

from __future__ import annotations

from typing import Any

import numpy as np
import traitlets as t

from .. import reference
from .attention import _labels
from .base import Explorer, Vector, _items, table

FEWEST, MOST = 2, 12  # keys
WIDEST = 1024  # d_k; the module has the same number


class SoftmaxExplorer(Explorer):
    """A slider for d_k and a switch for the division by √d_k; the weights follow, beside what the other choice gives.

    A dot product of d_k independent products of variance 1 has standard deviation √d_k (equation ``eq-variance``). So
    a key whose score would be z at standard deviation 1 has the raw dot product √d_k · z, and z again once that is
    divided by √d_k. Both are shown, with the weights' effective number of keys exp(H), where H is their entropy in
    nats, and their largest slope w(1 − w), the largest entry on the diagonal of the softmax's Jacobian (equation
    ``eq-softmax-jacobian``). Every argument is also a trait: read it, set it, ``observe`` it. To change the number of
    keys, set ``scores`` and ``tokens`` inside ``with explorer.hold_trait_notifications():``.

    Args:
        scores: z, one finite number a key, 2 to 12 of them, ``(T_k,)``; a list, an array or a tensor.
        tokens: a label for each key; ``k₁, k₂, …`` unless given.
        d_k: the number of components of a key, from 1 to 1024.
        scaled: whether the scores are divided by √d_k.
        lang: ``"en"`` or ``"zh"``; the language of the page unless given.

    Raises:
        traitlets.TraitError: a score is not finite, there are fewer than 2 or more than 12, there is not one token for
            each, or ``d_k`` is not a whole number from 1 to 1024; the message names the argument. What the explorer
            held before stays.
    """

    files = "softmax"
    state = ("scores", "tokens", "d_k", "scaled")

    scores = Vector([0.0, 0.0]).tag(sync=True)
    tokens = t.List(t.Unicode(), ["", ""]).tag(sync=True)
    d_k = t.Int(64).tag(sync=True)
    scaled = t.Bool(True).tag(sync=True)

    def __init__(self, scores: Any, tokens: Any = None, *, d_k: int = 64, scaled: bool = True, **kwargs: Any) -> None:
        values = _items("scores", scores, "numbers")
        tokens = _labels(len(values)) if tokens is None else tokens
        super().__init__(scores=values, tokens=tokens, d_k=d_k, scaled=scaled, **kwargs)

    @t.validate("scores", "tokens")
    def _fits(self, proposal: Any) -> Any:
        now = {"scores": self.scores, "tokens": self.tokens, proposal["trait"].name: proposal["value"]}
        n, got = len(now["scores"]), len(now["tokens"])
        if not FEWEST <= n <= MOST:
            raise t.TraitError(f"scores: expected {FEWEST} to {MOST} numbers, got {n}")
        if got != n:
            raise t.TraitError(f"tokens: expected one for each of the {n} scores, got {got}")
        return proposal["value"]

    @t.validate("d_k")
    def _width(self, proposal: Any) -> int:
        d_k = proposal["value"]
        if isinstance(d_k, bool) or not 1 <= d_k <= WIDEST:
            raise t.TraitError(f"d_k: expected a whole number from 1 to {WIDEST}, got {d_k!r}")
        return int(d_k)

    @property
    def weights(self) -> reference.Array:
        """The attention weights ``(T_k,)`` of what the explorer shows now."""
        return self._softmax(self.scaled)

    def _softmax(self, scaled: bool) -> reference.Array:
        return reference.softmax(np.array(self.scores) * (1.0 if scaled else self.d_k**0.5))

    def __repr__(self) -> str:
        weights = ", ".join(f"{w:.3f}" for w in self.weights)
        return f"SoftmaxExplorer({len(self.scores)} keys, d_k={self.d_k}, scaled={self.scaled}, weights=[{weights}])"

    def fallback(self) -> str:
        """Tokens and weights as a table, without the division and with it."""
        rows = (("q·k", False), ("q·k / √d_k", True))
        return table([f"d_k = {self.d_k}", *self.tokens],
                     *([name, *(f"{w:.3f}" for w in self._softmax(scaled))] for name, scaled in rows))  # fmt: skip
