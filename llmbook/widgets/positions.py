"""PositionsExplorer: how sinusoidal and rotary positions tell where a token stands, and how far from another."""

from __future__ import annotations

from typing import Any

import numpy as np
import traitlets as t

from .. import reference
from .base import Explorer, Vector, _items, table

WIDEST, LONGEST = 64, 128  # d_model, positions


class PositionsExplorer(Explorer):
    """Two positions m and n, moved one by one or together, and the number that depends on m − n alone.

    ``"sinusoidal"`` shows the position vectors PE as a map, the sine and cosine of a chosen pair of components, and
    PE_m · PE_n for every n. ``"rotary"`` shows each pair of components of a query at m and a key at n as two arrows
    that turn with their positions, and the score q R_{m−n} kᵀ, not divided by √d_k, for every distance. The formulas
    are those of :mod:`llmbook.positions` (equations ``eq-sinusoidal``, ``eq-rotary``, ``eq-rotary-distance``). The
    reader may change the kind, too. Positions and pairs are numbered from 0. Every argument is also a trait: read it,
    set it, ``observe`` it. To change the sizes, set all that depends on them inside
    ``with explorer.hold_trait_notifications():``.

    Args:
        kind: ``"sinusoidal"`` or ``"rotary"``.
        d_model: the number of components, even, from 2 to 64; of a query or key, where rotary, it is d_k.
        positions: how many there are, from 2 to 128.
        query, key: the positions m and n.
        pair: the number i of the pair of components 2i and 2i + 1 that stands out.
        q, k: the query and the key before they are turned, ``(d_model,)``; each pair is (1, 0) unless given.
        base: the frequencies are ω_i = base^(−2i/d_model); above 1.
        lang: ``"en"`` or ``"zh"``; the language of the page unless given.

    Raises:
        traitlets.TraitError: a size, position or pair is out of its range, ``d_model`` is odd, ``q`` or ``k`` does not
            have ``d_model`` finite numbers, or ``base`` is not finite and above 1; the message names the argument.
            What the explorer held before stays.
    """

    files = "positions"
    state = ("kind", "d_model", "positions", "query", "key", "pair", "q", "k", "base")

    kind = t.Enum(["sinusoidal", "rotary"], "sinusoidal").tag(sync=True)
    d_model = t.Int(32).tag(sync=True)
    positions = t.Int(48).tag(sync=True)
    query = t.Int(0).tag(sync=True)
    key = t.Int(0).tag(sync=True)
    pair = t.Int(0).tag(sync=True)
    q = Vector([1.0, 0.0] * 16).tag(sync=True)
    k = Vector([1.0, 0.0] * 16).tag(sync=True)
    base = t.Float(10_000.0).tag(sync=True)

    def __init__(
        self, *, kind: str = "sinusoidal", d_model: int = 32, positions: int = 48, query: int = 0,
        key: int | None = None, pair: int | None = None, q: Any = None, k: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        whole = [int(x) if isinstance(x, int | float) and abs(x) < 1e3 else 0 for x in (positions, d_model)]
        key = max(0, min(8, whole[0] - 1)) if key is None else key
        pair = max(0, min(3, whole[1] // 2 - 1)) if pair is None else pair
        q, k = ([1.0, 0.0] * max(1, whole[1] // 2) if x is None else _items(name, x, "numbers")
                for name, x in (("q", q), ("k", k)))  # fmt: skip
        super().__init__(kind=kind, d_model=d_model, positions=positions, query=query, key=key, pair=pair, q=q, k=k,
                         **kwargs)  # fmt: skip

    @t.validate("d_model", "positions", "query", "key", "pair", "q", "k")
    def _fits(self, proposal: Any) -> Any:
        now = {name: getattr(self, name) for name in self.state} | {proposal["trait"].name: proposal["value"]}
        d, n = now["d_model"], now["positions"]
        _whole("d_model", d, 2, WIDEST, "an even number" if d % 2 else "")
        _whole("positions", n, 2, LONGEST)
        for name, most in (("query", n - 1), ("key", n - 1), ("pair", d // 2 - 1)):
            _whole(name, now[name], 0, most)
        for name in ("q", "k"):
            if (got := len(now[name])) != d:
                raise t.TraitError(f"{name}: expected d_model={d} numbers, got {got}")
        return proposal["value"]

    @t.validate("base")
    def _above_one(self, proposal: Any) -> float:
        if not 1 < proposal["value"] < np.inf:
            raise t.TraitError(f"base: expected a finite number above 1, got {proposal['value']!r}")
        return float(proposal["value"])

    @property
    def score(self) -> float:
        """PE_m · PE_n, or q R_{m−n} kᵀ, of what the explorer shows now."""
        return float(self._scores(np.array([float(self.query - self.key)]))[0])

    def _scores(self, distance: reference.Array) -> reference.Array:
        """The score at each ``distance`` m − n: in either kind, turned pairs of components."""
        angles = distance[:, None] * self.base ** (-np.arange(0, self.d_model, 2) / self.d_model)
        if self.kind == "sinusoidal":  # sin mω sin nω + cos mω cos nω = cos (m − n)ω
            return np.cos(angles).sum(-1)
        (a, b), (c, d) = (np.reshape(x, (-1, 2)).T for x in (self.q, self.k))
        return (np.cos(angles) * (a * c + b * d) + np.sin(angles) * (a * d - b * c)).sum(-1)

    def __repr__(self) -> str:
        return (f"PositionsExplorer({self.kind}, d_model={self.d_model}, {self.positions} positions, "
                f"query={self.query}, key={self.key}, score={self.score:.3f})")  # fmt: skip

    def fallback(self) -> str:
        """The score of the position ``query`` with every position as a table."""
        name = "PE_m·PE_n" if self.kind == "sinusoidal" else "q R_{m−n} kᵀ"
        scores = self._scores(self.query - np.arange(float(self.positions)))
        return table([f"n (m = {self.query})", name], *([str(n), f"{x:.3f}"] for n, x in enumerate(scores)))


def _whole(name: str, number: int, least: int, most: int, what: str = "") -> None:
    if isinstance(number, bool) or not least <= number <= most or what:
        raise t.TraitError(f"{name}: expected {what or 'a whole number'} from {least} to {most}, got {number!r}")
