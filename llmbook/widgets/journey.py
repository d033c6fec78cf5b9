"""JourneyExplorer: one sentence on its way through a trained masked model, stage by stage, down to a single number."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import traitlets as t
from torch import Tensor

from ..mlm import MaskedLM
from ..positions import rotate
from ..text import CLS, MASK, SEP, SPECIAL, encode
from .base import table
from .live import LiveExplorer, Text, loaded
from .tokenizers import label

MOST = 24  # tokens that are read, [CLS] and [SEP] among them: so many rows can be told apart; the module has it too
SENTENCES = {  # for each model: a text, and the numbers of the tokens that are hidden; the first example of the module
    "mlm-en": ("Would you like a cup of coffee or tea?", [7]),
    "mlm-zh": ("你想喝咖啡还是喝茶？", [9]),
}
BLOCK = ("attention_norm", "qkv", "rotate", "scores", "weights", "heads", "project", "attention_sum",
         "feed_forward_norm", "hidden", "contract", "feed_forward_sum")  # fmt: skip
HEAD = ("norm", "transform", "head_norm", "logits", "probabilities")


class JourneyExplorer(LiveExplorer):
    """A sentence of the reader, and all that the masked language model makes of it: overview, stage, number.

    The overview shows the whole model as a flow, each stage a picture of its numbers. The chosen stage stands below
    it, large, with its equation and a row for each token; and of it one number, with the numbers of earlier stages
    that it was made of. The stages are ``"tokens"``, ``"embedding"``, for each block ``"1.attention_norm"``,
    ``"1.qkv"``, ``"1.rotate"``, ``"1.scores"``, ``"1.weights"``, ``"1.heads"``, ``"1.project"``,
    ``"1.attention_sum"``, ``"1.feed_forward_norm"``, ``"1.hidden"``, ``"1.contract"``, ``"1.feed_forward_sum"``, then
    ``"head.norm"``, ``"head.transform"``, ``"head.head_norm"``, ``"head.logits"``, ``"head.probabilities"``, and
    ``"loss"``. Every argument is also a trait: read it, set it, ``observe`` it.

    .. code-block:: python

        journey = JourneyExplorer("mlm-en", "He put on his coat.", masked=[5], stage="4.weights")
        journey.value("4.weights")[0, 5]  # what head 0 of the last block reads at the hidden token

    Args:
        model: ``"mlm-en"`` or ``"mlm-zh"``.
        text: the sentence, at most 10,000 characters; one in the language of the model unless given. At most 24 tokens
            are read, ``[CLS]`` and ``[SEP]`` among them. Lone surrogates become U+FFFD.
        masked: the numbers of the tokens that are hidden; ``[CLS]`` is token 0. None unless given with a text. When
            the text changes, they stay where there still is an ordinary token.
        stage: the stage that is shown.
        token: the number of the token whose row is followed through all stages; the first hidden one unless given.
            Where the text is shorter, it is its last.
        head: the attention head that is shown where there are several.
        component: the column of the number that is shown; where a stage has fewer, its last.
        lang: ``"en"`` or ``"zh"``; the language of the page unless given.

    Raises:
        traitlets.TraitError: there is no such model, stage, token, head or column, the text is too long, or ``masked``
            has the number of a special token. The message names the argument. What the explorer held before stays.
    """

    kind = "MaskedLM"
    files = "journey"
    state = ("model", "text", "masked", "stage", "token", "head", "component")

    text = Text().tag(sync=True)
    masked = t.List(t.Int()).tag(sync=True)
    stage = t.Unicode("tokens").tag(sync=True)
    token = t.Int(0).tag(sync=True)
    head = t.Int(0).tag(sync=True)
    component = t.Int(0).tag(sync=True)

    def __init__(self, model: str = "mlm-en", text: str | None = None, masked: Any = None, **kwargs: Any) -> None:
        sentence, hidden = SENTENCES.get(model, ("", [])) if text is None else (text, [])
        super().__init__(model, text=sentence, masked=hidden if masked is None else masked, **kwargs)
        if "token" not in kwargs:
            self.token = min(self.masked, default=0)

    @t.validate("masked")
    def _ordinary(self, proposal: Any) -> list[int]:
        there = [i for i, id in enumerate(self.ids) if id >= len(SPECIAL)]
        for i in proposal["value"]:
            if isinstance(i, bool) or i not in there:
                raise t.TraitError(f"masked: expected numbers of ordinary tokens, {there}, got {i!r}")
        return sorted(set(proposal["value"]))

    @t.observe("model", "text")
    def _go_on(self, _: Any) -> None:
        ids = self.ids
        self.masked = [i for i in self.masked if i < len(ids) and ids[i] >= len(SPECIAL)]

    @t.validate("stage")
    def _known(self, proposal: Any) -> Any:
        if proposal["value"] not in self.stages:
            raise t.TraitError(f"stage: expected one of {', '.join(self.stages)}, got {proposal['value']!r}")
        return proposal["value"]

    @t.validate("token", "head", "component")
    def _within(self, proposal: Any) -> Any:
        config = self._loaded()[0].config
        most = {"token": MOST, "head": config.n_heads, "component": config.vocab_size}
        name, i = proposal["trait"].name, proposal["value"]
        if isinstance(i, bool) or not 0 <= i < most[name]:
            raise t.TraitError(f"{name}: expected a whole number from 0 to {most[name] - 1}, got {i!r}")
        return i

    def _loaded(self) -> tuple[Any, Any]:
        self._shipped({"value": self.model})  # in case that it is refused as well
        return loaded(self.model)

    @property
    def stages(self) -> list[str]:
        """The keys of all stages, in order."""
        blocks = range(1, self._loaded()[0].config.n_layers + 1)
        steps = [f"{i}.{step}" for i in blocks for step in BLOCK]
        return ["tokens", "embedding", *steps, *(f"head.{step}" for step in HEAD), "loss"]

    @property
    def ids(self) -> list[int]:
        """The token ids of the text that is read, nothing hidden: ``[CLS]``, at most 22 of the text, ``[SEP]``."""
        return [CLS, *encode(self._loaded()[1], self.text)[: MOST - 2], SEP]

    @property
    def tokens(self) -> list[str]:
        """The same as labels: blanks as ``␣``."""
        return [label(loaded(self.model)[1], id) for id in self.ids]

    def value(self, stage: str) -> Tensor:
        """All numbers of a stage, by torch.

        Args:
            stage: one of :attr:`stages`.

        Returns:
            float64 ``(T, columns)``; or ``(n_heads, T, columns)`` of ``qkv``, ``rotate``, ``scores``, ``weights`` and
            ``heads``. In ``qkv`` and ``rotate`` a head's queries, keys (and values) stand side by side. ``"tokens"``
            are the ids that the model sees, and ``"loss"`` is −ln p of the true token, NaN where none is hidden.

        Raises:
            ValueError: there is no such stage.
        """
        if stage not in self.stages:
            raise ValueError(f"stage: expected one of {', '.join(self.stages)}, got {stage!r}")
        return _values(self.model, tuple(self.ids), tuple(self.masked))[stage].clone()

    @property
    def loss(self) -> float | None:
        """The mean loss of the hidden tokens in nats; ``None`` where there are none."""
        return self.value("loss")[self.masked].mean().item() if self.masked else None

    @property
    def number(self) -> float:
        """The number that is shown; NaN at a token that has no loss."""
        values = self.value(self.stage)
        token, column = min(self.token, values.shape[-2] - 1), min(self.component, values.shape[-1] - 1)
        return float(values[(self.head, token, column) if values.ndim == 3 else (token, column)])

    def __repr__(self) -> str:
        place = f"stage={self.stage!r}, token={self.token}, head={self.head}, component={self.component}"
        return f"JourneyExplorer({self.model!r}, {len(self.ids)} tokens, masked={self.masked}, {place})"

    def fallback(self) -> str:
        """The five likeliest tokens at each hidden one, with their probabilities, beside −ln p of the true one."""
        p, rows = self.value("head.probabilities"), []
        for i in self.masked:
            top, loss = p[i].topk(5), -p[i, self.ids[i]].log()
            likeliest = zip(top.values.tolist(), top.indices.tolist(), strict=True)
            told = [f"{label(loaded(self.model)[1], j)} {x:.3f}" for x, j in likeliest]
            rows.append([f"{i} {self.tokens[i]}", f"{loss:.3f}", *told])
        return table(["[MASK]", "−ln p", "1", "2", "3", "4", "5"], *rows)


@lru_cache(maxsize=2)
@torch.no_grad()
def _values(name: str, ids: tuple[int, ...], masked: tuple[int, ...]) -> dict[str, Tensor]:
    """All stages of a model's way through ``ids (T,)``, of which ``masked`` are hidden."""
    model = loaded(name)[0]
    seen = torch.tensor([MASK if i in masked else id for i, id in enumerate(ids)])
    x = model.encoder.embedding(seen[None])[0]
    made = {"tokens": seen[:, None].double(), "embedding": x}
    for i, block in enumerate(model.encoder.blocks, 1):
        steps = _block(block, x)
        made |= {f"{i}.{step}": steps[step] for step in BLOCK}
        x = steps["feed_forward_sum"]
    made |= {f"head.{step}": values for step, values in _head(model, x).items()}
    losses = torch.full((len(ids), 1), torch.nan, dtype=torch.float64)
    for i in masked:
        losses[i] = -made["head.logits"][i].log_softmax(-1)[ids[i]]
    return made | {"loss": losses}


def _block(block: Any, x: Tensor) -> dict[str, Tensor]:
    """All steps of a block with pre-norm and rotary positions on ``x (T, d_model)``, by its own modules."""
    attention, feed_forward, at = block.attention, block.feed_forward, torch.arange(len(x))
    n = block.attention_norm(x)
    q, k, v = (z.unflatten(-1, (attention.n_heads, -1)).transpose(0, 1) for z in attention.W_qkv(n).chunk(3, -1))
    turned = rotate(q, at), rotate(k, at)  # (H, T, d_k) each
    scores = turned[0] @ turned[1].transpose(-2, -1) / attention.d_k**0.5
    weights = scores.softmax(-1)
    mixed = weights @ v
    o = attention.W_o(mixed.transpose(0, 1).flatten(-2))
    a = x + o
    z = block.feed_forward_norm(a)
    h = feed_forward.activation(feed_forward.W_1(z))
    f = feed_forward.W_2(h)
    return {
        "attention_norm": n, "qkv": torch.cat((q, k, v), -1), "rotate": torch.cat(turned, -1), "scores": scores,
        "weights": weights, "heads": mixed, "project": o, "attention_sum": a, "feed_forward_norm": z, "hidden": h,
        "contract": f, "feed_forward_sum": a + f,
    }  # fmt: skip


def _head(model: MaskedLM, x: Tensor) -> dict[str, Tensor]:
    """The steps from the last block's vectors ``(T, d_model)`` to probabilities, by the model's own modules."""
    n = model.encoder.norm(x)
    transformed = model.activation(model.transform(n))
    u = model.norm(transformed)
    logits = u @ model.encoder.embedding.tokens.weight.T + model.bias
    return dict(zip(HEAD, (n, transformed, u, logits, logits.softmax(-1)), strict=True))
