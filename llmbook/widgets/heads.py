"""HeadsExplorer: what each attention head of a trained model reads, layer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import traitlets as t

from .base import Explorer, _items, table

LONGEST = 32  # tokens
DIGITS = 3  # that are kept of a weight
SLACK = 1e-2  # by which a row's sum may differ from 1


class Maps(t.TraitType[list[list[list[list[float]]]], Any]):
    """A trait that holds the weights of every head as nested lists ``(L, H, T, T)``, rounded to three decimals.

    Takes what :func:`llmbook.capture.capture` leaves, or lists, numpy arrays and tensors ``(L, H, T, T)``.
    """

    info_text = "attention weights (L, H, T, T)"

    def validate(self, obj: Any, value: Any) -> list[list[list[list[float]]]]:
        """Convert ``value``; raises TraitError naming the trait and what is wrong."""
        name = self.name
        layers = [_layer(name, layer) for layer in _items(name, value, "layers")]
        if len({layer.shape for layer in layers}) > 1:
            raise t.TraitError(f"{name}: expected layers of one shape, got {[layer.shape for layer in layers]}")
        maps = np.stack(layers)
        if (n := maps.shape[-1]) > LONGEST:
            raise t.TraitError(f"{name}: expected at most {LONGEST} tokens, got {n}")
        if (wrong := ~(np.isfinite(maps) & (maps >= 0))).any():
            raise t.TraitError(f"{name}: expected finite numbers not below 0, got {maps[wrong][0]}")
        rounded = maps.round(DIGITS)
        slack = n / 2 / 10**DIGITS if (rounded == maps).all() else 0.0  # what was rounded may be put in again
        off = np.abs(maps.sum(-1) - 1)
        if off.max() > max(SLACK, slack + 1e-9):
            layer, head, row = (int(i) for i in np.unravel_index(off.argmax(), off.shape))
            raise t.TraitError(f"{name}: expected rows that sum to 1, got {maps[layer, head, row].sum():.4g} "
                               f"in layer {layer}, head {head}, row {row}")  # fmt: skip
        kept: list[list[list[list[float]]]] = rounded.tolist()
        return kept


def _layer(name: str | None, value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The weights of one layer ``(H, T, T)``: those given, or the first row of a batch."""
    expected = f"{name}: expected layers of weights (B, H, T, T) or (H, T, T)"
    try:
        array = np.array(value.tolist() if hasattr(value, "tolist") else value)
    except (ValueError, RuntimeError):
        raise t.TraitError(f"{expected}, got what makes no array") from None
    if array.size == 0 or array.ndim not in (3, 4) or array.shape[-1] != array.shape[-2]:
        raise t.TraitError(f"{expected}, got {array.shape}")
    if array.dtype.kind not in "fiu":
        raise t.TraitError(f"{expected}, got {array.flatten().tolist()[0]!r} in one")
    return (array[0] if array.ndim == 4 else array).astype(float)


class HeadsExplorer(Explorer):
    """A small map of every head; the chosen one large, as a matrix or as lines, alone or beside a second.

    Choosing a query token lists the tokens that it looks at most. Below each head stand four means over its rows: the
    weight on the token itself, on the one before and on the one after, and the effective number of keys exp(H), where
    H is the entropy of a row in nats. Layers, heads and tokens are numbered from 0. Every argument is also a trait:
    read it, set it, ``observe`` it. To show another sentence, set ``weights`` and ``tokens`` inside
    ``with explorer.hold_trait_notifications():``.

    .. code-block:: python

        with capture(model) as maps, torch.no_grad():
            model(ids)
        HeadsExplorer(maps, tokens, layer=1, head=3)

    Args:
        weights: what :func:`llmbook.capture.capture` leaves, a list of L tensors ``(B, H, T, T)`` of whose batch the
            first row is shown; or an array ``(L, H, T, T)``. Kept to three decimals.
        tokens: the T tokens, at most 32.
        layer, head: the head that is shown large.
        compare: ``(layer, head)`` of the one beside it; none unless given.
        view: ``"matrix"`` or ``"lines"``.
        query: the number of the token whose row stands out; none unless given.
        lang: ``"en"`` or ``"zh"``; the language of the page unless given.

    Raises:
        traitlets.TraitError: the weights have another shape, are negative or not finite, or have a row that does not
            sum to 1 (to 1e-2); there are more than 32 tokens, or not T of them; there is no such layer, head or
            token. The message names the argument. What the explorer held before stays.
    """

    files = "heads"
    state = ("weights", "tokens", "layer", "head", "compare", "view", "query")

    weights = Maps([[[[1.0]]]]).tag(sync=True)
    tokens = t.List(t.Unicode(), [""]).tag(sync=True)
    layer = t.Int(0).tag(sync=True)
    head = t.Int(0).tag(sync=True)
    compare = t.Tuple(t.Int(), t.Int(), default_value=None, allow_none=True).tag(sync=True)
    view = t.Enum(["matrix", "lines"], "matrix").tag(sync=True)
    query = t.Int(None, allow_none=True).tag(sync=True)

    def __init__(self, weights: Any, tokens: Any, *, layer: int = 0, head: int = 0, **kwargs: Any) -> None:
        super().__init__(weights=weights, tokens=tokens, layer=layer, head=head, **kwargs)

    @t.validate("weights", "tokens", "layer", "head", "compare", "query")
    def _fits(self, proposal: Any) -> Any:
        now = {name: getattr(self, name) for name in self.state} | {proposal["trait"].name: proposal["value"]}
        n_layers, n_heads, n = len(now["weights"]), len(now["weights"][0]), len(now["weights"][0][0])
        if (got := len(now["tokens"])) != n:
            raise t.TraitError(f"tokens: expected one for each of the {n} rows of the weights "
                               f"({n_layers}, {n_heads}, {n}, {n}), got {got}")  # fmt: skip
        _place("layer", now["layer"], n_layers)
        _place("head", now["head"], n_heads)
        if now["compare"] is not None:
            for number, limit in zip(now["compare"], (n_layers, n_heads), strict=True):
                _place("compare", number, limit)
        if now["query"] is not None:
            _place("query", now["query"], n)
        return proposal["value"]

    def __repr__(self) -> str:
        beside = f", compare={self.compare}" if self.compare else ""
        return (f"HeadsExplorer({len(self.weights)} layers, {len(self.weights[0])} heads, {len(self.tokens)} tokens, "
                f"layer={self.layer}, head={self.head}{beside})")  # fmt: skip

    def fallback(self) -> str:
        """The weights of the chosen head as a table: a row a query, a column a key."""
        rows = zip(self.tokens, self.weights[self.layer][self.head], strict=True)
        corner = f"weights[{self.layer}][{self.head}]"
        return table([corner, *self.tokens], *([token, *(f"{w:.3f}" for w in row)] for token, row in rows))


def _place(name: str, number: int, limit: int) -> None:
    if isinstance(number, bool) or not 0 <= number < limit:
        raise t.TraitError(f"{name}: expected a whole number from 0 to {limit - 1}, got {number!r}")
