"""BlockExplorer: one block of the encoder, walked step by step, with every number that it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import traitlets as t

from .. import reference
from .base import Arrays, Explorer, Matrix, table

DIGITS = 4  # significant ones that are kept of a number
MOST = {"tokens": 12, "d_model": 16, "d_ff": 64}
TIMES = 8  # most applications of the block


def _shapes(d_model: int, d_ff: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a block's weights by their names in its ``state_dict()``; matrices are (out, in), as torch's."""
    d = d_model
    return {
        "attention.W_qkv.weight": (3 * d, d), "attention.W_qkv.bias": (3 * d,),
        "attention.W_o.weight": (d, d), "attention.W_o.bias": (d,),
        "attention_norm.weight": (d,), "attention_norm.bias": (d,),
        "feed_forward.W_1.weight": (d_ff, d), "feed_forward.W_1.bias": (d_ff,),
        "feed_forward.W_2.weight": (d, d_ff), "feed_forward.W_2.bias": (d,),
        "feed_forward_norm.weight": (d,), "feed_forward_norm.bias": (d,),
    }  # fmt: skip


class BlockExplorer(Explorer):
    """The steps of a block one after another: what each is made of, its matrices, and one token's row through all.

    The norm can be moved (before each sublayer, after it, away) and the residual connections taken out; two curves
    show what becomes of the vectors' lengths and of the cosines between them when the block is applied again and
    again. Everything is computed from the rounded weights, in double precision; there is no mask and no dropout.
    Every argument is also a trait (the block's are ``weights``, ``n_heads``, ``activation`` and ``eps``): read it, set
    it, ``observe`` it.

    .. code-block:: python

        encoder = Encoder(EncoderConfig(vocab_size=50, d_model=16, n_heads=2, n_layers=1, d_ff=32, max_len=8))
        BlockExplorer(encoder.blocks[0], encoder.embedding(ids)[0], tokens)

    Args:
        block: a :class:`~llmbook.transformer.Block` without cross-attention and rotary positions; or its weights by
            their names in ``state_dict()``. At most d_model 16 and d_ff 64. Kept to four significant digits.
        x: its input ``(T, d_model)``, at most 12 tokens. Kept to four significant digits.
        tokens: the T tokens.
        norm: ``"pre"``, ``"post"`` or ``"none"``; that of the block unless given (``"pre"`` for weights by name).
        residual: whether the input of each sublayer is added to its output.
        step: the number of the step that is shown, from 0.
        token: the number of the token whose row is followed.
        times: how many times the block is applied, 1 to 8; the steps shown are those of the last time.
        n_heads, activation, eps: what a block says itself, and weights by name do not: heads, ``"gelu"``,
            ``"gelu_tanh"`` or ``"relu"``, and what is added to the variance.
        lang: ``"en"`` or ``"zh"``; the language of the page unless given.

    Raises:
        traitlets.TraitError: the weights are not those of such a block, or too large; a number is not finite; the
            shapes do not fit; there is no such step or token. The message names the argument. What the explorer held
            before stays.
    """

    files = "block"
    state = ("weights", "n_heads", "activation", "eps", "x", "tokens", "norm", "residual", "step", "token", "times")

    weights = Arrays({name: np.zeros(shape) for name, shape in _shapes(1, 1).items()}, digits=DIGITS).tag(sync=True)
    n_heads = t.Int(1).tag(sync=True)
    activation = t.Enum(list(reference.ACTIVATIONS), "gelu").tag(sync=True)
    eps = t.Float(1e-5).tag(sync=True)
    x = Matrix([[0.0]], digits=DIGITS).tag(sync=True)
    tokens = t.List(t.Unicode(), [""]).tag(sync=True)
    norm = t.Enum(["pre", "post", "none"], "pre").tag(sync=True)
    residual = t.Bool(True).tag(sync=True)
    step = t.Int(0).tag(sync=True)
    token = t.Int(0).tag(sync=True)
    times = t.Int(1).tag(sync=True)

    def __init__(self, block: Any, x: Any, tokens: Any, *, norm: str | None = None, **kwargs: Any) -> None:
        own = _read(block) if hasattr(block, "state_dict") else {"weights": block}
        super().__init__(**own | ({} if norm is None else {"norm": norm}) | {"x": x, "tokens": tokens} | kwargs)

    @t.validate("weights", "n_heads", "eps", "x", "tokens", "norm", "residual", "step", "token", "times")
    def _fits(self, proposal: Any) -> Any:
        now = {name: getattr(self, name) for name in self.state} | {proposal["trait"].name: proposal["value"]}
        n, d, (d_model, _) = len(now["x"]), len(now["x"][0]), _sizes(now["weights"])
        if d != d_model:
            raise t.TraitError(f"x: expected (T, d_model={d_model}) as in the block, got ({n}, {d})")
        if n > MOST["tokens"]:
            raise t.TraitError(f"x: expected at most {MOST['tokens']} tokens, got {n}")
        if len(now["tokens"]) != n:
            raise t.TraitError(f"tokens: expected one for each of the {n} rows of x, got {len(now['tokens'])}")
        if now["n_heads"] < 1 or d % now["n_heads"]:
            raise t.TraitError(f"n_heads: expected a divisor of d_model={d}, got {now['n_heads']!r}")
        if not 0 <= now["eps"] < np.inf:
            raise t.TraitError(f"eps: expected a finite number not below 0, got {now['eps']!r}")
        last = 7 + 2 * (now["norm"] != "none") + 2 * now["residual"]
        for name, low, high in (("step", 0, last), ("token", 0, n - 1), ("times", 1, TIMES)):
            if isinstance(now[name], bool) or not low <= now[name] <= high:
                raise t.TraitError(f"{name}: expected a whole number from {low} to {high}, got {now[name]!r}")
        return proposal["value"]

    @property
    def steps(self) -> dict[str, list[reference.Array]]:
        """The steps of the last application, in order, each with its matrices (:func:`llmbook.reference.block`)."""
        options = {name: getattr(self, name) for name in ("n_heads", "norm", "residual", "activation", "eps")}
        made = reference.block(self.x, self.weights, **options)
        for _ in range(self.times - 1):
            made = reference.block(list(made.values())[-1][0], self.weights, **options)
        return made

    def __repr__(self) -> str:
        n, d_ff = len(self.tokens), len(self.weights["feed_forward.W_1.bias"])
        residual = "" if self.residual else ", residual=False"
        return (f"BlockExplorer({n} tokens, d_model={len(self.x[0])}, {self.n_heads} heads, d_ff={d_ff}, "
                f"norm={self.norm!r}{residual}, step={self.step}, token={self.token})")  # fmt: skip

    def fallback(self) -> str:
        """The chosen token's row in every step as a table; the rows of several matrices are parted by a bar."""
        rows = ((name, [m[self.token] for m in made]) for name, made in self.steps.items())
        written = ((name, " | ".join(" ".join(f"{x:.2f}" for x in row) for row in several)) for name, several in rows)
        return table(["", self.tokens[self.token]], *written)


def _read(block: Any) -> dict[str, Any]:
    """The traits that a Block says itself."""
    try:
        own, heads = block.state_dict(), block.attention
        if block.cross is not None or heads.rotary:
            raise t.TraitError("block: expected one without cross-attention and rotary positions")
        return {
            "weights": own,
            "n_heads": heads.n_heads,
            "norm": "pre" if block.pre else "post",
            "eps": block.attention_norm.eps,
            "activation": block.feed_forward.activation.__name__.strip("_"),
        }
    except AttributeError:
        raise t.TraitError(f"block: expected a Block, or its weights by name, got {type(block).__name__}") from None


def _sizes(weights: dict[str, Any]) -> tuple[int, int]:
    """d_model and d_ff of weights that are those of a block, and not too large."""
    if set(weights) != set(_shapes(1, 1)):
        raise t.TraitError(f"weights: expected {', '.join(_shapes(1, 1))}, got {', '.join(map(str, weights))}")
    d_model, d_ff = len(weights["attention.W_o.bias"]), len(weights["feed_forward.W_1.bias"])
    for name, shape in _shapes(d_model, d_ff).items():
        if (got := np.shape(weights[name])) != shape:
            raise t.TraitError(f"weights: expected {name} {shape} with d_model={d_model} and d_ff={d_ff}, got {got}")
    for name, size in (("d_model", d_model), ("d_ff", d_ff)):
        if size > MOST[name]:
            raise t.TraitError(f"weights: expected {name} of at most {MOST[name]}, got {size}")
    return d_model, d_ff
