"""Decoding against plain loops, brute force and frequencies; what the cache saves; and what is refused.

The models are toys: one where the next token depends on the last alone, one with a state, one with positions. Every
size is a different prime where it can be.
"""

import math
import re
from fractions import Fraction
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmbook.decoder import EncoderDecoder
from llmbook.generate import beam_search, generate, next_distribution, stream
from llmbook.transformer import EncoderConfig

B, T, V, N = 3, 5, 7, 11
INF = math.inf

quick = settings(deadline=None, derandomize=True, max_examples=200)
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- Toy models


class Markov(nn.Module):
    """The next token depends on the last alone: row v of ``table`` are the logits after token v."""

    max_len = None

    def __init__(self, table):
        super().__init__()
        self.table, self.vocab_size, self.read = nn.Parameter(table), len(table), []

    def forward(self, ids):
        self.read.append(tuple(ids.shape))
        return self.table[ids]


class State:
    """The cache of :class:`Recurrent`: of fixed size."""

    def __init__(self):
        self.h, self.length = None, 0

    def reorder(self, index):
        self.h = self.h[:, index].contiguous()


class Recurrent(nn.Module):
    """The next token depends on all before it, through a state."""

    max_len = None

    def __init__(self, vocab_size=V, d=13):
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(vocab_size, d), nn.GRU(d, d, batch_first=True)
        self.dropout, self.head = nn.Dropout(0.5), nn.Linear(d, vocab_size)
        for seed, p in enumerate(self.parameters()):
            p.data = normal(*p.shape, seed=seed)
        self.vocab_size, self.read = vocab_size, []

    def new_cache(self):
        return State()

    def forward(self, ids, cache=None):
        self.read.append(tuple(ids.shape))
        x, h = self.rnn(self.dropout(self.embedding(ids)), cache and cache.h)
        if cache:
            cache.h, cache.length = h, cache.length + ids.shape[1]
        return self.head(x)


class History:
    """The cache of :class:`Positional`: it grows with every token."""

    def __init__(self):
        self.ids = None

    @property
    def length(self):
        return 0 if self.ids is None else self.ids.shape[1]

    def reorder(self, index):
        self.ids = self.ids[index]


class Positional(nn.Module):
    """The next token depends on what stands where, ``max_len`` positions at most; all in whole numbers."""

    def __init__(self, vocab_size=V, max_len=None):
        super().__init__()
        self.register_buffer("table", normal(97, vocab_size))
        self.vocab_size, self.max_len, self.read = vocab_size, max_len, []

    def new_cache(self):
        return History()

    def forward(self, ids, cache=None):
        self.read.append(tuple(ids.shape))
        new = ids.shape[1]
        if cache:
            ids = cache.ids = ids if cache.ids is None else torch.cat([cache.ids, ids], 1)
        assert self.max_len is None or ids.shape[1] <= self.max_len
        place = torch.arange(1, ids.shape[1] + 1, device=ids.device)
        return self.table[((ids + 1) * place**2).cumsum(1) % 97][:, -new:]


MODELS = {
    "recurrent": Recurrent,
    "positional": Positional,
    "max_len 7": lambda vocab_size=V: Positional(vocab_size, max_len=7),
    "max_len 3": lambda vocab_size=V: Positional(vocab_size, max_len=3),
    "max_len 1": lambda vocab_size=V: Positional(vocab_size, max_len=1),
    "markov": lambda vocab_size=V: Markov(normal(vocab_size, vocab_size)),
}
models = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
OPTIONS = {
    "greedy": {"temperature": 0},
    "plain": {},
    "flat": {"temperature": 3.0},
    "top_k": {"top_k": 3},
    "top_p": {"temperature": 2.0, "top_p": 0.6},
    "stop": {"stop_id": 2},
}
options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def prompts(device="cpu", vocab_size=V):
    return (torch.arange(B * T, device=device) ** 2 % 11 % vocab_size).view(B, T)


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def successor(size=V):
    """After token v comes v + 1, surely; after the last comes nothing that can be."""
    return Markov(torch.full((size, size), -INF).diagonal_scatter(torch.zeros(size - 1), 1))


@torch.no_grad()
def last_logits(model, ids):
    """The scores after the list ``ids``, of which the model may see the last ``max_len``."""
    window = ids if model.max_len is None else ids[-model.max_len :]
    return model.eval()(torch.tensor([window], device=next(iter(model.state_dict().values())).device))[0, -1]


def greedy(model, prompt, n, stop=None):
    new = []
    for _ in range(n):
        new.append(stop if stop in new else last_logits(model, prompt + new).argmax().item())
    return prompt + new


# ---- The distribution


def by_hand(weights, power, top_k, top_p):
    """The distribution in fractions: temperature 1/power, then the k best, then the smallest set that reaches p."""
    mass = [Fraction(w) ** power for w in weights]
    best = sorted(range(len(mass)), key=lambda token: -mass[token])[:top_k]  # sorted() keeps the order of equals
    total, kept, reached = sum(mass[token] for token in best), [], Fraction(0)
    for token in best:
        if top_p is None or reached < top_p:
            kept.append(token)
            reached += mass[token] / total
    return [float(mass[token] / total / reached) if token in kept else 0.0 for token in range(len(mass))]


@dtypes
@quick
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=7).filter(any),
    st.integers(1, 2),
    st.none() | st.integers(1, 9),
    st.none() | st.integers(1, 100).map(lambda percent: Fraction(percent, 100)),
)
def test_distribution_matches_a_plain_loop_in_fractions(dtype, weights, power, top_k, top_p):
    logits = torch.tensor(weights, dtype=torch.float64).log().to(dtype)
    p = next_distribution(logits, temperature=1 / power, top_k=top_k, top_p=None if top_p is None else float(top_p))
    expected = by_hand(weights, power, top_k, top_p)
    torch.testing.assert_close(p, torch.tensor(expected, dtype=dtype), rtol=0, atol=16 * torch.finfo(dtype).eps)
    assert (p > 0).tolist() == [x > 0 for x in expected]


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1, 2.5, 1e6])
def test_temperature_divides_the_logits(temperature, device):
    logits = normal(2, 3, V).to(device)
    expected = (logits / temperature).softmax(-1)
    torch.testing.assert_close(next_distribution(logits, temperature=temperature), expected)


@pytest.mark.parametrize("cut", [{}, {"top_k": 3}, {"top_p": 0.9}, {"top_k": 4, "top_p": 0.5}], ids=str)
def test_temperature_zero_is_all_on_the_first_of_the_highest(cut, device):
    logits = torch.tensor([[1, 5, -INF, 5, 2], [3, 3, 3, 3, 3], [-INF, -INF, -9, -INF, -9]], device=device)
    p = next_distribution(logits, temperature=0, **cut)
    assert p.tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 1, 0, 0]]


@pytest.mark.parametrize("k", range(1, V + 3))
def test_top_k_cuts_equals_to_exactly_k_the_lowest_first(k, device):
    logits = torch.zeros(2, V, device=device)
    logits[1, 4] = -1.0  # the last by rank
    ranks = [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 5, 6, 4]]
    kept = next_distribution(logits, top_k=k) > 0
    assert [row.nonzero().flatten().tolist() for row in kept] == [sorted(rank[:k]) for rank in ranks]


@dtypes
@pytest.mark.parametrize("k", range(1, 11))
def test_nucleus_is_not_larger_for_rounding(k, dtype, device):
    kept = next_distribution(torch.zeros(10, dtype=dtype, device=device), top_p=k / 10) > 0
    assert kept.tolist() == [True] * k + [False] * (10 - k)


@pytest.mark.parametrize(("top_p", "expected"), [(0.45, [1, 0, 0]), (0.6, [1, 0, 0]), (0.7, [5 / 8, 3 / 8, 0])])
def test_nucleus_is_taken_of_what_temperature_and_top_k_leave(top_p, expected):
    logits = torch.tensor([5.0, 3.0, 2.0]).log() * 2
    p = next_distribution(logits, temperature=2, top_k=2, top_p=top_p)
    torch.testing.assert_close(p, torch.tensor(expected, dtype=p.dtype))


def test_nucleus_of_one_keeps_the_rarest_token():
    logits = torch.tensor([0.0, -30.0, -80.0, -INF])
    assert torch.equal(next_distribution(logits, top_p=1.0), next_distribution(logits))
    assert (next_distribution(logits, top_p=1) > 0).tolist() == [True, True, True, False]


@dtypes
@pytest.mark.parametrize("top_p", [1e-3, 1e-9, 5e-324])
def test_nucleus_holds_one_token_at_least(top_p, dtype):
    assert next_distribution(torch.tensor([0.0, 1.0, 1.0], dtype=dtype), top_p=top_p).tolist() == [0, 1, 0]


@dtypes
@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 5e-324])
def test_low_temperature_does_not_overflow(temperature, dtype):
    logits = torch.tensor([[1.0, 3.0, 2.0], [1e30, -1e30, -INF]], dtype=dtype)
    assert next_distribution(logits, temperature=temperature).tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_single(dtype):
    logits = normal(B, V).to(dtype)
    for cut in ({}, {"top_k": 3}, {"top_p": 0.7}, {"temperature": 0}):
        p = next_distribution(logits, **cut)
        assert p.dtype == torch.float32
        assert torch.equal(p, next_distribution(logits.float(), **cut))


def test_rows_do_not_know_of_each_other():
    logits = normal(2, 3, V)
    before = logits.clone()
    p = next_distribution(logits, temperature=0.8, top_k=5, top_p=0.7)
    rows = [next_distribution(row, temperature=0.8, top_k=5, top_p=0.7) for row in logits.flatten(0, 1)]
    assert torch.equal(p.flatten(0, 1), torch.stack(rows))
    torch.testing.assert_close(p.sum(-1), torch.ones(2, 3, dtype=p.dtype))
    assert torch.equal(logits, before)


@pytest.mark.parametrize("cut", [{}, {"top_k": 4}, {"top_p": 0.95}, {"temperature": 7.0}], ids=str)
def test_forbidden_tokens_stay_at_zero(cut):
    logits = normal(V).index_fill(0, torch.tensor([0, 3]), -INF)
    p = next_distribution(logits, **cut)
    assert p[0] == p[3] == 0
    assert p.sum().item() == pytest.approx(1)


# ---- Generation


@models
@pytest.mark.parametrize("stop_id", [None, 2])
@pytest.mark.parametrize("cache", [True, False])
def test_greedy_takes_the_highest_score_each_time(make, stop_id, cache, device):
    model = make().to(device)
    rows = generate(model, prompts(device), N, temperature=0, stop_id=stop_id, cache=cache).tolist()
    expected = [greedy(model, ids, N, stop_id) for ids in prompts().tolist()]
    assert rows == [row[: len(rows[0])] for row in expected]
    assert len(rows[0]) == T + N or all(row[-1] == stop_id for row in rows)


@models
@options
def test_cache_changes_nothing(make, options, device):
    model = make().to(device)
    cached, uncached = (
        generate(model, prompts(device), 2 * N, generator=seeded(1, device), cache=cache, **options)
        for cache in (True, False)
    )
    assert torch.equal(cached, uncached)


@pytest.mark.parametrize("make", [Recurrent, Positional])
def test_cache_spares_reading_twice(make):
    model = make()
    generate(model, prompts(), 4)
    assert model.read == [(B, T), (B, 1), (B, 1), (B, 1)]
    model.read.clear()
    generate(model, prompts(), 4, cache=False)
    assert model.read == [(B, T), (B, T + 1), (B, T + 2), (B, T + 3)]


def test_model_without_a_cache_reads_all_each_time():
    model = MODELS["markov"]()
    generate(model, prompts(), 3, cache=True)
    assert model.read == [(B, T), (B, T + 1), (B, T + 2)]


def test_window_slides_past_max_len_without_the_cache():
    model = Positional(max_len=7)
    generate(model, prompts(), 5)
    assert model.read == [(B, 5), (B, 1), (B, 1), (B, 7), (B, 7)]
    model.read.clear()
    generate(model, prompts(), 5, cache=False)
    assert model.read == [(B, 5), (B, 6), (B, 7), (B, 7), (B, 7)]
    model.read.clear()
    generate(model, torch.cat([prompts(), prompts()], 1), 2)  # too long from the start
    assert model.read == [(B, 7), (B, 7)]


def test_sampling_follows_the_distribution(device):
    """Two steps of a Markov chain, counted: χ² of each stays below its mean plus five deviations."""
    model, rows, start = Markov(normal(V, V, seed=3)).to(device), 20_000, 4
    for options in OPTIONS.values():
        cut = {name: value for name, value in options.items() if name != "stop_id"}
        ids = generate(model, torch.full((rows, 1), start, device=device), 2, generator=seeded(2, device), **cut)
        p = next_distribution(model.table.detach(), **cut).cpu()  # (V, V)
        pairs = torch.zeros(V, V, dtype=p.dtype).index_put(tuple(ids[:, 1:].cpu().T), p.new_ones(()), accumulate=True)
        expected = rows * p[start][:, None] * p
        seen = expected > 0
        assert (pairs[~seen] == 0).all()
        chi2, degrees = ((pairs - expected)[seen] ** 2 / expected[seen]).sum(), seen.sum() - 1
        assert chi2 <= degrees + 5 * (2 * degrees) ** 0.5


def test_same_seed_same_tokens(device):
    model = Recurrent().to(device)

    def run(seed):
        return generate(model, prompts(device), N, temperature=5.0, generator=seeded(seed, device))

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_without_a_generator_torchs_own_seed_counts():
    def run(seed):
        torch.manual_seed(seed)
        return generate(Recurrent(), prompts(), N, temperature=5.0)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_chance_comes_from_the_generator_alone_and_greedy_needs_none():
    model, generator, before = Recurrent(), seeded(), torch.get_rng_state()
    generate(model, prompts(), N, generator=generator, temperature=0)
    assert torch.equal(generator.get_state(), seeded().get_state())
    generate(model, prompts(), N, generator=generator)
    assert not torch.equal(generator.get_state(), seeded().get_state())
    generate(model, prompts(), N, temperature=0)
    beam_search(model, prompts()[0], N, n_beams=2)
    assert torch.equal(torch.get_rng_state(), before)


@models
@options
def test_one_prompt_without_a_batch_axis_equals_a_batch_of_one(make, options):
    single, batch = (generate(make(), ids, N, generator=seeded(), **options) for ids in (prompts()[1], prompts()[1:2]))
    assert torch.equal(single, batch[0])


@models
def test_prompt_stays_and_the_result_is_a_copy(make):
    ids = prompts()
    for n in (0, 1, N):
        result = generate(make(), ids, n)
        assert result.shape == (B, T + n)
        assert torch.equal(result[:, :T], prompts())
        result.fill_(-1)
        assert torch.equal(ids, prompts())


def test_no_new_tokens_ask_nothing_of_the_model():
    model = Recurrent()
    assert torch.equal(generate(model, prompts()[0], 0), prompts()[0])
    assert list(stream(model, prompts(), 0)) == model.read == []


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_result_is_int64(dtype):
    for n in (0, 2):
        result = generate(Recurrent(), prompts().to(dtype), n, temperature=0)
        assert result.dtype == torch.int64
        assert torch.equal(result, generate(Recurrent(), prompts(), n, temperature=0))


@options
def test_vocabulary_of_one_token(options):
    model = Recurrent(vocab_size=1)
    options = {name: value for name, value in options.items() if name != "stop_id"}
    assert generate(model, torch.zeros(B, T, dtype=torch.long), N, **options).tolist() == [[0] * (T + N)] * B


# ---- Stopping


def test_row_is_filled_after_its_stop_and_all_stopped_is_the_end():
    model = successor()  # 0 1 2 3 4 5 6, and after 6 nothing: a row that stopped there must not ask
    ids = torch.tensor([[1], [3], [5]])
    assert generate(model, ids, 99, stop_id=6).tolist() == [[1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 6, 6], [5, 6, 6, 6, 6, 6]]
    assert len(model.read) == 5
    assert generate(model, ids, 3, stop_id=6).tolist() == [[1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 6, 6]]


def test_stop_in_the_prompt_does_not_stop():
    assert generate(successor(), torch.tensor([6, 2, 2]), 3, stop_id=2).tolist() == [6, 2, 2, 3, 4, 5]


def test_without_a_stop_nothing_stops():
    loop = Markov(torch.eye(V).roll(1, 1) * 99)
    assert generate(loop, torch.tensor([5]), 4, temperature=0).tolist() == [5, 6, 0, 1, 2]


# ---- The stream


@models
@options
def test_stream_yields_what_generate_adds(make, options):
    columns = list(stream(make(), prompts(), N, generator=seeded(), **options))
    assert all(column.shape == (B,) for column in columns)
    assert torch.equal(torch.stack(columns, 1), generate(make(), prompts(), N, generator=seeded(), **options)[:, T:])


def test_stream_of_one_prompt_yields_batches_of_one():
    assert [column.tolist() for column in stream(successor(), torch.tensor([2, 3]), 2)] == [[4], [5]]


def test_stream_makes_a_token_when_it_is_asked_for_one():
    model = Recurrent()
    columns = stream(model, prompts(), N)
    for n in range(4):
        assert len(model.read) == n
        next(columns)


def test_stream_does_not_see_what_is_done_to_prompt_and_columns():
    ids, columns = prompts(), []
    for column in stream(Recurrent(), ids, N, temperature=0, cache=False):
        columns.append(column.clone())
        column.zero_(), ids.zero_()
    assert torch.equal(torch.stack(columns, 1), generate(Recurrent(), prompts(), N, temperature=0)[:, T:])


def test_stream_refuses_at_once():
    with pytest.raises(ValueError, match="top_k"):
        stream(Recurrent(), prompts(), N, top_k=0)


# ---- The model is left as it was


class Watched(Recurrent):
    """Notes in which state it is called, and fails at its third call if told to."""

    def __init__(self, fail=False):
        super().__init__()
        self.seen, self.fail = set(), fail

    def forward(self, ids, cache=None):
        self.seen.add((torch.is_grad_enabled(), *(module.training for module in self.modules())))
        if self.fail and len(self.read) == 2:
            raise RuntimeError("broken")
        return super().forward(ids, cache)


DECODERS = {
    "generate": generate,
    "stream": lambda *args: list(stream(*args)),
    "beam": lambda model, ids, n: beam_search(model, ids[0], n, n_beams=3),
}
decoders = pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)


@decoders
@pytest.mark.parametrize("fail", [False, True])
def test_model_decodes_in_eval_mode_without_gradients_and_is_left_as_it_was(decode, fail):
    model = Watched(fail)
    model.rnn.eval()  # as a frozen part may be
    modes = [module.training for module in model.modules()]
    if fail:
        with pytest.raises(RuntimeError, match="broken"):
            decode(model, prompts(), N)
    else:
        decode(model, prompts(), N)
    assert model.seen == {(False,) * (1 + len(modes))}
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()


def test_model_is_as_it_was_between_two_columns():
    model = Recurrent().train()
    for _ in stream(model, prompts(), 2):
        assert model.training
        assert torch.is_grad_enabled()


# ---- Beam search


def log_p(model, ids):
    return last_logits(model, ids).log_softmax(-1).tolist()


def wu(total, n, alpha):
    return total / ((5 + n) ** alpha / (5 + 1) ** alpha)


def all_hypotheses(model, prompt, n, stop, alpha):
    """Every continuation of n tokens, cut at its stop, with its score; best first."""
    whole = product(range(model.vocab_size), repeat=n)
    cut = {y[: y.index(stop) + 1] if stop in y else y for y in whole}
    total = {y: sum(log_p(model, [*prompt, *y[:i]])[y[i]] for i in range(len(y))) for y in cut}
    return sorted((([*prompt, *y], wu(total[y], len(y), alpha)) for y in cut), key=lambda pair: -pair[1])


def beam_by_hand(model, prompt, n, width, stop, alpha):
    """The same search with lists."""
    live, ended = [([], 0.0)], []
    for _ in range(n):
        grown = [([*y, v], s + x) for y, s in live for v, x in enumerate(log_p(model, [*prompt, *y])) if x > -INF]
        best = sorted(grown, key=lambda pair: -pair[1])[: width - len(ended)]
        ended += [pair for pair in best if pair[0][-1] == stop]
        live = [pair for pair in best if pair[0][-1] != stop]
    scored = [([*prompt, *y], wu(s, len(y), alpha)) for y, s in live + ended]
    return sorted(scored, key=lambda pair: -pair[1])


def assert_same(found, expected):
    assert [ids.tolist() for ids, _ in found] == [ids for ids, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected])


stops = pytest.mark.parametrize("stop_id", [None, 1])
alphas = pytest.mark.parametrize("alpha", [0.0, 0.6, 2])
PROMPT = [2, 0]


@models
@stops
@alphas
def test_wide_beam_finds_what_brute_force_finds(make, stop_id, alpha):
    model, n = make(vocab_size=3), 4
    everything = all_hypotheses(model, PROMPT, n, stop_id, alpha)
    options = {"stop_id": stop_id, "length_penalty": alpha}
    found = beam_search(model, torch.tensor(PROMPT), n, n_beams=3**n, **options)
    scores = {tuple(ids.tolist()): score for ids, score in found}
    assert scores == pytest.approx({tuple(ids): score for ids, score in everything})  # equals may change places
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    wide = beam_search(model, torch.tensor(PROMPT), n, n_beams=3 ** (n - 1), **options)
    assert_same(wide[:1], everything[:1])
    assert len(wide) == min(3 ** (n - 1), len(everything))


@models
@stops
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_beam_matches_the_same_search_with_lists(make, stop_id, cache, width, device):
    model = make().to(device)
    for alpha in (0.0, 0.6, 2):
        found = beam_search(model, torch.tensor(PROMPT, device=device), N, n_beams=width, stop_id=stop_id,
                            length_penalty=alpha, cache=cache)  # fmt: skip
        assert_same(found, beam_by_hand(model, PROMPT, N, width, stop_id, alpha))
        assert len(found) == width


@models
@stops
@alphas
def test_beam_of_one_is_greedy(make, stop_id, alpha):
    [(ids, score)] = beam_search(make(), prompts()[:1], N, n_beams=1, stop_id=stop_id, length_penalty=alpha)
    assert torch.equal(ids, generate(make(), prompts()[0], N, temperature=0, stop_id=stop_id))
    y, model = ids.tolist(), make()
    assert score == pytest.approx(wu(sum(log_p(model, y[:i])[y[i]] for i in range(T, len(y))), len(y) - T, alpha))


def test_equals_in_a_beam_go_by_the_lowest_token():
    found = beam_search(Markov(torch.zeros(3, 3)), torch.tensor([2]), 2, n_beams=4)
    assert [ids.tolist() for ids, _ in found] == [[2, 0, 0], [2, 0, 1], [2, 0, 2], [2, 1, 0]]


def test_beam_looks_past_a_tempting_first_step():
    p = torch.tensor([[0.0, 0.6, 0.4], [0.3, 0.3, 0.4], [0.05, 0.9, 0.05]])  # 0 → 1 tempts, 0 → 2 → 1 is best
    model, start = Markov(p.log()), torch.tensor([0])
    assert generate(model, start, 2, temperature=0).tolist() == [0, 1, 2]
    (best, first), (second, then) = beam_search(model, start, 2, n_beams=2)
    assert (best.tolist(), second.tolist()) == ([0, 2, 1], [0, 1, 2])
    assert (math.exp(first), math.exp(then)) == pytest.approx((0.36, 0.24))


def test_length_penalty_turns_the_order_round():
    p = torch.tensor([[0.0, 0.45, 0.55], [0.0, 1.0, 0.0], [0.0, 0.3, 0.7]])  # token 1 stops
    model, start = Markov(p.log()), torch.tensor([0])

    def ranked(alpha):
        return {tuple(ids.tolist()): score for ids, score in
                beam_search(model, start, 2, n_beams=2, stop_id=1, length_penalty=alpha)}  # fmt: skip

    plain, penalised = ranked(0), ranked(2)
    assert list(plain) == [(0, 1), (0, 2, 2)]
    assert list(plain.values()) == pytest.approx([math.log(0.45), math.log(0.55 * 0.7)])
    assert list(penalised) == [(0, 2, 2), (0, 1)]
    assert list(penalised.values()) == pytest.approx([math.log(0.55 * 0.7) * (6 / 7) ** 2, math.log(0.45)])


@pytest.mark.parametrize("make", [Recurrent, Positional])
def test_cache_of_the_beams_spares_reading_twice(make):
    model = make()
    beam_search(model, torch.tensor(PROMPT), 4, n_beams=3)
    assert model.read == [(1, 2), (3, 1), (3, 1), (3, 1)]
    model.read.clear()
    beam_search(model, torch.tensor(PROMPT), 4, n_beams=3, cache=False)
    assert model.read == [(1, 2), (3, 3), (3, 4), (3, 5)]


def test_ended_beams_are_not_read_on():
    p = torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])  # token 2 stops
    model = Markov(p.log())
    found = beam_search(model, torch.tensor([0]), 3, n_beams=2, stop_id=2)  # one ends at once, one is left
    assert [ids.tolist() for ids, _ in found] == [[0, 2], [0, 1, 1, 1]]
    assert model.read == [(1, 1), (1, 2), (1, 3)]
    model.read.clear()
    assert len(beam_search(model, torch.tensor([0]), 99, n_beams=1, stop_id=1)) == 1
    assert model.read == [(1, 1)]


def test_only_what_is_possible_is_found():
    found = beam_search(successor(), torch.tensor([3]), 2, n_beams=5)
    assert [(ids.tolist(), score) for ids, score in found] == [([3, 4, 5], 0.0)]
    assert len(beam_search(MODELS["markov"](), torch.tensor([3]), 1, n_beams=99)) == V


@pytest.mark.parametrize("alpha", [0, 1.5])
def test_beams_of_no_new_tokens_and_of_one_token_vocabularies(alpha):
    [(ids, score)] = beam_search(Recurrent(), torch.tensor([PROMPT]), 0, n_beams=3, length_penalty=alpha)
    assert (ids.tolist(), score) == (PROMPT, 0.0)
    [(ids, score)] = beam_search(Recurrent(1), torch.tensor([0]), 4, n_beams=3, length_penalty=alpha)
    assert (ids.tolist(), score) == ([0] * 5, 0.0)


def test_beam_search_leaves_the_prompt_as_it_was():
    ids = prompts()[:1]
    for found, _ in beam_search(Recurrent(), ids, 0, n_beams=2) + beam_search(Recurrent(), ids, 2, n_beams=2):
        found.fill_(-1)
    assert torch.equal(ids, prompts()[:1])


# ---- What is refused


NUMBER = [-0.5, INF, math.nan, "1", None]
INTEGER = [0, -3, 1.5, "2"]
BAD_OPTIONS = [
    *(({"temperature": x}, f"temperature: expected a finite number >= 0, got {x!r}") for x in NUMBER),
    *(({"top_k": x}, f"top_k: expected a positive integer or None, got {x!r}") for x in INTEGER),
    *(({"top_p": x}, f"top_p: expected a number in (0, 1], got {x!r}") for x in [0, -0.1, 1.01, math.nan, "1"]),
]
BAD_PROMPTS = [
    *(({"stop_id": x}, f"stop_id: expected None or a token id from 0 to 6, got {x!r}") for x in [-1, 7, 1.5, "2"]),
    *(({"max_new_tokens": x}, f"max_new_tokens: expected an int >= 0, got {x!r}") for x in [-1, 2.0, None, "3"]),
    ({"ids": torch.zeros(0, dtype=torch.long)}, "ids: expected shape (B, T) with B, T >= 1, got (1, 0)"),
    ({"ids": torch.zeros(2, 0, dtype=torch.long)}, "ids: expected shape (B, T) with B, T >= 1, got (2, 0)"),
    ({"ids": torch.zeros(0, 2, dtype=torch.long)}, "ids: expected shape (B, T) with B, T >= 1, got (0, 2)"),
    ({"ids": torch.tensor(3)}, "ids: expected shape (B, T) with B, T >= 1, got ()"),
    ({"ids": torch.zeros(1, 2, 3, dtype=torch.long)}, "ids: expected shape (B, T) with B, T >= 1, got (1, 2, 3)"),
    ({"ids": torch.tensor([1, 7])}, "ids: expected token ids from 0 to 6, got ids from 1 to 7"),
    ({"ids": torch.tensor([[1, -1]])}, "ids: expected token ids from 0 to 6, got ids from -1 to 1"),
]
NO_IDS = [
    (torch.zeros(1, 2), "ids: expected a tensor of integers, got torch.float32 tensor"),
    (torch.ones(2, dtype=torch.bool), "ids: expected a tensor of integers, got torch.bool tensor"),
    ([1, 2], "ids: expected a tensor of integers, got list"),
]
BAD_BEAMS = [
    *(({"n_beams": x}, f"n_beams: expected a positive integer, got {x!r}") for x in INTEGER),
    *(({"length_penalty": x}, f"length_penalty: expected a finite number >= 0, got {x!r}") for x in NUMBER),
    ({"ids": prompts()}, "ids: expected one prompt, (T,) or (1, T), got (3, 5)"),
]


def refused(cases):
    return pytest.mark.parametrize(("wrong", "message"), cases, ids=[message for _, message in cases])


def refuses(function, error, message, **arguments):
    with pytest.raises(error, match=re.escape(message)):
        function(**arguments)


CALL = {"model": Recurrent(), "ids": torch.tensor([1, 2]), "max_new_tokens": 3}


@pytest.mark.parametrize("function", [generate, stream])
@refused(BAD_OPTIONS + BAD_PROMPTS)
def test_generate_refuses_by_name(function, wrong, message):
    refuses(function, ValueError, message, **{**CALL, **wrong})


@refused(BAD_BEAMS + BAD_PROMPTS)
def test_beam_search_refuses_by_name(wrong, message):
    refuses(beam_search, ValueError, message, **{**CALL, "n_beams": 2, **wrong})


@pytest.mark.parametrize("function", [generate, stream, beam_search])
@refused(NO_IDS)
def test_what_are_no_ids_is_refused(function, wrong, message):
    beams = {"n_beams": 2} if function is beam_search else {}
    refuses(function, TypeError, message, **{**CALL, "ids": wrong, **beams})


@refused(BAD_OPTIONS)
def test_distribution_refuses_the_same_options(wrong, message):
    refuses(next_distribution, ValueError, message, logits=torch.zeros(2), **wrong)
    refuses(next_distribution, ValueError, message, logits=torch.zeros(2), **{"temperature": 0, **wrong})


@pytest.mark.parametrize(
    ("logits", "error", "message"),
    [
        (torch.zeros(2, dtype=torch.long), TypeError, "expected a floating-point tensor, got torch.int64"),
        ([0.0, 1.0], TypeError, "expected a floating-point tensor, got <class 'list'>"),
        (torch.tensor(1.0), ValueError, "expected shape (..., V) with V >= 1, got ()"),
        (torch.zeros(2, 0), ValueError, "expected shape (..., V) with V >= 1, got (2, 0)"),
        (torch.tensor([[0.0, 1.0], [0.0, math.nan]]), ValueError, "expected a finite maximum in each row, got nan"),
        (torch.tensor([[0.0, 1.0], [0.0, INF]]), ValueError, "expected a finite maximum in each row, got inf"),
        (torch.tensor([[0.0, 1.0], [-INF, -INF]]), ValueError, "expected a finite maximum in each row, got -inf"),
    ],
    ids=str,
)
def test_logits_without_a_softmax_are_refused(logits, error, message):
    refuses(next_distribution, error, f"logits: {message}", logits=logits)
    refuses(next_distribution, error, f"logits: {message}", logits=logits, temperature=0)


def test_dead_ends_are_refused_by_every_decoder():
    message = "logits: expected a finite maximum in each row, got -inf"
    for decode in (generate, beam_search):
        beams = {"n_beams": 2} if decode is beam_search else {}
        refuses(decode, ValueError, message, model=successor(), ids=torch.tensor([5]), max_new_tokens=2, **beams)


class Elsewhere(torch.Generator):
    device = torch.device("cuda")


@pytest.mark.parametrize("function", [generate, stream])
def test_generator_must_be_one_on_the_device_of_the_ids(function):
    refuses(function, ValueError, "generator: expected None or a torch.Generator on cpu, got 7", **CALL, generator=7)
    message = "generator: expected None or a torch.Generator on cpu, got device(type='cuda')"
    refuses(function, ValueError, message, **CALL, generator=Elsewhere())


def test_encoder_decoder_needs_its_source_first():
    model = EncoderDecoder(EncoderConfig(11, d_model=6, n_heads=1, n_layers=1, d_ff=7, max_len=5))
    with pytest.raises(
        TypeError, match=r"model: expected a language model, got EncoderDecoder \(an EncoderDecoder is one"
    ):
        generate(model, torch.tensor([1]), 3)
    assert generate(model.given(torch.tensor([[3, 4]])), torch.tensor([1]), 3, temperature=0).shape == (4,)
