"""Batches as a function of a number, and the random numbers that go with each.

Data that is a function of ``i`` has its place in one number: nothing else needs to be kept to go on from there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

Batch = Any  # a tensor, or a tuple, list or dict of tensors, all with the batch as their first axis


class Batches:
    """Batches of random rows without end: ``batches(i)`` is the i-th, a function of ``(seed, i)``.

    Each epoch is a permutation of its own; the rows left over at its end, fewer than a batch, are dropped.

    Args:
        rows: a tensor ``(N, ...)``, or a tuple, list or dict of tensors of N rows each.
        batch_size: number of rows in a batch, at most N.
        seed: what the order depends on.

    Raises:
        ValueError: ``batch_size`` is not between 1 and N; the tensors differ in their number of rows.
    """

    def __init__(self, rows: Batch, batch_size: int, seed: int = 0) -> None:
        self.rows, self.batch_size, self.seed, self.n = rows, batch_size, seed, len(tensors_of(rows)[0])
        if len({len(x) for x in tensors_of(rows)}) > 1:
            raise ValueError(f"rows: expected as many in each tensor, got {[len(x) for x in tensors_of(rows)]}")
        self.order = -1, torch.empty(0, dtype=torch.int64)
        if not 1 <= batch_size <= self.n:
            raise ValueError(f"batch_size: expected a number between 1 and N={self.n} rows, got {batch_size}")

    def __call__(self, i: int) -> Batch:
        epoch, k = divmod(i, self.n // self.batch_size)
        if self.order[0] != epoch:  # a permutation serves its whole epoch
            self.order = epoch, torch.from_numpy(np.random.default_rng([self.seed, epoch]).permutation(self.n))
        chosen = self.order[1][k * self.batch_size : (k + 1) * self.batch_size]
        return map_tensors(lambda x: x[chosen.to(x.device)], self.rows)  # (N, ...) -> (batch_size, ...)


def map_tensors(f: Callable[[Tensor], Any], batch: Batch) -> Batch:
    """``f`` of every tensor of a batch, in the same structure."""
    if isinstance(batch, Tensor):
        return f(batch)
    if isinstance(batch, dict):
        return {name: map_tensors(f, x) for name, x in batch.items()}
    if isinstance(batch, tuple | list):
        mapped = [map_tensors(f, x) for x in batch]
        return type(batch)(*mapped) if hasattr(batch, "_fields") else type(batch)(mapped)
    raise TypeError(f"batch: expected a tensor, or a tuple, list or dict of tensors, got {type(batch).__name__}")


def tensors_of(batch: Batch) -> list[Tensor]:
    """The tensors of a batch, in order."""
    found: list[Tensor] = []
    map_tensors(found.append, batch)
    return found


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Afterwards the caller's random numbers go on as if nothing had been drawn."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def seed_all(device: torch.device, *numbers: int) -> None:
    """Make the random numbers of Python, numpy and torch a function of ``numbers``."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed also asks for devices: 100 times slower
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)
