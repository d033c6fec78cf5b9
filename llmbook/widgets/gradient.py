"""GradientExplorer: how far back a gradient reaches, in a recurrent network, in a memory with a gate, in attention."""

from __future__ import annotations

from math import tanh
from typing import Any

import numpy as np
import traitlets as t

from .base import Explorer, Vector, table

LONGEST = 200  # tokens
FAR = 100  # tokens, unless inputs are given
LIMITS = {"w": 1.5, "forget": 1.0}


def _inputs() -> list[float]:
    """A fixed draw from a normal distribution of standard deviation 0.5, to two decimals."""
    draws: list[float] = np.random.default_rng(0).normal(0, 0.5, FAR).round(2).tolist()
    return draws


class GradientExplorer(Explorer):
    """The slope of the last output by each input, ∂o_T/∂x_t, over their distance T − t, on a logarithmic scale.

    Three networks with one unit read the same inputs x_1 … x_T:

    - recurrent: h_t = tanh(w h_{t−1} + x_t) and o_T = h_T, so that every step back multiplies the slope by
      w (1 − h_t²) (Hochreiter, 1991; Bengio, Simard & Frasconi, 1994); or without the tanh, by w;
    - memory: c_t = f c_{t−1} + x_t and o_T = c_T, the cell of an LSTM of which the forget gate stands at f and the
      input gate at 1 (Gers, Schmidhuber & Cummins, 2000); every step multiplies by f;
    - attention with equal scores: o_T = Σ_t x_t / T, one step from any position to any other; the slope is 1/T.

    ``w``, ``forget`` and ``length`` are sliders, and ``length`` is dragged in the drawing too. Every argument is also
    a trait: read it, set it, ``observe`` it.

    Args:
        w: the recurrent weight, from 0 to 1.5.
        forget: the forget gate f, from 0 to 1.
        length: T, from 2 to the number of inputs.
        linear: whether the recurrent network goes without the tanh.
        x: the inputs, 2 to 200 numbers, of which the first T are read; unless given 100, drawn once from a normal
            distribution of standard deviation 0.5.
        lang: ``"en"`` or ``"zh"``; the language of the page unless given.

    Raises:
        traitlets.TraitError: a number is not finite or out of its range; the message names the argument. What the
            explorer held before stays.
    """

    files = "gradient"
    state = ("w", "forget", "length", "linear", "x")

    w = t.Float(0.9).tag(sync=True)
    forget = t.Float(0.95).tag(sync=True)
    length = t.Int(40).tag(sync=True)
    linear = t.Bool(False).tag(sync=True)
    x = Vector(_inputs()).tag(sync=True)

    def __init__(self, *, w: float = 0.9, forget: float = 0.95, length: int = 40, x: Any = None, **kwargs: Any) -> None:
        given = {} if x is None else {"x": x}
        super().__init__(w=w, forget=forget, length=length, **given, **kwargs)

    @t.validate("w", "forget")
    def _in_range(self, proposal: Any) -> float:
        name, value = proposal["trait"].name, proposal["value"]
        if not 0 <= value <= LIMITS[name]:
            raise t.TraitError(f"{name}: expected a number from 0 to {LIMITS[name]}, got {value!r}")
        return float(value)

    @t.validate("length", "x")
    def _fits(self, proposal: Any) -> Any:
        now = {"length": self.length, "x": self.x, proposal["trait"].name: proposal["value"]}
        n, length = len(now["x"]), now["length"]
        if not 2 <= n <= LONGEST:
            raise t.TraitError(f"x: expected 2 to {LONGEST} numbers, got {n}")
        if isinstance(length, bool) or not 2 <= length <= n:
            raise t.TraitError(f"length: expected a whole number from 2 to {n}, the number of inputs, got {length!r}")
        return proposal["value"]

    @property
    def slopes(self) -> dict[str, list[float]]:
        """``recurrent``, ``memory``, ``attention``: ∂o_T/∂x_t at the distances T − t = 0, 1, …, T − 1."""
        h, states = 0.0, []
        for x in self.x[: self.length]:
            h = self.w * h + x if self.linear else tanh(self.w * h + x)
            states.append(h)
        product, recurrent = 1.0, []
        for h in reversed(states):
            own = 1.0 if self.linear else 1 - h * h  # the slope of tanh
            recurrent.append(product * own)
            product *= self.w * own
        distances = range(self.length)
        return {"recurrent": recurrent, "memory": [self.forget**d for d in distances],
                "attention": [1 / self.length for _ in distances]}  # fmt: skip

    def __repr__(self) -> str:
        unit = "linear" if self.linear else "tanh"
        return f"GradientExplorer(w={self.w:g}, forget={self.forget:g}, length={self.length}, {unit})"

    def fallback(self) -> str:
        """The slopes at a few distances as a table."""
        chosen = sorted({0, 1, self.length // 4, self.length // 2, self.length - 1})
        rows = ([name, *(f"{slopes[d]:.1e}" for d in chosen)] for name, slopes in self.slopes.items())
        return table(["T − t", *map(str, chosen)], *rows)
