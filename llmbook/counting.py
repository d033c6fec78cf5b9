"""What counting can do for a small task: the baselines that every neural network should be seen beside.

For sentences, naive Bayes on character or word n-grams; for tokens, either that on the neighbourhood of a token, or the
most frequent label of a token between its neighbours. Which, and how smooth, is chosen on the development part.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

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


class BackOff:
    """The most frequent label of a context; the fewer times it was seen, the more its shorter contexts have a say::

        p(c | h) = (n(h, c) + a p(c | h′)) / (n(h) + a)

    with the count n(h) of context h, and h′ the next shorter one; below the shortest, p is uniform.

    Args:
        contexts: of each item, from short to long.
        labels: of each item, 0 to ``n_labels`` − 1.
        n_labels: number of classes.
        smoothing: a.
    """

    def __init__(
        self, contexts: Sequence[Bag], labels: Sequence[int], n_labels: int, *, smoothing: float = 1.0
    ) -> None:
        self.n_labels, self.smoothing = n_labels, smoothing
        self.counts: dict[str, Counter[int]] = defaultdict(Counter)
        for chain, y in zip(contexts, labels, strict=True):
            for context in ("", *chain):
                self.counts[context][y] += 1

    def __call__(self, contexts: Sequence[Bag]) -> list[int]:
        """The most probable class of each item."""
        return [max(range(self.n_labels), key=self._probabilities(chain).__getitem__) for chain in contexts]

    def _probabilities(self, chain: Bag) -> list[float]:
        p, a = [1 / self.n_labels] * self.n_labels, self.smoothing
        for context in ("", *chain):
            seen = self.counts.get(context, Counter[int]())
            p = [(seen[c] + a * p[c]) / (seen.total() + a) for c in range(self.n_labels)]
        return p


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


def neighbourhood(left: str, unit: str, right: str) -> list[str]:
    """The features of a token: itself, its neighbours, and it with each of them."""
    return [f"0 {unit}", f"- {left}", f"+ {right}", f"-0 {left} {unit}", f"0+ {unit} {right}"]


def chain_left(left: str, unit: str, right: str) -> list[str]:
    """The contexts of a token, from short to long, the left neighbour before the right one."""
    return [f"0 {unit}", f"-0 {left} {unit}", f"-0+ {left} {unit} {right}"]


def chain_right(left: str, unit: str, right: str) -> list[str]:
    """The contexts of a token, from short to long, the right neighbour before the left one."""
    return [f"0 {unit}", f"0+ {unit} {right}", f"-0+ {left} {unit} {right}"]


def _tokens(row: Example, features: Callable[[str, str, str], Bag]) -> Iterator[Bag]:
    units = ["", *row.units, ""]
    return (features(*units[i : i + 3]) for i, y in enumerate(row.labels) if y != IGNORE)


Features = Callable[[Example], list[Bag]]


def _candidates(task: Task) -> dict[str, tuple[type[Any], Features]]:
    """By name, what counts, and the features of each labelled thing in a row."""
    if task.kind == "tokens":
        return {"naive Bayes": (NaiveBayes, lambda row: list(_tokens(row, neighbourhood))),
                "back-off, left first": (BackOff, lambda row: list(_tokens(row, chain_left))),
                "back-off, right first": (BackOff, lambda row: list(_tokens(row, chain_right)))}  # fmt: skip
    found: dict[str, tuple[type[Any], Features]] = {
        "naive Bayes, 1-grams": (NaiveBayes, lambda row: [ngrams(row.units, 1)]),
        "naive Bayes, 1- and 2-grams": (NaiveBayes, lambda row: [ngrams(row.units, 2)]),
    }
    if task.language == "en":  # where words have a spelling
        found["naive Bayes, words and their spelling"] = NaiveBayes, lambda row: [spellings(row.units)]
    return found


def count(task: Task, n: int, *, seed: int = 0) -> Result:
    """The best that counting learns from ``n`` labelled sentences: model and smoothing are chosen on ``dev``.

    Raises:
        ValueError: there are not so many labelled sentences.
    """
    rows, results = task.rows(task.labelled(n, seed)), []
    labels = [y for row in rows for y in row.labels if y != IGNORE]
    for name, (kind, features) in _candidates(task).items():
        bags = [bag for row in rows for bag in features(row)]
        for smoothing in SMOOTHING:
            predict = _predictor(kind(bags, labels, len(task.labels), smoothing=smoothing), features)
            chosen = {"model": name, "smoothing": smoothing}
            results.append(Result(predict, evaluate(task, predict, "dev"), chosen))
    return max(results, key=lambda result: result.dev)


def _predictor(model: Callable[[list[Bag]], list[int]], features: Features) -> Predictor:
    def predict(rows: Sequence[Example]) -> list[Labels]:
        return spread(rows, model([bag for row in rows for bag in features(row)]))

    return predict
