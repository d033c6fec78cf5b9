"""What counting can do for a small task: the baseline that every neural network should be seen beside.

Naive Bayes: for sentences on the n-grams of characters or words, for tokens on their neighbourhood. Which features, and
how smooth, is chosen on the development part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llmbook.lm import IGNORE
from llmbook.tasks import Example, Labels, Predictor, Result, Task, evaluate, spread

SMOOTHING = (0.03, 0.1, 0.3, 1.0, 3.0)
Bag = Sequence[str]


class NaiveBayes:
    """Multinomial naive Bayes (McCallum & Nigam, 1998)::

        ln p(c | x) = ln p(c) + Σ_w n_w(x) ln p(w | c) + constant      p(w | c) = (n_w(c) + a) / (n(c) + a V)

    with the counts n_w(x) of feature w in x and n_w(c) in all that is labelled c. Features that were never seen say
    nothing.

    Args:
        bags: the features of each item.
        labels: of each item, 0 to ``n_labels`` − 1.
        n_labels: number of classes.
        smoothing: a.
    """

    def __init__(self, bags: Sequence[Bag], labels: Sequence[int], n_labels: int, *, smoothing: float = 1.0) -> None:
        self.index = {w: i for i, w in enumerate(dict.fromkeys(w for bag in bags for w in bag))}
        counts = torch.stack(
            [
                self._counts([w for bag, y in zip(bags, labels, strict=True) if y == c for w in bag])
                for c in range(n_labels)
            ]
        )  # fmt: skip  (C, V)
        classes = torch.tensor(labels).bincount(minlength=n_labels) + smoothing
        self.log_prior = (classes / classes.sum()).log()  # (C,)
        self.log_p = ((counts + smoothing) / (counts + smoothing).sum(1, keepdim=True)).log()  # (C, V)

    def _counts(self, words: Bag) -> Tensor:
        known = [self.index[w] for w in words if w in self.index]
        return torch.tensor(known, dtype=torch.int64).bincount(minlength=len(self.index)).double()

    def __call__(self, bags: Sequence[Bag]) -> list[int]:
        """The most probable class of each item."""
        return [int((self.log_prior + self.log_p @ self._counts(bag)).argmax()) for bag in bags]


def ngrams(units: Sequence[str], n: int) -> list[str]:
    """All runs of 1 to ``n`` units, in small letters and without punctuation."""
    bare = ["".join(c for c in unit.lower() if c.isalnum() or c in "'-") for unit in units]
    words = [word for word in bare if word]
    return [" ".join(words[i : i + k]) for k in range(1, n + 1) for i in range(len(words) - k + 1)]


def spellings(units: Sequence[str]) -> list[str]:
    """The words, and the runs of 3 to 5 characters in each, its two ends among them."""
    words = ngrams(units, 1)
    ends = [f"<{word}>" for word in words]
    return words + [word[i : i + k] for word in ends for k in (3, 4, 5) for i in range(len(word) - k + 1)]


def neighbourhoods(row: Example) -> list[Bag]:
    """The features of each token with a label: itself, its neighbours, and it with each of them."""
    units = ["", *row.units, ""]
    places = (units[i : i + 3] for i, y in enumerate(row.labels) if y != IGNORE)
    return [[f"0 {unit}", f"- {left}", f"+ {right}", f"-0 {left} {unit}", f"0+ {unit} {right}"]
            for left, unit, right in places]  # fmt: skip


def _candidates(task: Task) -> dict[str, Callable[[Example], list[Bag]]]:
    """By name, the features of each labelled thing in a row."""
    if task.kind == "tokens":
        return {"naive Bayes": neighbourhoods}
    found: dict[str, Callable[[Example], list[Bag]]] = {
        "naive Bayes, 1-grams": lambda row: [ngrams(row.units, 1)],
        "naive Bayes, 1- and 2-grams": lambda row: [ngrams(row.units, 2)],
    }
    if task.language == "en":  # where words have a spelling
        found["naive Bayes, words and their spelling"] = lambda row: [spellings(row.units)]
    return found


def count(task: Task, n: int, *, seed: int = 0) -> Result:
    """The best that counting learns from ``n`` labelled sentences: features and smoothing are chosen on ``dev``.

    Raises:
        ValueError: there are not so many labelled sentences.
    """
    rows, results = task.rows(task.labelled(n, seed)), []
    labels = [y for row in rows for y in row.labels if y != IGNORE]
    for name, features in _candidates(task).items():
        bags = [bag for row in rows for bag in features(row)]
        for smoothing in SMOOTHING:
            predict = _predictor(NaiveBayes(bags, labels, len(task.labels), smoothing=smoothing), features)
            chosen = {"model": name, "smoothing": smoothing}
            results.append(Result(predict, evaluate(task, predict, "dev"), chosen))
    return max(results, key=lambda result: result.dev)


def _predictor(model: NaiveBayes, features: Callable[[Example], list[Bag]]) -> Predictor:
    def predict(rows: Sequence[Example]) -> list[Labels]:
        return spread(rows, model([bag for row in rows for bag in features(row)]))

    return predict
