"""Bengio's network against its equation in a plain loop."""

import re

import pytest
import torch
from helpers import assert_close, ids_of

from llmbook.nnlm import NNLM

B, T, D_IN, D_HIDDEN, V = 2, 7, 3, 5, 11


def tokens(*shape, device="cpu"):
    return ids_of(*shape, vocab_size=V).to(device)


@pytest.mark.parametrize("context", [1, 2, 5, T + 4])
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "indirect"])
def test_nnlm_matches_the_equation_in_a_plain_loop(context, direct, device):
    model = NNLM(V, context, D_IN, D_HIDDEN, direct).double().to(device)
    ids = tokens(B, T, device=device)
    C, H, d, U, b = model.C.weight, model.H.weight, model.H.bias, model.U.weight, model.U.bias
    expected = torch.empty(B, T, V, dtype=torch.float64, device=device)
    for row in range(B):
        for t in range(T):
            window = range(t - context + 1, t + 1)
            x = torch.cat([C[ids[row, i]] if i >= 0 else model.start for i in window])
            expected[row, t] = b + U @ torch.tanh(d + H @ x) + (model.W.weight @ x if direct else 0)
    output = model(ids)
    assert_close(output, expected)
    inputs = list(model.parameters())
    assert_close(gradients_or_zeros(output, inputs), gradients_or_zeros(expected, inputs))


def gradients_or_zeros(output, inputs):
    """A window of one token never meets the start, whose gradient then is 0."""
    weights = torch.arange(output.numel(), device=output.device).cos().to(output.dtype).view(output.shape)
    return torch.autograd.grad((output * weights).sum(), inputs, allow_unused=True, materialize_grads=True)


def test_nnlm_looks_at_its_window_alone():
    model, ids = NNLM(V, 3, D_IN, D_HIDDEN).double(), tokens(B, T)
    other = ids.clone()
    other[:, 1] = (other[:, 1] + 1) % V
    changed = (model(other) != model(ids)).any(-1).any(0)
    assert changed.tolist() == [False, True, True, True, False, False, False]


@pytest.mark.parametrize("direct", [True, False])
def test_number_of_parameters_of_the_nnlm_is_that_of_the_paper(direct):
    n, m, h = 3, D_IN, D_HIDDEN
    count = sum(p.numel() for p in NNLM(V, n, m, h, direct).parameters())
    assert count == V * m + h * (1 + n * m) + V * (1 + h) + (V * n * m if direct else 0) + m  # and the start


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NNLM(V, 0, D_IN, D_HIDDEN), "context: expected a positive integer, got 0"),
        (lambda: NNLM(V, 2, D_IN, 0), "d_hidden: expected a positive integer, got 0"),
    ],
)
def test_sizes_are_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
