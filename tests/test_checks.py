"""Messages name the argument, what was expected and what came."""

import re

import pytest
import torch

from llmbook.checks import check_ids, check_positions, check_sizes


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_good_ids_pass(dtype):
    check_ids(torch.tensor([[0, 10], [3, 4]], dtype=dtype), 11, 5, start=3)


@pytest.mark.parametrize(
    ("ids", "options", "error", "message"),
    [
        (torch.zeros(2, 3), {}, TypeError, "prompt: expected a tensor of integers, got torch.float32 tensor"),
        (torch.zeros(2, 3, dtype=torch.bool), {}, TypeError, "expected a tensor of integers, got torch.bool tensor"),
        ([[1]], {}, TypeError, "prompt: expected a tensor of integers, got list"),
        (torch.tensor([1, 2]), {}, ValueError, "prompt: expected shape (B, T) with B, T >= 1, got (2,)"),
        (
            torch.zeros(2, 0, dtype=torch.int64),
            {},
            ValueError,
            "prompt: expected shape (B, T) with B, T >= 1, got (2, 0)",
        ),
        (torch.tensor([[1, 2]]), {"max_len": 1}, ValueError, "expected at most max_len=1 tokens a row, got 2"),
        (
            torch.tensor([[1, 2]]),
            {"max_len": 4, "start": 3},
            ValueError,
            "expected at most max_len=4 tokens a row, got 5",
        ),
        (torch.tensor([[1, 11]]), {}, ValueError, "expected token ids from 0 to 10, got ids from 1 to 11"),
        (torch.tensor([[-1, 2]]), {}, ValueError, "expected token ids from 0 to 10, got ids from -1 to 2"),
    ],
)
def test_bad_ids_are_refused(ids, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        check_ids(ids, 11, name="prompt", **options)


def test_range_is_not_looked_at_elsewhere():
    check_ids(torch.empty(2, 3, dtype=torch.int64, device="meta"), 11)


@pytest.mark.parametrize("size", [0, -1, 2.0, None, True])
def test_sizes_must_be_positive_integers(size):
    check_sizes(first=1, second=2)
    with pytest.raises(ValueError, match=re.escape(f"second: expected a positive integer, got {size!r}")):
        check_sizes(first=1, second=size)


@pytest.mark.parametrize(
    ("positions", "error", "message"),
    [
        (torch.zeros(2, 3), TypeError, "positions: expected a tensor of int64, got torch.float32 tensor"),
        ([[0]], TypeError, "positions: expected a tensor of int64, got list"),
        (
            torch.zeros(3, dtype=torch.int64),
            ValueError,
            "positions: expected shape (B, K) with B=2 as ids have, got (3,)",
        ),
        (torch.zeros(1, 3, dtype=torch.int64), ValueError, "expected shape (B, K) with B=2 as ids have, got (1, 3)"),
        (torch.tensor([[0], [5]]), ValueError, "positions: expected 0 to T - 1 = 4, got 0 to 5"),
        (torch.tensor([[0], [-1]]), ValueError, "positions: expected 0 to T - 1 = 4, got -1 to 0"),
    ],
)
def test_bad_positions_are_refused(positions, error, message):
    ids = torch.zeros(2, 5, dtype=torch.int64)
    check_positions(torch.tensor([[0, 4], [2, 2]]), ids)
    check_positions(torch.zeros(2, 0, dtype=torch.int64), ids)
    with pytest.raises(error, match=re.escape(message)):
        check_positions(positions, ids)


def test_range_is_not_looked_at_under_a_transform():
    def f(ids):
        check_ids(ids[None], 2)
        return ids

    assert torch.func.vmap(f)(torch.tensor([[5], [6]])).tolist() == [[5], [6]]
