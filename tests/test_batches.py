"""Batches: every epoch is a permutation, every batch a function of its number; random numbers come and go."""

import random
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook.batches import Batches, map_tensors, seed_all, tensors_of, undisturbed

N, T = 13, 5
CPU = torch.device("cpu")
quick = settings(deadline=None, derandomize=True, max_examples=40)


class Pair(NamedTuple):
    ids: torch.Tensor
    labels: torch.Tensor


def rows(n=N):
    return torch.arange(n * T).view(n, T)


def draw(device=CPU):
    """A number from each generator."""
    drawn = [random.random(), np.random.rand(), torch.rand(1).item()]
    return [*drawn, torch.rand(1, device=device).item()] if device.type != "cpu" else drawn


@quick
@given(n=st.integers(1, 30), batch_size=st.integers(1, 30), seed=st.integers(0, 2**40))
def test_an_epoch_is_a_permutation_of_which_the_rest_is_dropped(n, batch_size, seed):
    batch_size = min(batch_size, n)
    batches = Batches(rows(n), batch_size, seed)
    for epoch in range(3):
        epoch = [batches(epoch * (n // batch_size) + k) for k in range(n // batch_size)]
        assert {x.shape for x in epoch} == {(batch_size, T)}
        seen = torch.cat(epoch)
        assert len(seen) == n - n % batch_size
        assert len({tuple(row) for row in seen.tolist()}) == len(seen)
        assert {tuple(row) for row in seen.tolist()} <= {tuple(row) for row in rows(n).tolist()}


def test_a_batch_is_a_function_of_its_number():
    batches, again = Batches(rows(), 3, seed=1), Batches(rows(), 3, seed=1)
    forwards = [batches(i) for i in range(12)]
    torch.rand(1)
    assert all(torch.equal(again(i), forwards[i]) for i in reversed(range(12)))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [tuple(Batches(rows(), N, seed)(i)[:, 0].tolist()) for seed in range(3) for i in range(3)]
    assert len(set(orders)) == 9


@pytest.mark.parametrize(
    "data",
    [(rows(), rows() + 1), [rows(), rows() + 1], {"a": rows(), "b": rows() + 1}, Pair(rows(), rows() + 1)],
    ids=["tuple", "list", "dict", "named tuple"],
)
def test_rows_stay_together_in_any_structure(data):
    batch = Batches(data, 3)(0)
    assert type(batch) is type(data)
    first, second = tensors_of(batch)
    assert first.shape == (3, T)
    assert torch.equal(first + 1, second)


def test_rows_stay_where_they_are(device):
    assert Batches(rows().to(device), 3)(0).device.type == device.type


@pytest.mark.parametrize("batch_size", [0, -1, 14])
def test_batch_size_is_refused(batch_size):
    message = f"batch_size: expected a number between 1 and N=13 rows, got {batch_size}"
    with pytest.raises(ValueError, match=message):
        Batches(rows(), batch_size)


@pytest.mark.parametrize(("wrong", "name"), [("abc", "str"), (3, "int"), (None, "NoneType"), (np.ones(3), "ndarray")])
def test_what_is_no_batch_is_refused(wrong, name):
    message = f"batch: expected a tensor, or a tuple, list or dict of tensors, got {name}"
    for batch in (wrong, [rows(), wrong], {"a": (wrong,)}):
        with pytest.raises(TypeError, match=message):
            tensors_of(batch)


def test_structures_nest():
    batch = {"a": [rows(), (rows(), rows())], "b": Pair(rows(), rows())}
    doubled = map_tensors(lambda x: x * 2, batch)
    assert len(tensors_of(doubled)) == 5
    assert all(torch.equal(x, rows() * 2) for x in tensors_of(doubled))
    assert torch.equal(doubled["b"].labels, rows() * 2)


def test_all_generators_are_a_function_of_the_numbers(device):
    with undisturbed(device):
        drawn = {}
        for numbers in [(0, 0), (0, 1), (1, 0), (0, 0, 1), (0, 0, 2), (2**40, 3)]:
            seed_all(device, *numbers)
            drawn[numbers] = draw(device)
            seed_all(device, *numbers)
            assert draw(device) == drawn[numbers]
    for values in zip(*drawn.values(), strict=True):
        assert len(set(values)) == len(drawn)


@pytest.mark.parametrize("fails", [False, True])
def test_random_numbers_go_on_undisturbed(device, fails):
    seed_all(device, 5)
    expected = [draw(device), draw(device)]
    seed_all(device, 5)
    actual = [draw(device)]
    try:
        with undisturbed(device):
            seed_all(device, 7)
            draw(device)
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert [*actual, draw(device)] == expected


def test_tensors_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"rows: expected as many in each tensor, got \[10, 12\]"):
        Batches((torch.zeros(10), torch.zeros(12)), 4)
