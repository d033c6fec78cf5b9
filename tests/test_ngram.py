"""Counting models against the recursion of Chen & Goodman written out in plain Python, and against sums by hand."""

import copy
import functools
import math
import pickle
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook.lm import perplexity
from llmbook.ngram import NGram

V = 5
quick = settings(deadline=None, derandomize=True, max_examples=60)

sequences = st.lists(st.lists(st.integers(0, V - 1), max_size=12), max_size=7)
orders = st.integers(1, 5)
batches = st.integers(1, 7).flatmap(
    lambda t: st.lists(st.lists(st.integers(0, V - 1), min_size=t, max_size=t), min_size=1, max_size=3)
)


# ---- The oracle: every probability on its own, by going through the whole corpus


def occurrences(corpus, gram):
    """``(sequence, position)`` of each place where ``gram`` stands."""
    n = len(gram)
    return [(s, i) for s, words in enumerate(corpus) for i in range(len(words) - n + 1) if words[i : i + n] == gram]


def kneser_ney(corpus, order, discount=None):
    """A function ``p(w, h)`` for a token w after a tuple of tokens h."""
    corpus = [tuple(words) for words in corpus]

    @functools.cache
    def a(gram):
        places = occurrences(corpus, gram)
        if len(gram) == order:
            return len(places)
        left = {corpus[s][i - 1] if i else f"start of {s}" for s, i in places}
        return len({x for x in left if isinstance(x, int)} if len(gram) == 1 else left)

    @functools.cache
    def d(n):
        if discount:
            return discount
        grams = {words[i : i + n] for words in corpus for i in range(len(words) - n + 1)}
        n1, n2 = (sum(a(gram) == i for gram in grams) for i in (1, 2))
        return n1 / (n1 + 2 * n2) if n1 * n2 else 0.75

    def p(w, h):
        h = h[len(h) - min(len(h), order - 1) :]
        shorter = p(w, h[1:]) if h else 1 / V
        counts = [a((*h, v)) for v in range(V)]
        if sum(counts) == 0:
            return shorter
        kept = max(counts[w] - d(len(h) + 1), 0) / sum(counts)
        return kept + d(len(h) + 1) * sum(c > 0 for c in counts) / sum(counts) * shorter

    return p


def additive(corpus, order, k):
    """The same for add-k, and for maximum likelihood by k = 0."""
    corpus = [tuple(words) for words in corpus]

    def p(w, h):
        h = h[len(h) - min(len(h), order - 1) :]
        counts = [len(occurrences(corpus, (*h, v))) for v in range(V)]
        return (counts[w] + k) / (sum(counts) + k * V) if sum(counts) + k else 1 / V

    return p


def assert_model_is(model, p, ids):
    """The logits of ``ids``, and ``probabilities`` of every beginning of each row, against ``p``."""
    expected = [
        [[p(w, tuple(row[: t + 1])) for w in range(V)] for t in range(len(row))]  # with the whole past
        for row in ids
    ]
    expected = torch.tensor(expected, dtype=torch.float64)
    logits = model(torch.tensor(ids))
    torch.testing.assert_close(logits.double(), expected.log(), rtol=1e-6, atol=1e-6)
    for row, ps in zip(ids, expected, strict=True):
        exact = torch.stack([model.probabilities(row[: t + 1]) for t in range(len(row))])
        torch.testing.assert_close(exact, ps, rtol=1e-12, atol=1e-15)


@quick
@given(sequences, orders, batches, st.sampled_from([None, None, 0.3, 1.0]))
def test_kneser_ney_matches_the_recursion_in_plain_python(corpus, order, ids, discount):
    model = NGram(order, V, discount).fit(corpus)
    assert_model_is(model, kneser_ney(corpus, order, discount), ids)


@quick
@given(sequences, orders, batches, st.sampled_from([0, 0.1, 1.0, 2]))
def test_additive_smoothing_matches_plain_counts(corpus, order, ids, k):
    options = {"smoothing": "add-k", "k": k} if k else {"smoothing": "none"}
    assert_model_is(NGram(order, V, **options).fit(corpus), additive(corpus, order, k), ids)


@quick
@given(sequences, orders, st.lists(st.integers(0, V - 1), min_size=1, max_size=6))
def test_count_is_the_number_of_occurrences(corpus, order, ngram):
    model = NGram(order, V).fit(corpus)
    ngram = tuple(ngram[:order])
    assert model.count(ngram) == len(occurrences([tuple(words) for words in corpus], ngram))


def test_counts_of_a_known_corpus():
    model = NGram(3, V).fit([[0, 1, 0, 1, 2], [1, 0]])
    assert [model.count(g) for g in ([0], [1], [0, 1], [1, 0], [0, 1, 0], [0, 1, 2], [2, 1], [4], [2, 0])] == [
        3, 3, 2, 2, 1, 1, 0, 0, 0,
    ]  # fmt: skip


# ---- Properties


@quick
@given(sequences, orders, batches, st.sampled_from(["kneser-ney", "add-k", "none"]))
def test_every_distribution_sums_to_one_and_smoothing_leaves_nothing_impossible(corpus, order, ids, smoothing):
    model = NGram(order, V, smoothing=smoothing).fit(corpus)
    logits = model(torch.tensor(ids))
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(logits.shape[:2]), rtol=0, atol=1e-6)
    for row in ids:
        p = model.probabilities(row)
        assert p.sum().item() == pytest.approx(1, abs=1e-14)
        assert (p >= 0).all() if smoothing == "none" else (p > 0).all()


@quick
@given(sequences, orders)
def test_maximum_likelihood_is_no_worse_than_smoothing_on_what_was_counted(corpus, order):
    corpus = [words for words in corpus if len(words) > order]
    likelihood, smooth = (NGram(order, V, smoothing=s).fit(corpus) for s in ("none", "kneser-ney"))

    def loss(model):
        """Of the tokens after whole contexts, which are all that an order counts."""
        return -sum(
            model.probabilities(words[:t])[words[t]].log().item()
            for words in corpus
            for t in range(order - 1, len(words))
        )

    assert loss(likelihood) <= loss(smooth) + 1e-9


def test_far_tokens_do_not_matter():
    model = NGram(3, V).fit([[0, 1, 2, 3, 4, 0, 1, 3]])
    assert torch.equal(model.probabilities([4, 4, 0, 1]), model.probabilities([0, 1]))
    assert not torch.equal(model.probabilities([4, 1]), model.probabilities([0, 1]))


# ---- By hand


SAN, FRANCISCO, THE, A, MY, CAT = range(6)
TRAVELS = [[SAN, FRANCISCO]] * 5 + [[THE, CAT], [A, CAT], [MY, CAT]]


def test_francisco_is_frequent_but_not_expected_except_after_san():
    frequent = NGram(1, 6, discount=0.5).fit(TRAVELS).probabilities([])
    assert frequent[FRANCISCO] > frequent[CAT]

    model = NGram(2, 6, discount=0.5).fit(TRAVELS)
    anywhere = model.probabilities([])  # one left context for "Francisco", three for "cat"; λ = 0.5 · 2 / 4
    assert anywhere[FRANCISCO].item() == pytest.approx((1 - 0.5) / 4 + 0.25 / 6)
    assert anywhere[CAT].item() == pytest.approx((3 - 0.5) / 4 + 0.25 / 6)
    assert anywhere[SAN].item() == pytest.approx(0.25 / 6)  # it stood at the start alone
    after = model.probabilities([SAN])
    assert after[FRANCISCO].item() == pytest.approx((5 - 0.5) / 5 + 0.1 * anywhere[FRANCISCO].item())
    assert after[CAT].item() == pytest.approx(0.1 * anywhere[CAT].item())


@pytest.mark.parametrize("context", [[CAT], [CAT, CAT], [FRANCISCO]])
def test_context_never_seen_backs_off_fully(context):
    model = NGram(2, 6).fit(TRAVELS)
    assert torch.equal(model.probabilities(context), model.probabilities([]))
    assert not torch.equal(model.probabilities([SAN]), model.probabilities([]))


def test_what_begins_a_sequence_keeps_its_count_at_the_lower_order():
    model = NGram(3, V, discount=0.5).fit([[0, 1, 3]] * 3 + [[0, 2, 3]])  # 0 marks the start
    lowest = model.probabilities([4])  # left contexts: 1 of "1" and of "2", 2 of "3"
    assert lowest.tolist() == pytest.approx([0.375 / 5, 0.125 + 0.375 / 5, 0.125 + 0.375 / 5, 0.375 + 0.375 / 5, 0.075])
    first = model.probabilities([0])
    assert first[1].item() == pytest.approx((3 - 0.5) / 4 + 0.25 * lowest[1].item())
    assert first[2].item() == pytest.approx((1 - 0.5) / 4 + 0.25 * lowest[2].item())


def test_default_discount_of_each_order():
    model = NGram(2, V).fit([[0, 1, 0, 1, 2, 0, 3]])
    # bigrams: 01 twice; 10, 12, 20, 03 once. Left contexts: 0 has two (1, 2); 1, 2 and 3 have one
    assert model.discounts == pytest.approx([3 / (3 + 2 * 1), 4 / (4 + 2 * 1)])
    assert NGram(1, V).fit([[0, 1, 2]]).discounts == [0.75]  # nothing was seen twice
    assert NGram(1, V).fit([[0, 0, 1, 1]]).discounts == [0.75]  # nothing once
    assert NGram(2, V, discount=0.4).fit([[0, 1]]).discounts == [0.4, 0.4]
    assert NGram(2, V, smoothing="none").fit([[0, 1]]).discounts == []


def test_maximum_likelihood_by_hand():
    model = NGram(2, V, smoothing="none").fit([[0, 1, 0, 1, 0, 2]])
    assert model.probabilities([]).tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0, 0])
    logits = model(torch.tensor([[0, 2]]))
    assert logits[0, 0].tolist() == pytest.approx([-math.inf, math.log(2 / 3), math.log(1 / 3), -math.inf, -math.inf])
    assert logits[0, 1].exp().tolist() == pytest.approx([1 / V] * V)  # nothing ever came after 2


def test_impossible_tokens_have_infinite_perplexity_without_smoothing_alone():
    corpus, ids = [[0, 1, 2, 3, 4, 0, 1]], torch.tensor([[0, 1, 3]])
    assert perplexity(NGram(2, V, smoothing="none").fit(corpus), ids) == math.inf
    assert perplexity(NGram(2, V).fit(corpus), ids) < 100


def test_kneser_ney_predicts_better_than_the_alternatives():
    size, generator = 31, torch.Generator().manual_seed(0)
    rows = torch.rand(size, size, generator=generator).pow(20)  # a language of bigrams, some 5 likely after each word
    words = [0]
    for _ in range(3000):
        words.append(int(torch.multinomial(rows[words[-1]], 1, generator=generator)))
    corpus, ids = torch.tensor(words[:2000]), torch.tensor(words[2000:])[None]
    models = [NGram(4, size, smoothing=s).fit(corpus) for s in ("kneser-ney", "add-k", "none")]
    best, second, worst = (perplexity(model, ids) for model in models)
    assert best < second < worst


# ---- What it is fitted on


def test_no_ngram_reaches_over_the_end_of_a_sequence():
    model = NGram(2, V).fit([[0, 1], [2, 3]])
    assert (model.count([1, 2]), model.count([2, 3])) == (0, 1)


@pytest.mark.parametrize(
    "corpus",
    [
        torch.tensor([0, 1, 2, 0, 1, 3]),
        torch.tensor([0, 1, 2, 0, 1, 3], dtype=torch.int32),
        [[0, 1, 2, 0, 1, 3]],
        [[], [0, 1, 2, 0, 1, 3], []],
        (torch.tensor(words) for words in [[0, 1, 2, 0, 1, 3]]),
        torch.tensor([[0, 1, 2, 0, 1, 3]]),
    ],
    ids=["tensor", "int32", "list", "empty ones too", "generator", "rows"],
)
def test_corpus_may_be_a_tensor_or_any_sequences(corpus):
    model = NGram(3, V).fit(corpus)
    assert torch.equal(model.probabilities([0, 1]), NGram(3, V).fit([[0, 1, 2, 0, 1, 3]]).probabilities([0, 1]))
    assert [model.count([w]) for w in range(V)] == [2, 2, 1, 1, 0]


def test_fit_gives_the_model_and_forgets_what_was_before():
    model = NGram(2, V)
    assert model.fit([[0, 1, 2]]) is model
    model.fit([[3, 4]])
    assert (model.count([0, 1]), model.count([3, 4]), len(model.discounts)) == (0, 1, 2)


@pytest.mark.parametrize("smoothing", ["kneser-ney", "add-k", "none"])
def test_model_that_has_seen_nothing_is_uniform(smoothing):
    for model in (NGram(3, V, smoothing=smoothing), NGram(3, V, smoothing=smoothing).fit([])):
        assert model.probabilities([0, 1]).tolist() == pytest.approx([1 / V] * V)
        assert model.count([0, 1]) == 0


def test_large_vocabularies_and_orders_do_not_overflow():
    size, order = 100_003, 7  # size ** order is above 2 ** 64
    corpus = [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 1, 1, 4], [4, 3, 2, 1, 0, 1, 2, 3]]
    spread = torch.tensor([7, 20_011, size - 1, 60_013, 99_991])
    small = NGram(order, V, smoothing="none").fit(corpus)
    large = NGram(order, size, smoothing="none").fit([spread[words] for words in corpus])
    for t in range(1, 9):
        words = torch.tensor(corpus[0][:t])
        assert torch.equal(large.probabilities(spread[words])[spread], small.probabilities(words))


def test_logits_are_where_the_ids_are(device):
    model, ids = NGram(3, V).fit([[0, 1, 2, 0, 1, 3]]), torch.tensor([[0, 1, 2], [4, 0, 1]], device=device)
    assert model(ids).device == ids.device
    assert torch.equal(model(ids).cpu(), model(ids.cpu()))
    assert torch.equal(model.probabilities(ids[0]), model.probabilities(ids[0].cpu()))


def test_inputs_stay_as_they_were_and_a_copy_counts_as_well():
    corpus, ids = torch.tensor([0, 1, 2, 0, 1, 3]), torch.tensor([[0, 1]])
    model = NGram(3, V).fit(corpus)
    logits = model(ids)
    assert torch.equal(model(ids), logits)
    assert (corpus.tolist(), ids.tolist()) == ([0, 1, 2, 0, 1, 3], [[0, 1]])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(ids), logits)
    assert model.state_dict() == {}


# ---- What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 0}, "order: expected a positive integer, got 0"),
        ({"order": 2.5}, "order: expected a positive integer, got 2.5"),
        ({"vocab_size": -1}, "vocab_size: expected a positive integer, got -1"),
        ({"discount": 0}, "discount: expected a number above 0 and at most 1, got 0"),
        ({"discount": 1.5}, "discount: expected a number above 0 and at most 1, got 1.5"),
        ({"smoothing": "laplace"}, "smoothing: expected one of kneser-ney, add-k, none, got 'laplace'"),
        ({"k": 0}, "k: expected a number above 0, got 0"),
    ],
    ids=str,
)
def test_arguments_out_of_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        NGram(**{"order": 2, "vocab_size": V, **options})


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ([[0, V]], ValueError, "expected token ids from 0 to 4, got ids from 0 to 5"),
        ([[-1, 0]], ValueError, "expected token ids from 0 to 4, got ids from -1 to 0"),
        ([[0.5, 1.0]], TypeError, "expected a tensor of integers, got torch.float32 tensor"),
        ([[[0, 1]]], ValueError, "expected a 1-D sequence of token ids, got shape (1, 2)"),
        ([3], ValueError, "expected a 1-D sequence of token ids, got shape ()"),
    ],
    ids=str,
)
def test_what_is_no_sequence_of_token_ids_is_refused(wrong, error, message):
    model = NGram(2, V)
    for name, function in (("ids", model.fit), ("context", model.probabilities), ("ngram", model.count)):
        with pytest.raises(error, match=re.escape(f"{name}: {message}")):
            function(wrong if name == "ids" else wrong[0])


@pytest.mark.parametrize("ngram", [[], [0, 1, 2]], ids=str)
def test_count_knows_only_the_lengths_up_to_its_order(ngram):
    with pytest.raises(ValueError, match=f"ngram: expected 1 to order=2 token ids, got {len(ngram)}"):
        NGram(2, V).count(ngram)
