"""Gaps to fill: which are asked for, how answers are measured, and predictors that do not look at what is hidden."""

import math
import re
from collections import Counter

import pytest
import torch
from helpers import ids_of, shake
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook import cloze, text
from llmbook.cloze import Answers, Counts, Masked, Questions, answer, difference, fill, questions, score
from llmbook.mlm import MaskedLM
from llmbook.ngram import NGram
from llmbook.transformer import EncoderConfig

PAD, CLS, SEP, MASK, UNK = range(5)
V = 13
KINDS = ["unigram", "left", "two-sided"]
CORPUS = [[5, 6, 7], [5, 6, 8, 7], [6, 6, 6], [9], [5, 10, 7, 5, 6, 7], [5, 6, 7, 8], []]

quick = settings(deadline=None, derandomize=True, max_examples=60)
kinds = pytest.mark.parametrize("kind", KINDS)
sequences = st.lists(st.lists(st.integers(MASK, V - 1), max_size=12), min_size=1, max_size=8)


def model_of(**options):
    sizes = {"vocab_size": V, "d_model": 12, "n_heads": 3, "n_layers": 2, "d_ff": 17, "max_len": 16, **options}
    return shake(MaskedLM(EncoderConfig(**sizes)).double()).eval()


def replaced(asked, tokens):
    """The same questions about other hidden tokens."""
    return asked._replace(ids=asked.ids.scatter(1, asked.position[:, None], tokens[:, None]))


# ---- Questions


@quick
@given(sequences, st.integers(3, 16), st.integers(1, 5), st.integers(0, 99))
def test_questions_are_about_ordinary_tokens_a_few_of_each_text(found, length, per_text, seed):
    ordinary = [sum(i > UNK for i in ids[: length - 2]) for ids in found]
    if not any(ordinary):
        return
    asked = questions(found, length=length, per_text=per_text, seed=seed)
    assert asked.ids.shape == (len(asked.position), length) and asked.target.shape == asked.text.shape
    assert (asked.target > UNK).all()
    assert asked.text.bincount(minlength=len(found)).tolist() == [min(n, per_text) for n in ordinary]
    assert len(set(zip(asked.text.tolist(), asked.position.tolist(), strict=True))) == len(asked.text)
    for row, i in zip(asked.ids.tolist(), asked.text.tolist(), strict=True):
        whole = [CLS, *found[i][: length - 2], SEP]
        assert row == whole + [PAD] * (length - len(whole))
    again = questions(found, length=length, per_text=per_text, seed=seed)
    assert all(torch.equal(a, b) for a, b in zip(asked, again, strict=True))


def test_positions_are_drawn_evenly_and_with_another_seed_otherwise():
    found = [[5, 6, 7, 8, 9]] * 4000
    asked = questions(found, length=8, per_text=2)
    counts = asked.position.bincount(minlength=8)[1:6]
    assert ((counts - 1600).abs() < 4.5 * (4000 * 0.4 * 0.6) ** 0.5).all()
    assert not torch.equal(asked.position, questions(found, length=8, per_text=2, seed=1).position)


@pytest.mark.parametrize(
    ("found", "options", "message"),
    [
        ([[7]], {"length": 2}, "length: expected at least 3, got 2"),
        ([[7]], {"per_text": 0}, "per_text: expected a positive integer, got 0"),
        ([[], [MASK, UNK]], {}, "sequences: expected a text with a token to ask for, found none"),
        ([[UNK, 7]], {"length": 3}, "sequences: expected a text with a token to ask for, found none"),
        ([], {}, "sequences: expected a text with a token to ask for, found none"),
    ],
)
def test_questions_name_what_is_wrong(found, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        questions(found, **options)


# ---- Answers


def test_rank_and_loss_by_hand():
    asked = Questions(torch.tensor([[1, 5, 2], [1, 6, 2], [1, 7, 2]]), torch.tensor([1, 1, 1]), torch.tensor([0, 1, 1]))
    p = torch.full((3, 8), 0.05)
    p[0, 5], p[1, 7], p[2, 7], p[2, 3] = 0.65, 0.65, 0.2, 0.5
    given_ = answer(lambda batch: p.log(), asked)
    assert given_.rank.tolist() == [1, 8, 2]  # the second is one of seven equal ones, and the last of them
    assert given_.loss.tolist() == pytest.approx([-math.log(0.65), -math.log(0.05), -math.log(0.2)])
    assert given_.text.tolist() == [0, 1, 1]


def test_a_model_that_prefers_nothing_knows_nothing():
    asked = questions([[5, 6, 7, 8]] * 3)
    assert score(answer(lambda batch: torch.full((len(batch.ids), V), -math.log(V)), asked))["top5"] == (0, 0, 0)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_answers_are_the_same_in_batches_of_any_size(batch_size):
    asked, predict = questions(CORPUS), Counts(CORPUS, V)
    whole, some = answer(predict, asked), answer(predict, asked, batch_size=batch_size)
    assert all(torch.equal(a, b) for a, b in zip(whole, some, strict=True))


@pytest.mark.parametrize("shape", [(2, V), (3,), (3, 1, V)])
def test_answers_of_another_shape_are_refused(shape):
    message = f"predict: expected log-probabilities (3, V), got {shape}"
    with pytest.raises(ValueError, match=re.escape(message)):
        answer(lambda batch: torch.zeros(shape), questions([[5, 6, 7]]))


# ---- Scores


def drawn(texts, per_text, *, seed=0, agree=False):
    """Answers at random; with ``agree`` all those of a text are the same."""
    generator = torch.Generator().manual_seed(seed)
    rank = torch.randint(1, 9, (texts, 1 if agree else per_text), generator=generator).expand(-1, per_text).flatten()
    return Answers(rank, rank.double().log(), torch.arange(texts).repeat_interleave(per_text))


@pytest.mark.parametrize("agree", [False, True])
def test_score_is_the_mean_and_its_interval_contains_it(agree):
    given_ = drawn(60, 3, agree=agree)
    found = score(given_)
    assert list(found) == ["top1", "top5", "loss"]
    means = [(given_.rank == 1).double().mean(), (given_.rank <= 5).double().mean(), given_.loss.mean()]
    for (estimate, low, high), mean in zip(found.values(), means, strict=True):
        assert estimate == pytest.approx(float(mean)) and low < estimate < high
    assert score(given_) == found != score(given_, seed=1)


def test_interval_is_as_wide_as_texts_differ_not_questions():
    """Where all questions about a text agree, 4 of them are worth 1."""

    def width(answers):
        _, low, high = score(answers)["loss"]
        return high - low

    same = drawn(200, 4, agree=True)
    by_question = same._replace(text=torch.arange(800))
    assert width(same) == pytest.approx(2 * width(by_question), rel=0.1)
    assert width(same) == pytest.approx(2 * 1.96 * float(same.loss[::4].std()) / 200**0.5, rel=0.1)


def test_texts_of_different_length_are_weighed_by_their_questions():
    given_ = Answers(torch.tensor([1, 1, 1, 9]), torch.zeros(4), torch.tensor([3, 3, 3, 8]))
    assert score(given_)["top1"] == (0.75, 0, 1)


def test_difference_of_answers_to_the_same_questions():
    a, b = drawn(80, 2), drawn(80, 2, seed=1)
    estimate, low, high = difference(a, b)
    assert estimate == pytest.approx(score(a)["top1"][0] - score(b)["top1"][0]) and low < estimate < high
    assert difference(a, a) == (0, 0, 0)
    assert difference(b, a)[0] == -estimate


def test_difference_of_answers_to_other_questions_is_refused():
    with pytest.raises(ValueError, match="b: expected answers to the 6 questions of a, got 8 others"):
        difference(drawn(3, 2), drawn(4, 2))


# ---- A masked language model


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_masked_model_does_not_read_the_hidden_token(positions, device):
    predict = Masked(model_of(positions=positions).to(device))
    asked = questions(CORPUS, length=9)
    expected = predict(asked)
    assert expected.shape == (len(asked.ids), V) and expected.device.type == "cpu"
    torch.testing.assert_close(expected.exp().sum(1), torch.ones(len(asked.ids)))
    for token in range(UNK, V):
        assert torch.equal(predict(replaced(asked, torch.full_like(asked.target, token))), expected)


def test_filling_does_not_matter():
    predict, short, long = Masked(model_of()), questions(CORPUS, length=8), questions(CORPUS, length=16)
    assert torch.equal(short.position, long.position)
    torch.testing.assert_close(predict(short), predict(long), rtol=0, atol=1e-6)
    for i in range(len(long.ids)):  # nor does the company of longer texts
        one = Questions(*(x[i : i + 1] for x in long))
        torch.testing.assert_close(predict(one), predict(long)[i : i + 1], rtol=0, atol=1e-6)


def test_a_masked_model_answers_as_it_does_when_asked_by_hand():
    model, asked = model_of(), questions([[5, 6, 7]], per_text=1)
    ids = torch.tensor([[CLS, 5, 6, 7, SEP]])
    at = int(asked.position)
    ids[0, at] = MASK
    torch.testing.assert_close(Masked(model)(asked)[0], model(ids)[0, at].float().log_softmax(-1), rtol=0, atol=1e-6)


def test_a_model_is_asked_without_dropout_and_left_as_it_was():
    model = model_of(dropout=0.5).train()
    assert torch.equal(Masked(model)(questions(CORPUS)), Masked(model)(questions(CORPUS))) and model.training


# ---- Counting


@kinds
def test_what_counting_says_is_a_distribution(kind):
    predict = Counts(CORPUS, V, kind)
    gaps = torch.cartesian_prod(torch.arange(V), torch.arange(V))  # every left with every right
    ids = torch.stack([gaps[:, 0], torch.full((V * V,), 5), gaps[:, 1]], 1)
    log_p = predict(Questions(ids, torch.ones(V * V, dtype=torch.int64), torch.arange(V * V)))
    assert log_p.shape == (V * V, V) and torch.isfinite(log_p).all()
    torch.testing.assert_close(log_p.double().exp().sum(1), torch.ones(V * V).double(), rtol=0, atol=1e-5)


def by_hand(left, right):
    """The equation of Counts in plain Python, on the bigram model's probabilities."""
    rows = [[CLS, *ids, SEP] for ids in CORPUS]
    bigram = NGram(2, V).fit(rows)
    p = [bigram.probabilities([i]).tolist() for i in range(V)]
    q = [p[left][w] * p[w][right] for w in range(V)]
    q = [x / sum(q) for x in q]
    triples = Counter(t for row in rows for t in zip(row, row[1:], row[2:], strict=False))
    once, twice = (sum(c == n for c in triples.values()) for n in (1, 2))
    d = once / (once + 2 * twice) if once and twice else 0.75
    here = {w: triples[left, w, right] for w in range(V) if triples[left, w, right]}
    total = sum(here.values())
    if not total:
        return q
    return [max(here.get(w, 0) - d, 0) / total + d * len(here) / total * q[w] for w in range(V)]


def test_two_sided_counts_are_the_equation():
    predict, seen = Counts(CORPUS, V), 0
    for left in range(V):
        for right in range(V):
            asked = Questions(torch.tensor([[left, 7, right]]), torch.tensor([1]), torch.tensor([0]))
            expected = by_hand(left, right)
            assert predict(asked)[0].exp().tolist() == pytest.approx(expected, rel=1e-5)
            seen += any(row[i] == left and row[i + 2] == right for row in CORPUS for i in range(len(row) - 2))
    assert seen > 3


def test_where_no_trigram_was_seen_twice_the_discount_is_three_quarters():
    predict = Counts([[5, 6, 7]], V)
    assert predict.discount == 0.75
    p = predict(Questions(torch.tensor([[5, 0, 7]]), torch.tensor([1]), torch.tensor([0])))[0].exp()
    assert 0.25 < p[6] < 1 and p.argmax() == 6


def test_left_counts_are_those_of_a_bigram_model():
    asked = questions(CORPUS, per_text=9)
    bigram = NGram(2, V).fit([[CLS, *ids, SEP] for ids in CORPUS])
    for log_p, left in zip(
        Counts(CORPUS, V, "left")(asked), asked.ids.gather(1, asked.position[:, None] - 1), strict=True
    ):
        torch.testing.assert_close(log_p.exp(), bigram.probabilities(left).float(), rtol=1e-5, atol=1e-7)


def test_unigram_counts_by_hand():
    p = Counts([[5, 5, 6], [7]], V, "unigram")(questions([[6]]))[0].exp()
    expected = [(c + 0.1) / (4 + 0.1 * V) for c in (0, 0, 0, 0, 0, 2, 1, 1, 0, 0, 0, 0, 0)]
    assert p.tolist() == pytest.approx(expected)


@kinds
def test_counting_does_not_look_at_the_hidden_token_nor_beyond_its_neighbours(kind):
    predict, asked = Counts(CORPUS, V, kind), questions(CORPUS, per_text=9)
    expected = predict(asked)
    far = (torch.arange(asked.ids.shape[1]) - asked.position[:, None]).abs() != 1
    noise = ids_of(*asked.ids.shape, vocab_size=V)
    assert torch.equal(predict(asked._replace(ids=torch.where(far, noise, asked.ids))), expected)


def test_both_sides_say_more_than_one_and_one_more_than_none():
    """A language in which the two neighbours fix a token, and one of them halves the choice."""
    found = [[5 + a, 7 + 2 * a + b, 11 + b] for a in range(2) for b in range(2)] * 9
    asked = questions(found, per_text=3)
    middle = asked.position == 2
    asked = Questions(*(x[middle] for x in asked))
    top1 = [score(answer(Counts(found, V, kind), asked))["top1"][0] for kind in KINDS]
    loss = [score(answer(Counts(found, V, kind), asked))["loss"][0] for kind in KINDS]
    assert top1[2] == 1 and loss[2] < loss[1] < loss[0]


def test_other_kinds_are_refused():
    with pytest.raises(ValueError, match="kind: expected unigram, left or two-sided, got 'trigram'"):
        Counts(CORPUS, V, "trigram")


# ---- Filling in


@pytest.fixture(scope="module")
def tokenizer():
    return text.train_characters([], 261)


def byte_model(**options):
    return model_of(vocab_size=261, **options)


def test_gaps_are_filled_with_the_likeliest_tokens_first(tokenizer):
    model = byte_model()
    found = fill(model, tokenizer, "a [MASK] b[MASK]", k=7)
    assert [len(gap) for gap in found] == [7, 7]
    ids = torch.tensor([[CLS, *text.encode(tokenizer, "a [MASK] b[MASK]"), SEP]])
    p = model(ids).float().softmax(-1)[0]
    for gap, at in zip(found, (ids[0] == MASK).nonzero().flatten(), strict=True):
        values = [guess.probability for guess in gap]
        assert values == sorted(values, reverse=True) and 0 < sum(values) <= 1
        assert values == pytest.approx(p[at].topk(7).values.tolist(), abs=1e-6)
        assert [guess.token for guess in gap] == [tokenizer.decode([i]) for i in p[at].topk(7).indices.tolist()]
    assert fill(model, tokenizer, "a [MASK] b[MASK]") == [gap[:5] for gap in found]


def test_a_text_without_a_gap_is_refused(tokenizer):
    with pytest.raises(ValueError, match=re.escape("text: expected a [MASK] in it, got 'nothing [mask]ed'")):
        fill(byte_model(), tokenizer, "nothing [mask]ed")


def test_a_text_that_is_too_long_is_refused(tokenizer):
    with pytest.raises(ValueError, match="expected at most max_len=16 tokens a row, got 18"):
        fill(byte_model(), tokenizer, "fifteen letters[MASK]")


def test_no_guesses_at_all_are_refused(tokenizer):
    with pytest.raises(ValueError, match="k: expected a positive integer, got 0"):
        fill(byte_model(), tokenizer, "[MASK]", k=0)


@pytest.mark.parametrize("name", ["PAD", "CLS", "SEP", "MASK"])
def test_special_tokens_have_the_numbers_that_this_module_says(name):
    assert text.SPECIAL[getattr(cloze, name)] == f"[{name}]"
