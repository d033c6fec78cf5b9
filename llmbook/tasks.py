"""Small labelled tasks to fine-tune on, made of the sentences that pre-training never reads.

Four tasks come out of :func:`llmbook.text.graded`::

    zh-words        each character of a Chinese sentence begins, continues or ends a word, or is one     F1 of words
    zh-topic        what a Chinese sentence is about, one of eight topics                                accuracy
    en-punctuation  which mark follows each word of English that has lost its marks and capitals         F1 of marks
    en-topic        as zh-topic, of the English translations                                             accuracy

Three parts never share a sentence: ``train``, of which the first n of a seeded order are the labelled sentences (30
are within 100, 100 within 300); ``dev``, for choices alone; ``test``, for the score that is reported.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from llmbook import text
from llmbook.lm import IGNORE
from llmbook.text import Graded

DEV, DEV_SHARE, TEST_SHARE = 200, 0.1, 0.4
"""Sentences for choices, the same number in all tasks; the shares of :func:`llmbook.text.split`."""

TAGS = ("B", "M", "E", "S")
"""A character begins a word, is in the middle of one, ends one, or is one."""

MARKS = ("", ",", ".", "?", "!")
TOPICS = ("feelings", "school_work", "sports_leisure", "identity", "daily_actions", "shopping", "transport", "location")
"""The eight most frequent topics, but for those that gather what is left over (``objects_misc``, ``misc``)."""

Labels = tuple[int, ...]


class Example(NamedTuple):
    """A sentence and its labels.

    Attributes:
        id: of the sentence in the corpus.
        source: the sentence as the corpus has it.
        units: what the task shows of it: Chinese characters, or English words.
        labels: one a unit, -100 for none; in a task of sentences a single one.
    """

    id: str
    source: str
    units: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Task:
    """What is to be learnt, from what, and how it is measured.

    Attributes:
        name: for example ``"zh-words"``.
        language: ``"en"`` or ``"zh"``.
        kind: ``"tokens"``, a label for every unit, or ``"sentence"``, one for the whole.
        labels: their names.
        measure: a name in :data:`MEASURES`.
        splits: ``"train"``, ``"dev"`` and ``"test"``.
        join: sentences in a row that is read at once.
    """

    name: str
    language: str
    kind: str
    labels: tuple[str, ...]
    measure: str
    splits: Mapping[str, tuple[Example, ...]]
    join: int = 1

    @property
    def blank(self) -> str:
        """What stands between two units."""
        return " " if self.language == "en" else ""

    def rows(self, examples: Sequence[Example]) -> list[Example]:
        """The examples as they are read, ``join`` at a time: their units and labels in one row."""
        if self.join == 1:
            return list(examples)
        groups = [examples[i : i + self.join] for i in range(0, len(examples), self.join)]
        return [Example(" ".join(e.id for e in group), " ".join(e.source for e in group),
                        tuple(unit for e in group for unit in e.units), tuple(y for e in group for y in e.labels))
                for group in groups]  # fmt: skip

    def labelled(self, n: int, seed: int) -> list[Example]:
        """The first ``n`` training sentences in an order that depends on ``seed``: fewer are always among more.

        Raises:
            ValueError: ``n`` is below 1 or above the number of training sentences.
        """
        train = self.splits["train"]
        if not 1 <= n <= len(train):
            raise ValueError(f"n: expected 1 to {len(train)} labelled sentences of {self.name}, got {n}")
        return [train[i] for i in np.random.default_rng(seed).permutation(len(train))[:n]]

    def score(self, rows: Sequence[Example], predicted: Sequence[Labels]) -> float:
        """How good the labels are that were predicted for some rows, from 0 to 1.

        Args:
            rows: with the right labels.
            predicted: as many labels for each; where the right one is -100 it does not matter which.

        Raises:
            ValueError: there are more or fewer of them.
        """
        gold = [row.labels for row in rows]
        if [len(x) for x in gold] != [len(x) for x in predicted]:
            raise ValueError(f"predicted: expected as many labels as the {len(gold)} rows have, {sum(map(len, gold))} "
                             f"in all, got {sum(map(len, predicted))} in {len(predicted)} rows")  # fmt: skip
        return MEASURES[self.measure](gold, predicted)


Predictor = Callable[[Sequence[Example]], list[Labels]]
"""The labels of some rows; it must not look at those that they have."""


class Result(NamedTuple):
    """What some labelled sentences taught: ``predict``; its score ``dev``, by which ``chosen`` was chosen."""

    predict: Callable[[Sequence[Example]], list[tuple[int, ...]]]
    dev: float
    chosen: dict[str, Any]


def evaluate(task: Task, predict: Predictor, part: str = "test") -> float:
    """The score of a predictor on a part of a task."""
    rows = task.rows(task.splits[part])
    return task.score(rows, predict(rows))


# ---- The four tasks


def task(name: str) -> Task:
    """One of the four tasks.

    Equal sentences are there once, and a sentence that nearly repeats one of a later part (``train``, ``dev``,
    ``test``) is left out. Sentences whose English is missing in the corpus are in the Chinese tasks alone.

    Args:
        name: one of :data:`TASKS`.

    Raises:
        ValueError: another name.
        FetchError: the text cannot be had.
    """
    if name not in TASKS:
        raise ValueError(f"name: expected one of {', '.join(TASKS)}, got {name!r}")
    make, settings = TASKS[name]
    language = name[:2]
    records = [record for record in _distinct(language) if settings["kind"] == "tokens" or record.topic in TOPICS]
    parts = text.split(records, dev=DEV_SHARE, test=TEST_SHARE)
    held_out = [*parts["dev"], *parts["test"]]
    chosen = {"train": _far(language, parts["train"], held_out), "dev": _far(language, parts["dev"], parts["test"]),
              "test": parts["test"]}  # fmt: skip
    order = np.random.default_rng(0)
    splits = {part: tuple(make(found[i], language) for i in order.permutation(len(found)))
              for part, found in chosen.items()}  # fmt: skip
    return Task(name, language, splits={**splits, "dev": splits["dev"][:DEV]}, **settings)


def _distinct(language: str) -> list[Graded]:
    """The graded sentences that are there in a language, the first of each set of equals."""
    there = [record for record in text.graded() if getattr(record, language)]
    first = {"".join(c for c in getattr(r, language).casefold() if c.isalnum()): r for r in reversed(there)}
    return list(reversed(first.values()))


def _far(language: str, records: list[Graded], others: list[Graded]) -> list[Graded]:
    """The records that are not near duplicates of others."""
    sentences, seen = ([getattr(record, language) for record in found] for found in (records, others))
    near = text.near_duplicates(sentences, seen)
    return [record for record, i in zip(records, near, strict=True) if i < 0]


def _words(record: Graded, language: str) -> Example:
    """Characters with their tags. Punctuation is read, but has no label: that it parts words is no question."""
    tags = [tag for word in record.words for tag in ("S" if len(word) == 1 else f"B{'M' * (len(word) - 2)}E")]
    ids = iter([TAGS.index(tag) for tag in tags])
    return Example(record.id, record.zh, tuple(record.zh), tuple(next(ids) if c.isalnum() else IGNORE
                                                                 for c in record.zh))  # fmt: skip


def _punctuation(record: Graded, language: str) -> Example:
    """Words in small letters, without the marks at their end; of several marks the last one is asked for."""
    words = [(word, word.rstrip(",.?!")) for word in record.en.lower().split()]
    labels = tuple(MARKS.index(word[-1]) if word != bare else 0 for word, bare in words if bare)
    return Example(record.id, record.en, tuple(bare for _, bare in words if bare), labels)


def _topic(record: Graded, language: str) -> Example:
    sentence = getattr(record, language)
    units = tuple(sentence) if language == "zh" else tuple(sentence.split())
    return Example(record.id, sentence, units, (TOPICS.index(record.topic),))


_TOPIC = {"kind": "sentence", "labels": TOPICS, "measure": "accuracy"}
TASKS: dict[str, tuple[Callable[[Graded, str], Example], dict[str, Any]]] = {
    "zh-words": (_words, {"kind": "tokens", "labels": TAGS, "measure": "word F1"}),
    "zh-topic": (_topic, _TOPIC),
    # three in a row: in one sentence alone the last word's full stop is nearly all that there is to say
    "en-punctuation": (_punctuation, {"kind": "tokens", "labels": MARKS, "measure": "mark F1", "join": 3}),
    "en-topic": (_topic, _TOPIC),
}
"""Of each task how a record becomes an example, and the fields of :class:`Task` that it determines."""


# ---- As token ids


class Encoded(NamedTuple):
    """Rows of token ids: ``ids (N, T)``; the padding ``mask (N, 1, 1, T)``; ``labels``, ``(N, T)`` with -100 where
    there is none, or in a task of sentences ``(N,)``."""

    ids: Tensor
    mask: Tensor
    labels: Tensor

    def trimmed(self) -> Encoded:
        """Without the columns that are padding in all rows."""
        width = int(self.mask.sum(-1).max())
        labels = self.labels[:, :width] if self.labels.ndim == 2 else self.labels
        return Encoded(self.ids[:, :width], self.mask[..., :width], labels)


def encode(task: Task, tokenizer: Tokenizer, rows: Sequence[Example]) -> Encoded:
    """Rows as ``[CLS] … [SEP]`` and filling; a unit's label stands at its last token.

    Args:
        task: whose rows they are.
        tokenizer: any that knows ``[PAD]``, ``[CLS]`` and ``[SEP]``: the book's, or BERT's.
        rows: of :meth:`Task.rows`.

    Raises:
        ValueError: there are no rows, the tokenizer lacks a special token, or finds no token in a unit.
    """
    if not rows:
        raise ValueError("rows: expected at least one, got none")
    pad, cls, sep = (_special(tokenizer, token) for token in ("[PAD]", "[CLS]", "[SEP]"))
    pieces = functools.cache(lambda unit: text.encode(tokenizer, unit))
    sequences, targets = [], []
    for row in rows:
        cut = [pieces((task.blank if i else "") + unit) for i, unit in enumerate(row.units)]
        if not all(cut):
            raise ValueError(f"tokenizer: expected a token for each unit, found none for one of {row.units}")
        sequences.append([cls, *(token for piece in cut for token in piece), sep])
        if task.kind == "tokens":
            at_last = ([IGNORE] * (len(piece) - 1) + [y] for piece, y in zip(cut, row.labels, strict=True))
            targets.append([IGNORE, *(y for ys in at_last for y in ys), IGNORE])
    ids = _padded(sequences, pad)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    labels = _padded(targets, IGNORE) if targets else torch.tensor([row.labels[0] for row in rows])
    return Encoded(ids, mask[:, None, None, :], labels)


def _special(tokenizer: Tokenizer, token: str) -> int:
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"tokenizer: expected {token} in it, found none")
    return found


def _padded(sequences: list[list[int]], filling: int) -> Tensor:
    width = max(map(len, sequences))
    return torch.tensor([sequence + [filling] * (width - len(sequence)) for sequence in sequences])


def spread(rows: Sequence[Example], flat: Sequence[int]) -> list[Labels]:
    """Predictions for the units that have a label, all rows one after the other, as the labels of each row."""
    left = iter(flat)
    return [tuple(IGNORE if y == IGNORE else next(left) for y in row.labels) for row in rows]


# ---- Measures


def accuracy(gold: Sequence[Labels], predicted: Sequence[Labels]) -> float:
    """The share of labels that are right."""
    pairs = _pairs(gold, predicted)
    return sum(a == b for a, b in pairs) / len(pairs)


def mark_f1(gold: Sequence[Labels], predicted: Sequence[Labels]) -> float:
    """F1 over all labels but 0, "nothing here", each occurrence weighing the same (micro-averaged)."""
    pairs = _pairs(gold, predicted)
    return _f1(sum(a == b > 0 for a, b in pairs), sum(b > 0 for _, b in pairs), sum(a > 0 for a, _ in pairs))


def word_f1(gold: Sequence[Labels], predicted: Sequence[Labels]) -> float:
    """F1 of words: one is right if it begins and ends where one does. Labels are :data:`TAGS`, -100 is punctuation."""
    right = found = there = 0
    for a, b in zip(gold, predicted, strict=True):
        ours = tuple(IGNORE if x == IGNORE else y for x, y in zip(a, b, strict=True))
        words, guesses = spans(a), spans(ours)
        right, found, there = right + len(words & guesses), found + len(guesses), there + len(words)
    return _f1(right, found, there)


def spans(tags: Sequence[int]) -> set[tuple[int, int]]:
    """The words ``(start, end)`` that tags cut a sentence into, whether they are consistent or not.

    A word begins at every B and S, and after every E, S and punctuation (-100).
    """
    begin, _, end, single = range(len(TAGS))
    starts = [i for i, tag in enumerate(tags)
              if tag in (IGNORE, begin, single) or i == 0 or tags[i - 1] in (IGNORE, end, single)]  # fmt: skip
    return {(i, j) for i, j in zip(starts, [*starts[1:], len(tags)], strict=True) if tags[i] != IGNORE}


MEASURES: dict[str, Callable[[Sequence[Labels], Sequence[Labels]], float]] = {
    "accuracy": accuracy, "word F1": word_f1, "mark F1": mark_f1,
}  # fmt: skip
"""By name, the measures: a score from 0 to 1 of the right labels of some rows and of those predicted."""


def _pairs(gold: Sequence[Labels], predicted: Sequence[Labels]) -> list[tuple[int, int]]:
    return [(a, b) for x, y in zip(gold, predicted, strict=True) for a, b in zip(x, y, strict=True) if a != IGNORE]


def _f1(right: int, found: int, there: int) -> float:
    """2PR / (P + R) of precision and recall; 1 where there is nothing and nothing was found."""
    return 2 * right / (found + there) if found + there else 1.0
