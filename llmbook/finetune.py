"""Fine-tuning an encoder on a small task: pre-trained, or from random weights, by the same rule.

    start = zoo.load("mlm-zh")[0].encoder          # or its .config: the same encoder from random weights
    result = finetune(start, tokenizer, task("zh-topic"), n=100, settings=Settings(lr=5e-4))
    evaluate(task("zh-topic"), result.predict)

The score on the development part is looked at ten times, and the weights with the best one are kept. A sentence is
classified by the mean over its tokens: masked language modelling never asks for anything at ``[CLS]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from llmbook.batches import Batches
from llmbook.checks import check_sizes
from llmbook.config import EncoderConfig
from llmbook.heads import SequenceClassifier, TokenClassifier
from llmbook.lm import IGNORE
from llmbook.modes import in_mode
from llmbook.tasks import Encoded, Example, Labels, Result, Task, encode, evaluate, spread
from llmbook.train import train
from llmbook.transformer import Encoder

LOOKS = 10
"""How often a run looks at the development part."""


@dataclass(frozen=True)
class Settings:
    """What a fine-tuning run depends on, besides its start, its data and its seed.

    Attributes:
        lr: the highest learning rate, after a warm-up of a tenth of the steps.
        steps: number of updates.
        batch_size: sentences in a batch; all of them, if there are fewer.
        dropout: in the encoder and before the head.

    Raises:
        ValueError: ``steps`` is below the number of looks at the development part, ``batch_size`` is not positive.
    """

    lr: float = 5e-4
    steps: int = 300
    batch_size: int = 16
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_sizes(batch_size=self.batch_size)
        if self.steps < LOOKS:
            raise ValueError(f"steps: expected at least {LOOKS}, one for each look at the dev part, got {self.steps}")


class FineTuned:
    """A fine-tuned model as a function of rows: ``(rows) -> labels``; the most probable label of each unit."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, task: Task) -> None:
        self.model, self.tokenizer, self.task = model, tokenizer, task

    @torch.no_grad()
    def __call__(self, rows: Sequence[Example]) -> list[Labels]:
        encoded = encode(self.task, self.tokenizer, rows)
        flat: list[int] = []
        with in_mode(self.model, training=False):
            for start in range(0, len(rows), 64):
                batch = Encoded(*(x[start : start + 64] for x in encoded)).trimmed()
                best = self.model(batch.ids, batch.mask).argmax(-1)
                flat += (best[batch.labels != IGNORE] if self.task.kind == "tokens" else best).tolist()
        return spread(rows, flat)


def classifier(start: Encoder | EncoderConfig, task: Task, *, seed: int = 0, dropout: float = 0.1) -> nn.Module:
    """The model that is trained: a copy of an encoder, or a new one, and a new head for the task.

    Raises:
        TypeError: ``start`` is neither an encoder nor the config of one.
    """
    if not isinstance(start, Encoder | EncoderConfig):
        raise TypeError(f"start: expected an Encoder (a MaskedLM has one: .encoder) or an EncoderConfig, "
                        f"got {type(start).__name__}")  # fmt: skip
    config = start.config if isinstance(start, Encoder) else start
    with torch.random.fork_rng([], device_type="cuda"):
        torch.default_generator.manual_seed(seed)
        encoder = Encoder(replace(config, dropout=dropout))  # draws in both cases: equal seeds give equal heads
        if isinstance(start, Encoder):
            encoder.load_state_dict(start.state_dict())
        if task.kind == "tokens":
            return TokenClassifier(encoder, len(task.labels), dropout=dropout)
        return SequenceClassifier(encoder, len(task.labels), pool="mean", dropout=dropout)


def loss(model: nn.Module, batch: Encoded) -> tuple[Tensor, Tensor]:
    """The cross-entropy as :func:`llmbook.train.train` asks for it: the sum over all labels, and their number."""
    logits, labels = model(batch.ids, batch.mask).flatten(0, -2), batch.labels.flatten()
    return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum"), (labels != IGNORE).sum()


def finetune(
    start: Encoder | EncoderConfig, tokenizer: Tokenizer, task: Task, n: int, *, seed: int = 0,
    settings: Settings | None = None,
) -> Result:  # fmt: skip
    """Train encoder and head on ``n`` labelled sentences; a function of its arguments, bit for bit on one thread.

    Args:
        start: a pre-trained encoder, which is not changed, or the config of one: random weights then.
        tokenizer: of the encoder.
        task: of which ``train`` is learnt from, and ``dev`` chosen by.
        n: number of labelled sentences.
        seed: of their choice, of the new weights, of the order and of dropout.
        settings: by default those of :class:`Settings`.

    Returns:
        The weights of the step whose score on ``dev`` was the best, the first of equals, as a predictor (``.model``).

    Raises:
        TypeError: ``start`` is neither an encoder nor the config of one.
        ValueError: there are not so many labelled sentences, or a row is longer than the encoder can read.
    """
    settings = settings or Settings()
    model = classifier(start, task, seed=seed, dropout=settings.dropout)
    rows = encode(task, tokenizer, task.rows(task.labelled(n, seed)))
    draw = Batches(rows, min(max(settings.batch_size // task.join, 1), len(rows.ids)), seed)
    predict = FineTuned(model, tokenizer, task)
    looks = {settings.steps * (i + 1) // LOOKS for i in range(LOOKS)}
    best, step, kept = -1.0, 0, {}
    for record in train(model, lambda i: draw(i).trimmed(), loss, steps=settings.steps, lr=settings.lr,
                        warmup=settings.steps // 10, seed=seed):  # fmt: skip
        if record.step in looks and (score := evaluate(task, predict, "dev")) > best:
            best, step, kept = score, record.step, {name: x.clone() for name, x in model.state_dict().items()}
    model.load_state_dict(kept)
    return Result(predict, best, {"step": step})


def tune(dev_score: Callable[[Settings, int], float], grid: Sequence[Settings], seeds: Sequence[int]) -> Settings:
    """The settings with the best mean of ``dev_score(settings, seed)`` over some seeds, the first of equals.

    Whatever is reported afterwards should have other seeds.

    Raises:
        ValueError: there is no setting, or no seed.
    """
    if not grid or not seeds:
        raise ValueError(f"grid, seeds: expected at least one of each, got {len(grid)} and {len(seeds)}")
    return max(grid, key=lambda settings: sum(dev_score(settings, seed) for seed in seeds))
