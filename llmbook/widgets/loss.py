"""LossExplorer: the loss at one gap, its slope at the scores, and a walk down the curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import traitlets as t

from .base import Explorer, Vector, _items, table

FEWEST, LARGEST = 2, 12  # words
REACH = 1000.0  # of a score, either way
MOST = 1000  # steps; the module has the same numbers

Array = npt.NDArray[np.float64]


class LossExplorer(Explorer):
    """A few words with their scores, of which one is right: softmax, loss, slope; and steps against the slope.

    The loss is ``−log p`` of the right word, in nats, its slope at the scores ``p − y`` with the one-hot ``y`` (the
    equations of section 4.3; Devlin et al., 2019, for the loss). A step is ``z ← z − rate (p − y)``. The reader moves
    scores, the point on the curve, the right word and the rate, and takes steps. What the figure shows is what
    ``steps`` steps have made of ``scores``; moving a score, or the point, makes the present scores a new start. Every
    argument is also a trait: read it, set it, ``observe`` it. To change the number of words, set ``words`` and
    ``scores`` inside ``with explorer.hold_trait_notifications():``.

    Args:
        words: 2 to 12 words.
        scores: where the walk starts, a number from -1000 to 1000 for each word.
        target: the number (from 0) of the right word.
        rate: the learning rate η, above 0 and at most 100.
        steps: how many steps have been taken, 0 to 1000.
        lang: ``"en"`` or ``"zh"``; the language of the page unless given.

    Raises:
        traitlets.TraitError: there are too few or too many words, or one is empty; scores are not finite, too large,
            or not one for each word; ``target``, ``rate`` or ``steps`` is out of range. The message names the
            argument. What the explorer held before stays.
    """

    files = "loss"
    state = ("words", "scores", "target", "rate", "steps")

    words = t.List(t.Unicode(), ["a", "b"]).tag(sync=True)
    scores = Vector([0.0, 0.0]).tag(sync=True)
    target = t.Int(0).tag(sync=True)
    rate = t.Float(0.5).tag(sync=True)
    steps = t.Int(0).tag(sync=True)

    def __init__(self, words: Any, scores: Any, *, target: int = 0, **kwargs: Any) -> None:
        super().__init__(words=_items("words", words, "words"), scores=scores, target=target, **kwargs)

    @t.validate("words", "scores", "target")
    def _fits(self, proposal: Any) -> Any:
        now = {name: getattr(self, name) for name in ("words", "scores", "target")}
        now[proposal["trait"].name] = proposal["value"]
        n = len(now["words"])
        if not FEWEST <= n <= LARGEST:
            raise t.TraitError(f"words: expected {FEWEST} to {LARGEST}, got {n}")
        if "" in now["words"]:
            raise t.TraitError(f"words: expected non-empty strings, got '' at {now['words'].index('')}")
        if (got := len(now["scores"])) != n:
            raise t.TraitError(f"scores: expected one for each of the {n} words, got {got}")
        if (widest := max(now["scores"], key=abs)) and abs(widest) > REACH:
            raise t.TraitError(f"scores: expected numbers from {-REACH:g} to {REACH:g}, got {widest!r}")
        _place("target", now["target"], n - 1)
        return proposal["value"]

    @t.validate("rate")
    def _positive(self, proposal: Any) -> float:
        if not 0 < proposal["value"] <= 100:
            raise t.TraitError(f"rate: expected a number above 0 and at most 100, got {proposal['value']!r}")
        return float(proposal["value"])

    @t.validate("steps")
    def _counted(self, proposal: Any) -> int:
        _place("steps", proposal["value"], MOST)
        return int(proposal["value"])

    @property
    def walk(self) -> Array:
        """The scores after 0, 1, … steps, ``(steps + 1, V)``."""
        path = [np.array(self.scores)]
        for _ in range(self.steps):
            path.append(path[-1] - self.rate * (_softmax(path[-1]) - self._right))
        return np.stack(path)

    @property
    def probabilities(self) -> Array:
        """The probability of each word now, after the steps, ``(V,)``."""
        return _softmax(self.walk[-1])

    @property
    def loss(self) -> float:
        """The loss now, after the steps, in nats."""
        z = self.walk[-1]
        return float(np.log(np.exp(z - z.max()).sum()) + z.max() - z[self.target])

    @property
    def slope(self) -> Array:
        """The slope of the loss at the scores now, after the steps, ``(V,)``; it sums to 0."""
        return self.probabilities - self._right

    @property
    def _right(self) -> Array:
        return np.eye(len(self.words))[self.target]

    def __repr__(self) -> str:
        return (f"LossExplorer({len(self.words)} words, target={self.words[self.target]!r}, rate={self.rate:g}, "
                f"steps={self.steps}, loss={self.loss:.3f})")  # fmt: skip

    def fallback(self) -> str:
        """Scores, probabilities and slopes as a table; its corner has the loss."""
        rows = {"z": self.walk[-1], "p": self.probabilities, "p − y": self.slope}
        return table([f"−log p = {self.loss:.3f}", *self.words],
                     *([name, *(f"{x:.3f}".replace("-", "−") for x in row)] for name, row in rows.items()))  # fmt: skip


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max())
    return np.asarray(e / e.sum())


def _place(name: str, number: int, last: int) -> None:
    if isinstance(number, bool) or not 0 <= number <= last:
        raise t.TraitError(f"{name}: expected a whole number from 0 to {last}, got {number!r}")
