"""AttentionExplorer: one query, a few keys and values, and every number of scaled dot-product attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import traitlets as t

from .. import reference
from .base import Explorer, Matrix, Vector, table


class AttentionExplorer(Explorer):
    """Sliders for a query, the temperature, the √d_k and the mask; weights and output follow.

    Opens with the example of section 4.1 when nothing is given. Lists, numpy arrays and tensors on any device are
    accepted. Every argument is also a trait: read it, set it, ``observe`` it. To change the number of keys or d_k,
    set all that depends on it inside ``with explorer.hold_trait_notifications():``.

    Args:
        q: the query ``(d_k,)``.
        K: the keys ``(T_k, d_k)``.
        V: the values ``(T_k, d_v)``.
        tokens: a label for each key; ``k₁, k₂, …`` unless given.
        mask: ``True`` where the query may attend; everywhere unless given.
        temperature: τ > 0; scores are divided by it.
        scaled: whether scores are divided by √d_k.
        lang: ``"en"`` or ``"zh"``; the language of the page unless given.

    Raises:
        traitlets.TraitError: a number is not finite, a matrix is ragged or empty, or the shapes do not fit; the
            message names the argument. What the explorer held before stays.
    """

    files = "attention"
    state = ("tokens", "q", "K", "V", "mask", "temperature", "scaled")

    tokens = t.List(t.Unicode()).tag(sync=True)
    q = Vector([0.1, 0.2]).tag(sync=True)
    K = Matrix([[0.3, 0.4], [0.5, 0.6]]).tag(sync=True)
    V = Matrix([[1.0, 1.1], [2.0, 2.1]]).tag(sync=True)
    mask = t.List(t.Bool()).tag(sync=True)
    temperature = t.Float(1.0).tag(sync=True)
    scaled = t.Bool(True).tag(sync=True)

    def __init__(self, q: Any = None, K: Any = None, V: Any = None, **kwargs: Any) -> None:
        given = {name: value for name, value in (("q", q), ("K", K), ("V", V)) if value is not None}
        if len(given) not in (0, 3):
            raise t.TraitError(f"q, K, V: expected all three or none, got only {', '.join(given)}")
        n = len(given.get("K", self.traits()["K"].default_value))
        kwargs = {"tokens": _labels(n), "mask": [True] * n} | {k: v for k, v in kwargs.items() if v is not None}
        kwargs["mask"] = getattr(kwargs["mask"], "tolist", lambda: kwargs["mask"])()
        super().__init__(**given, **kwargs)

    @t.validate("q", "K", "V", "mask", "tokens")
    def _fits(self, proposal: Any) -> Any:
        now = {name: getattr(self, name) for name in ("q", "K", "V", "mask", "tokens")}
        now[proposal["trait"].name] = proposal["value"]
        n, d_k = len(now["K"]), len(now["K"][0])
        if len(now["q"]) != d_k:
            raise t.TraitError(f"q: expected d_k={d_k} numbers as in the keys K ({n}, {d_k}), got {len(now['q'])}")
        for name in ("V", "mask", "tokens"):
            if len(now[name]) != n:
                raise t.TraitError(f"{name}: expected one entry for each of the {n} keys K, got {len(now[name])}")
        return proposal["value"]

    @t.validate("temperature")
    def _positive(self, proposal: Any) -> float:
        if not 0 < proposal["value"] < np.inf:
            raise t.TraitError(f"temperature: expected a finite number above 0, got {proposal['value']!r}")
        return float(proposal["value"])

    @property
    def weights(self) -> reference.Array:
        """The attention weights ``(T_k,)`` of what the explorer shows now."""
        return self._attend()[1][0]

    @property
    def output(self) -> reference.Array:
        """The output vector ``(d_v,)`` of what the explorer shows now."""
        return self._attend()[0][0]

    def _attend(self) -> tuple[reference.Array, reference.Array]:
        unscale = 1.0 if self.scaled else len(self.q) ** 0.5  # reference.attention always divides by √d_k
        return reference.attention([np.array(self.q) * unscale / self.temperature], self.K, self.V, [self.mask])

    def __repr__(self) -> str:
        weights = ", ".join(f"{w:.3f}" for w in self.weights)
        return f"AttentionExplorer({len(self.K)} keys, d_k={len(self.q)}, weights=[{weights}])"

    def fallback(self) -> str:
        """Tokens and weights as a table."""
        return table(["", *self.tokens], ["w", *(f"{w:.3f}" for w in self.weights)])


def _labels(n: int) -> list[str]:
    subscript = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    return [f"k{str(i + 1).translate(subscript)}" for i in range(n)]
