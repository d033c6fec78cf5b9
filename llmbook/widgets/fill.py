"""FillExplorer: hide tokens of a sentence, and a trained masked language model says what may have stood there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import traitlets as t

from .. import reference
from ..capture import capture
from ..checks import check_sizes
from ..text import CLS, MASK, SEP, SPECIAL, encode
from .base import table
from .live import CuttingExplorer, Text, _within, loaded, without
from .tokenizers import label

FIRST: dict[str, dict[str, Any]] = {  # what is shown unless a text is given; the first example of the module
    "mlm-en": {"text": "My brother can speak French, but he cannot write it.", "masked": [5], "head": 1},
    "mlm-zh": {"text": "我的哥哥会说法语，但是不会写。", "masked": [7], "head": 4},
}


class Prediction(NamedTuple):
    """What the model says of the hidden token at ``position``: its ``likeliest`` tokens, each with its probability.

    ``token`` is the true token, ``rank`` its place among all tokens, from 1, and ``loss`` is −ln p of it in nats; all
    three are ``None`` where the text itself says ``[MASK]``.
    """

    position: int
    token: str | None
    rank: int | None
    loss: float | None
    likeliest: list[tuple[str, float]]


class FillExplorer(CuttingExplorer):
    """A shipped masked language model on the page: click a token to hide it, and see what the model puts in its place.

    The text becomes ``[CLS] … [SEP]``, as many tokens as the model can read; the rest is not read. Hidden tokens become
    ``[MASK]``, and so does a ``[MASK]`` in the text, which has no true token. For each hidden token there are the five
    likeliest tokens, and the rank, probability and loss −ln p of the true one; below them the mean loss, and exp of its
    negative, the geometric mean of the probabilities of the true tokens. All heads are shown in small and one in
    large. A head can be cut: its output becomes 0, and beside each probability stands the one with all heads. Every
    argument is also a trait: read it, set it, ``observe`` it. When the text changes, hidden tokens stay where there
    still is an ordinary token.

    Args:
        model: ``"mlm-en"`` or ``"mlm-zh"``.
        text: at most 10,000 characters; a sentence in the language of the model unless given. Lone surrogates become
            U+FFFD.
        masked: the numbers of the tokens that are hidden; ``[CLS]`` is token 0. None unless given with a text.
        off: the heads that are cut, a list of ``(layer, head)``.
        layer, head: the head that is shown large.
        view: ``"matrix"`` or ``"lines"``.
        query: the number of the token whose row stands out; the first hidden one unless given.
        lang: ``"en"`` or ``"zh"``; the language of the page unless given.

    Raises:
        traitlets.TraitError: there is no such model, head or token, the text is too long, or ``masked`` has the number
            of a special token. The message names the argument. What the explorer held before stays.
    """

    files = "fill"
    state = ("model", "text", "masked", "off", "layer", "head", "view", "query")
    kind = "MaskedLM"

    text = Text("").tag(sync=True)
    masked = t.List(t.Int(), []).tag(sync=True)
    query = t.Int(None, allow_none=True).tag(sync=True)

    def __init__(self, model: str = "mlm-en", text: str | None = None, masked: Any = None, **kwargs: Any) -> None:
        given = {} if masked is None else {"masked": masked}
        sentence = FIRST.get(model, {}) if text is None else {"text": text}
        super().__init__(model, **(sentence | given | kwargs))

    @t.validate("masked", "query")
    def _there(self, proposal: Any) -> Any:
        name, value, row = proposal["trait"].name, proposal["value"], self._row()
        if name == "query":
            return None if value is None else _within("query", value, 0, len(row))
        for i in value:
            if row[_within("masked", i, 0, len(row))] < len(SPECIAL):
                raise t.TraitError(f"masked: expected numbers of ordinary tokens, got {i}, which is {self.tokens[i]}")
        return sorted(set(value))

    @t.observe("model", "text")
    def _go_on(self, _: Any) -> None:
        row = self._row()
        self.masked = [i for i in self.masked if i < len(row) and row[i] >= len(SPECIAL)]
        if self.query is not None and self.query >= len(row):
            self.query = None

    def _row(self) -> tuple[int, ...]:
        self._shipped({"value": self.model})  # in case that both are refused
        return _read(self.model, self.text)

    @property
    def tokens(self) -> list[str]:
        """The T tokens of the text, ``[CLS]`` first and ``[SEP]`` last, none of them hidden; blanks as ``␣``."""
        return self._labels(self._row())

    def _labels(self, ids: Sequence[int]) -> list[str]:
        return [label(loaded(self.model)[1], i) for i in ids]

    @property
    def hidden(self) -> list[int]:
        """The numbers of the tokens that are hidden: those of ``masked``, and where the text says ``[MASK]``."""
        return [i for i, token in enumerate(self._row()) if i in self.masked or token == MASK]

    @property
    def attention(self) -> reference.Array:
        """The attention weights of every head ``(L, H, T, T)``, cut or not."""
        return self._run()[1]

    def _run(self) -> tuple[reference.Array, reference.Array]:
        """Probabilities ``(K, V)`` at the hidden tokens, and attention weights."""
        model, hidden = loaded(self.model)[0], self.hidden
        ids = torch.tensor([[MASK if i in hidden else token for i, token in enumerate(self._row())]])
        with torch.no_grad(), without(model, self.off), capture(model) as maps:
            logits = model(ids)[0]
        return logits.softmax(-1)[hidden].numpy(), torch.cat(maps).numpy()

    def predictions(self, k: int = 5) -> list[Prediction]:
        """What the model says of each hidden token; of tokens equally likely the one with the lower id is first.

        Raises:
            ValueError: k is below 1.
        """
        check_sizes(k=k)
        row, found = self._row(), []
        for i, p in zip(self.hidden, self._run()[0], strict=True):
            order = np.argsort(-p, kind="stable")
            likeliest = list(zip(self._labels(order[:k].tolist()), p[order[:k]].tolist(), strict=True))
            true = row[i]
            if true == MASK:
                found.append(Prediction(i, None, None, None, likeliest))
            else:
                rank, loss = int(np.flatnonzero(order == true)[0]) + 1, float(-np.log(p[true]))
                found.append(Prediction(i, self.tokens[i], rank, loss, likeliest))
        return found

    @property
    def loss(self) -> float | None:
        """The mean loss over the hidden tokens in nats; ``None`` where none has a true token."""
        losses = [prediction.loss for prediction in self.predictions(1) if prediction.loss is not None]
        return sum(losses) / len(losses) if losses else None

    def __repr__(self) -> str:
        loss = "" if self.loss is None else f", loss={self.loss:.3f}"
        cut = f", off={self.off}" if self.off else ""
        return f"FillExplorer({self.model}, {len(self.tokens)} tokens, hidden={self.hidden}{loss}{cut})"

    def fallback(self) -> str:
        """A table of the hidden tokens: loss and rank of the true one, and the five likeliest."""
        if not self.hidden:
            return table(list(map(str, range(len(self.tokens)))), self.tokens)
        rows = [
            [f"{i} {token or '[MASK]'}", *("–" if loss is None else f"{loss:.3f}", str(rank or "–")),
             *(f"{guess} {p:.3f}" for guess, p in likeliest)]
            for i, token, rank, loss, likeliest in self.predictions()
        ]  # fmt: skip
        return table(["", "−ln p", "#", *map(str, range(1, 6))], *rows)


@lru_cache
def _read(model: str, text: str) -> tuple[int, ...]:
    """The ids that a model reads of a text ``(T,)``."""
    network, tokenizer = loaded(model)
    return (CLS, *encode(tokenizer, text)[: network.config.max_len - 2], SEP)
