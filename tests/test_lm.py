"""Loss and perplexity against a plain loop; and what every language model promises."""

import math
import re

import pytest
import torch
from torch import nn

from llmbook.decoder import CausalLM, EncoderDecoder
from llmbook.lm import next_token_loss, perplexity, token_losses, training_loss
from llmbook.ngram import NGram
from llmbook.nnlm import NNLM
from llmbook.recurrent import RecurrentLM
from llmbook.transformer import EncoderConfig

B, T, V, PAD = 3, 5, 11, 7


def tokens(*shape, seed=0, device="cpu"):
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(seed)).to(device)


def scores(*shape, seed=1):
    return torch.randn(*shape, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def padded(rows=B):
    """Rows with 4, 2, 0, 4, 2, 0, ... tokens to predict."""
    ids = tokens(rows, T).masked_fill(tokens(rows, T) == PAD, PAD + 1)
    for i in range(rows):
        ids[i, T - 2 * (i % 3) :] = PAD
    return ids


class Table(nn.Module):
    """A bigram model of given logits ``(V, V)``, which notes in what state it was called."""

    vocab_size, max_len = V, None

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.dropout = nn.Dropout(0.5)
        self.calls = []

    def forward(self, ids):
        self.calls.append((len(ids), self.training, self.dropout.training, torch.is_grad_enabled()))
        return self.dropout(self.logits[ids])


def plain_losses(logits, ids, pad_id=None):
    """One token after the other, in Python's own numbers."""
    return [
        math.log(math.fsum(math.exp(x) for x in row)) - row[target]
        for scored, words in zip(logits.tolist(), ids.tolist(), strict=True)
        for row, target in zip(scored[:-1], words[1:], strict=True)
        if target != pad_id
    ]


# ---- The loss


@pytest.mark.parametrize("pad_id", [None, PAD])
def test_losses_match_a_plain_loop(pad_id):
    logits, ids = scores(B, T), padded()
    expected = torch.tensor(plain_losses(logits, ids, pad_id), dtype=torch.float64)
    assert len(expected) == (6 if pad_id else B * (T - 1))
    torch.testing.assert_close(token_losses(logits, ids, pad_id), expected)
    torch.testing.assert_close(next_token_loss(logits, ids, pad_id), expected.mean())


def test_even_choice_costs_the_logarithm_of_the_vocabulary(device):
    ids = tokens(B, T, device=device)
    assert next_token_loss(torch.zeros(B, T, V, device=device), ids).item() == pytest.approx(math.log(V))


def test_only_the_logits_of_predicted_tokens_get_a_gradient():
    logits, ids = scores(B, T).requires_grad_(), padded()
    next_token_loss(logits, ids, PAD).backward()
    predicted = torch.cat([ids[:, 1:] != PAD, torch.zeros(B, 1, dtype=torch.bool)], 1)
    assert torch.equal(logits.grad.ne(0).any(-1), predicted)


def test_impossible_token_costs_infinity_and_an_impossible_other_token_nothing():
    logits = torch.zeros(1, 2, V)
    logits[0, 0, 4] = -math.inf
    assert next_token_loss(logits, torch.tensor([[0, 4]])).item() == math.inf
    assert next_token_loss(logits, torch.tensor([[0, 5]])).item() == pytest.approx(math.log(V - 1))


# ---- Perplexity


def test_perplexity_of_an_even_choice_and_of_certainty():
    assert perplexity(Table(torch.zeros(V, V)), tokens(B, T)) == pytest.approx(V)
    successor = torch.full((V, V), -math.inf).fill_diagonal_(0.0).roll(1, 1)
    assert perplexity(Table(successor), torch.arange(T)[None]) == 1


@pytest.mark.parametrize("pad_id", [None, PAD])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
def test_every_token_weighs_the_same_whatever_the_batch(batch_size, pad_id):
    model, ids = Table(scores(V)), padded(rows=7)
    losses = plain_losses(model.logits[ids], ids, pad_id)
    expected = math.exp(math.fsum(losses) / len(losses))
    assert perplexity(model, ids, pad_id=pad_id, batch_size=batch_size) == pytest.approx(expected, rel=1e-12)
    assert [size for size, *_ in model.calls] == [len(part) for part in ids.split(batch_size)]


def test_impossible_token_makes_the_perplexity_infinite():
    impossible = torch.zeros(V, V)
    impossible[3, 5] = -math.inf
    assert perplexity(Table(impossible), torch.tensor([[1, 2, 3, 5, 1]])) == math.inf
    assert perplexity(Table(torch.eye(V) * 1e4), torch.tensor([[1, 2, 3]])) == math.inf  # e^10000


def test_perplexity_evaluates_and_leaves_every_part_as_it_was():
    model = Table(scores(V)).train()
    model.dropout.eval()
    perplexity(model, tokens(B, T))
    assert model.calls == [(B, False, False, False)]
    assert (model.training, model.dropout.training) == (True, False)
    model.dropout.train()
    perplexity(model.eval(), tokens(B, T))
    assert (model.training, model.dropout.training) == (False, False)


# ---- What every language model promises

SIZES = {"d_model": 12, "n_heads": 3, "n_layers": 2, "d_ff": 17, "max_len": 23}
MODELS = {
    "bigrams": lambda: NGram(2, V).fit(tokens(40, 9)),
    "5-grams": lambda: NGram(5, V).fit(tokens(40, 9)),
    "5-grams, add-k": lambda: NGram(5, V, smoothing="add-k").fit(tokens(40, 9)),
    "NNLM": lambda: NNLM(V, context=3, d_model=2, d_hidden=13),
    "RNN": lambda: RecurrentLM(V, 13, cell="rnn"),
    "GRU": lambda: RecurrentLM(V, 13, n_layers=2, cell="gru"),
    "LSTM": lambda: RecurrentLM(V, 13, n_layers=2, dropout=0.5, tie=True),
    "GPT": lambda: CausalLM(EncoderConfig(V, **SIZES)),
    "GPT, rotary": lambda: CausalLM(EncoderConfig(V, **SIZES, positions="rotary", dropout=0.5)),
    "Transformer": lambda: EncoderDecoder(EncoderConfig(V, **SIZES)).given(tokens(1, 4)),
}
models = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


@models
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_logits_of_every_next_token(make, dtype, device):
    model = make().to(device)
    ids = tokens(B, T, device=device).to(dtype)
    logits = model(ids)
    assert (logits.shape, logits.dtype, logits.device.type) == ((B, T, V), torch.float32, device.type)
    assert model.vocab_size == V and model.max_len in (None, 23)
    assert model(ids[:1, :1]).shape == (1, 1, V)


@models
def test_logits_never_depend_on_later_tokens(make):
    model, ids = make().eval(), tokens(B, T)
    logits = model(ids)
    for t in range(T):
        other = torch.cat([ids[:, : t + 1], (ids[:, t + 1 :] + 1) % V], 1)
        torch.testing.assert_close(model(other)[:, : t + 1], logits[:, : t + 1])
        torch.testing.assert_close(model(ids[:, : t + 1]), logits[:, : t + 1])
        changed = model(torch.cat([ids[:, :t], (ids[:, t:] + 1) % V], 1))
        assert (changed[:, t] != logits[:, t]).any()


@models
def test_rows_do_not_depend_on_each_other(make):
    model, ids = make().eval(), tokens(B, T)
    torch.testing.assert_close(model(ids)[1:2], model(ids[1:2]))


@models
def test_perplexity_of_a_model_is_that_of_its_loss(make):
    model, ids = make().eval(), tokens(B, T)
    expected = next_token_loss(model(ids), ids).exp().item()
    assert perplexity(model.train(), ids, batch_size=2) == pytest.approx(expected, rel=1e-5)


@models
@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([[1, 2]], TypeError, "ids: expected a tensor of integers, got list"),
        (torch.ones(B, T), TypeError, "ids: expected a tensor of integers, got torch.float32 tensor"),
        (torch.ones(B, T, dtype=torch.bool), TypeError, "ids: expected a tensor of integers, got torch.bool tensor"),
        (tokens(T), ValueError, "ids: expected shape (B, T) with B, T >= 1, got (5,)"),
        (tokens(2, B, T), ValueError, "ids: expected shape (B, T) with B, T >= 1, got (2, 3, 5)"),
        (tokens(B, 0), ValueError, "ids: expected shape (B, T) with B, T >= 1, got (3, 0)"),
        (tokens(0, T), ValueError, "ids: expected shape (B, T) with B, T >= 1, got (0, 5)"),
        (torch.tensor([[3, V]]), ValueError, "ids: expected token ids from 0 to 10, got ids from 3 to 11"),
        (torch.tensor([[-1, 3]]), ValueError, "ids: expected token ids from 0 to 10, got ids from -1 to 3"),
    ],
    ids=str,
)
def test_what_is_no_batch_of_token_ids_is_refused(make, ids, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()(ids)


# ---- What is refused


@pytest.mark.parametrize("shape", [(B, T + 1), (B + 1, T), (T,)], ids=str)
def test_logits_must_fit_the_ids(shape):
    message = f"logits: expected shape (B, T, V) with ids of shape (B, T), got logits {(*shape, V)} and ids {(B, T)}"
    for function in (token_losses, next_token_loss):
        with pytest.raises(ValueError, match=re.escape(message)):
            function(scores(*shape), tokens(B, T))


@pytest.mark.parametrize(("ids", "pad_id"), [(tokens(B, 1), None), (torch.full((B, T), PAD), PAD)])
def test_nothing_to_predict_is_refused(ids, pad_id):
    shape = tuple(ids.shape)
    message = f"ids: expected a token to predict after the first of a row, got shape {shape}, pad_id={pad_id}"
    with pytest.raises(ValueError, match=re.escape(message)):
        next_token_loss(scores(*shape), ids, pad_id)
    with pytest.raises(ValueError, match=re.escape(message)):
        perplexity(Table(scores(V)), ids, pad_id=pad_id)


def test_rows_longer_than_the_model_can_read_are_refused():
    model = Table(scores(V))
    model.max_len = T
    perplexity(model, tokens(B, T))
    with pytest.raises(ValueError, match="ids: expected at most max_len=5 tokens a row, got 6"):
        perplexity(model, tokens(B, T + 1))


@pytest.mark.parametrize("size", [0, -1, 2.0, None])
def test_sizes_must_be_positive_integers(size):
    with pytest.raises(ValueError, match=re.escape(f"batch_size: expected a positive integer, got {size!r}")):
        perplexity(Table(scores(V)), tokens(B, T), batch_size=size)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_long_losses_do_not_overflow_half_precision(dtype):
    ids = torch.randint(8000, (8, 900), generator=torch.Generator().manual_seed(0))
    logits = torch.zeros(8, 900, 8000, dtype=dtype)
    total, count = token_losses(logits, ids).sum(), 8 * 899
    assert (total / count).item() == pytest.approx(math.log(8000), rel=1e-4)
    assert next_token_loss(logits, ids).dtype == torch.float32


def test_targets_may_be_int32():
    ids = tokens(B, T)
    model = Table(scores(V))
    assert perplexity(model, ids.int()) == perplexity(model, ids)


# ---- The neural ones learn

LEARNERS = {
    **{cell: lambda cell=cell: RecurrentLM(V, 17, cell=cell) for cell in ("rnn", "gru", "lstm")},
    "two layers, tied": lambda: RecurrentLM(V, 17, 2, tie=True),
    "NNLM": lambda: NNLM(V, 2, 5, 17),
    "NNLM, indirect": lambda: NNLM(V, 2, 5, 17, direct=False),
    "GPT": lambda: CausalLM(EncoderConfig(V, **SIZES, init_std=0.2)),
}


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_model_learns_what_the_token_before_the_last_decides(make):
    torch.manual_seed(0)
    ids = tokens(23, 13)
    for t in range(2, ids.shape[1]):  # w_t = w_{t−2} + 3
        ids[:, t] = (ids[:, t - 2] + 3) % V
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        total, count = training_loss(model, ids)
        (total / count).backward()
        optimizer.step()
    with torch.no_grad():
        right = model(ids)[:, 1:-1].argmax(-1) == ids[:, 2:]
    assert right.float().mean() > 0.95
