"""WriteExplorer: a trained causal language model writes on, one token at a time, and shows how each was chosen."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import traitlets as t

from .. import reference
from ..capture import capture
from ..checks import check_sizes
from ..generate import next_distribution
from ..text import CLS, SEP, encode
from .base import _uniform, table
from .live import CuttingExplorer, Text, _within, loaded, without
from .tokenizers import label

MOST = 64  # tokens written; the module has the same numbers
HOTTEST = 2  # temperature
SEED_LIMIT = 2**31
TOP = 12  # tokens that the table names
FIRST = {"gpt-en": "The king said to his son,", "gpt-zh": "秋夜\n"}  # the first examples of the module


class Scored(NamedTuple):
    """A token that the model reads, and what it gave it, having read those before it: probability, and rank from 1.

    Both are ``None`` for the first token, before which nothing stands.
    """

    token: str
    p: float | None
    rank: int | None


class WriteExplorer(CuttingExplorer):
    """A shipped causal language model on the page: it goes on with a text of the reader, token by token.

    The model reads ``[CLS]``, the text and what is written so far, of these the last ``max_len`` tokens. Its scores
    become the distribution from which :func:`llmbook.generate.generate` draws; the likeliest tokens are shown before
    and after temperature, ``top_k`` and ``top_p``. Token number ``n`` (from 0) of those written is drawn with the
    uniform number ``u`` of ``seed`` and ``n``, whatever the other settings: it is the first, most probable first and
    equals by id, at which the sum of the probabilities exceeds ``u``. So the same settings write the same, on the page
    and in Python. ``[SEP]`` ends a text, and so do 64 tokens. A head can be cut: its output becomes 0. Every argument
    is also a trait: read it, set it, ``observe`` it.

    .. code-block:: python

        explorer = WriteExplorer("gpt-en", "In the beginning", temperature=0.8, seed=3)
        explorer.write(20)

    Args:
        model: ``"gpt-en"`` or ``"gpt-zh"``.
        text: at most 10,000 characters; the beginning of a text such as the model has read unless given. Lone
            surrogates become U+FFFD.
        written: the ids of the tokens written so far, at most 64.
        temperature: from 0, greedy, to 2.
        top_k: how many tokens are kept; all if ``None``.
        top_p: the probability that the kept tokens must reach, above 0, at most 1; all are kept if ``None``.
        seed: of the numbers that decide.
        off: the heads that are cut, a list of ``(layer, head)``.
        layer, head: the head that is shown large.
        view: ``"matrix"`` or ``"lines"``.
        query: the number of the token that is chosen, of all of them; ``[CLS]`` is token 0.
        lang: ``"en"`` or ``"zh"``; the language of the page unless given.

    Raises:
        traitlets.TraitError: there is no such model, head or token, the text is too long, or a number is out of its
            range. The message names the argument. What the explorer held before stays.
    """

    files = "write"
    state = ("model", "text", "written", "temperature", "top_k", "top_p", "seed", "off", "layer", "head", "view",
             "query")  # fmt: skip
    kind = "CausalLM"

    text = Text("").tag(sync=True)
    written = t.List(t.Int(), []).tag(sync=True)
    temperature = t.Float(1.0).tag(sync=True)
    top_k = t.Int(None, allow_none=True).tag(sync=True)
    top_p = t.Float(0.9, allow_none=True).tag(sync=True)
    seed = t.Int(0).tag(sync=True)
    query = t.Int(None, allow_none=True).tag(sync=True)

    def __init__(self, model: str = "gpt-en", text: str | None = None, **kwargs: Any) -> None:
        super().__init__(model, **({"text": FIRST.get(model, "") if text is None else text} | kwargs))

    @t.validate("written")
    def _tokens(self, proposal: Any) -> list[int]:
        if (n := len(proposal["value"])) > MOST:
            raise t.TraitError(f"written: expected at most {MOST} tokens, got {n}")
        return [_within("written", i, 0, self._limit("vocab_size")) for i in proposal["value"]]

    @t.validate("temperature", "top_p")
    def _real(self, proposal: Any) -> float | None:
        name, value = proposal["trait"].name, proposal["value"]
        if name == "temperature" and not 0 <= value <= HOTTEST:
            raise t.TraitError(f"temperature: expected a number from 0 to {HOTTEST}, got {value!r}")
        if name == "top_p" and value is not None and not 0 < value <= 1:
            raise t.TraitError(f"top_p: expected None or a number above 0 and at most 1, got {value!r}")
        return None if value is None else float(value)

    @t.validate("top_k", "seed", "query")
    def _whole(self, proposal: Any) -> int | None:
        name, value = proposal["trait"].name, proposal["value"]
        if value is None:
            return None
        if name == "top_k":
            return _within(name, value, 1, self._limit("vocab_size") + 1)
        return _within(name, value, 0, SEED_LIMIT)

    @property
    def ids(self) -> list[int]:
        """The ids that the model reads ``(T,)``: of ``[CLS]``, the text and what is written, the last ``max_len``."""
        return [CLS, *_encoded(self.model, self.text), *self.written][-self._limit("max_len") :]

    @property
    def logits(self) -> reference.Array:
        """The scores of the next token ``(V,)``."""
        scores: reference.Array = self._scores()[-1].numpy()
        return scores

    @property
    def distribution(self) -> reference.Array:
        """The distribution that the next token is drawn from ``(V,)``, after temperature, ``top_k`` and ``top_p``."""
        p: reference.Array = self._distribution(self._scores()[-1]).numpy()
        return p

    def _distribution(self, logits: torch.Tensor) -> torch.Tensor:
        return next_distribution(logits, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)

    @property
    def u(self) -> float:
        """The uniform number that decides on the next token."""
        return _uniform(self.seed, len(self.written))

    @property
    def attention(self) -> reference.Array:
        """The attention weights of every head ``(L, H, T, T)``, cut or not."""
        model = loaded(self.model)[0]
        with capture(model) as maps:
            self._scores()
        weights: reference.Array = torch.cat(maps).numpy()
        return weights

    @property
    def tokens(self) -> list[Scored]:
        """The T tokens that the model reads, each with the probability and the rank that it gave it."""
        ids, logits = self.ids, self._scores()
        p = logits.softmax(-1)
        found = [Scored(self._label(ids[0]), None, None)]
        for i, token in enumerate(ids[1:]):
            above = (logits[i] > logits[i, token]).sum() + (logits[i, :token] == logits[i, token]).sum()
            found.append(Scored(self._label(token), float(p[i, token]), int(above) + 1))
        return found

    def _label(self, token: int) -> str:
        return label(loaded(self.model)[1], token)

    def _scores(self) -> torch.Tensor:
        """The scores of the next token at every place ``(T, V)``."""
        model = loaded(self.model)[0]
        with torch.no_grad(), without(model, self.off):
            logits: torch.Tensor = model(torch.tensor([self.ids]))[0]
        return logits

    @property
    def continuation(self) -> str:
        """What is written so far, as text."""
        text: str = loaded(self.model)[1].decode(self.written, skip_special_tokens=False)
        return text

    @property
    def ended(self) -> bool:
        """Whether ``[SEP]`` has ended the text, or 64 tokens are written."""
        return len(self.written) >= MOST or self.written[-1:] == [SEP]

    def step(self) -> None:
        """Write one more token, as the page does; once the text has ended, none."""
        if not self.ended:
            self.written = [*self.written, _draw(self.distribution, self.u)]

    def write(self, n: int) -> str:
        """Write ``n`` more tokens, fewer if the text ends before, and return :attr:`continuation`.

        Raises:
            ValueError: n is below 1.
        """
        check_sizes(n=n)
        for _ in range(n):
            self.step()
        return self.continuation

    def __repr__(self) -> str:
        cut = f", off={self.off}" if self.off else ""
        return (f"WriteExplorer({self.model}, {self.text!r} → {self.continuation!r}, temperature={self.temperature:g}, "
                f"top_k={self.top_k}, top_p={self.top_p}, seed={self.seed}{cut})")  # fmt: skip

    def fallback(self) -> str:
        """The likeliest next tokens as a table: their probabilities before and after temperature, top-k and top-p."""
        logits = self._scores()[-1]
        before, after = logits.softmax(-1).numpy(), self._distribution(logits).numpy()
        likeliest = np.argsort(-before, kind="stable")[:TOP].tolist()
        rows = [[self._label(i), f"{before[i]:.3f}", f"{after[i]:.3f}"] for i in likeliest]
        return table([self.text + self.continuation, "softmax(logits)", "p"], *rows)


def _draw(p: reference.Array, u: float) -> int:
    """The first token, most probable first and equals by id, at which the sum of the probabilities exceeds ``u``."""
    order = np.argsort(-p, kind="stable")
    order = order[p[order] > 0]
    passed = np.flatnonzero(p[order].cumsum() > u)
    return int(order[passed[0] if len(passed) else -1])  # rounding may leave the sum just below u


@lru_cache
def _encoded(model: str, text: str) -> tuple[int, ...]:
    return tuple(encode(loaded(model)[1], text))
