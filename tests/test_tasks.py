"""The four tasks: what is in them, that nothing leaks, that labels stand at their tokens, and how they are measured."""

import re
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from llmbook import text
from llmbook.lm import IGNORE
from llmbook.tasks import (
    DEV,
    MARKS,
    TAGS,
    TASKS,
    TOPICS,
    Encoded,
    Example,
    Task,
    accuracy,
    encode,
    evaluate,
    mark_f1,
    spans,
    spread,
    task,
    word_f1,
)

B, M, E, S = range(4)
names = pytest.mark.parametrize("name", TASKS)
quick = settings(deadline=None, derandomize=True, max_examples=60)
tags = st.lists(st.lists(st.sampled_from([B, M, E, S, IGNORE]), min_size=1, max_size=8), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def made():
    return {name: task(name) for name in TASKS}


@pytest.fixture(scope="module")
def records():
    return {record.id: record for record in text.graded()}


def key(sentence):
    return "".join(c for c in sentence.casefold() if c.isalnum())


def everything(found):
    """The examples of all parts of a task."""
    return [example for part in found.splits.values() for example in part]


def toy(*rows, kind="tokens", language="zh", measure="accuracy", join=1):
    """A task with the same examples in all its parts."""
    found = tuple(Example(f"e{i}", "".join(units), tuple(units), tuple(y)) for i, (units, y) in enumerate(rows))
    return Task("toy", language, kind, ("0", "1"), measure, dict.fromkeys(("train", "dev", "test"), found), join)


# ---- What is in them


@names
def test_parts_are_large_enough_and_labels_are_known(made, name):
    found = made[name]
    assert len(found.splits["train"]) >= 1000 and len(found.splits["dev"]) == DEV and len(found.splits["test"]) > 800
    for example in everything(found):
        assert len(example.labels) == (len(example.units) if found.kind == "tokens" else 1)
        assert all(y == IGNORE or 0 <= y < len(found.labels) for y in example.labels) and all(example.units)


@names
def test_every_label_is_in_every_part(made, name):
    for part in made[name].splits.values():
        assert {y for e in part for y in e.labels} - {IGNORE} == set(range(len(made[name].labels)))


@names
def test_a_task_is_always_the_same(made, name):
    assert task(name) == made[name]


def test_topics_are_the_most_frequent_ones(records):
    topics = [record.topic for record in records.values() if record.topic not in ("objects_misc", "misc")]
    assert sorted(set(topics), key=topics.count, reverse=True)[: len(TOPICS)] == list(TOPICS)


def test_tags_spell_the_words_of_the_corpus(made, records):
    for example in everything(made["zh-words"]):
        words = sorted(spans(example.labels))
        assert tuple("".join(example.units[i:j]) for i, j in words) == records[example.id].words


def test_marks_rebuild_the_sentence(made):
    for example in everything(made["en-punctuation"]):
        rebuilt = " ".join(unit + MARKS[y] for unit, y in zip(example.units, example.labels, strict=True))
        assert rebuilt == example.source.lower().replace(".,", ",")  # "e.g.,": the last mark alone
        assert not re.search(r"[,.?!]( |$)", " ".join(example.units))


def test_topics_are_those_of_the_corpus(made, records):
    for name in ("zh-topic", "en-topic"):
        for example in everything(made[name]):
            assert TOPICS[example.labels[0]] == records[example.id].topic
            assert made[name].blank.join(example.units) == example.source == getattr(records[example.id], name[:2])


def test_sentences_without_english_are_in_chinese_tasks_alone(made, records):
    for name, found in made.items():
        missing = {e.id for e in everything(found) if not records[e.id].en}
        assert bool(missing) == name.startswith("zh")


# ---- Nothing leaks


@names
def test_no_sentence_is_in_two_parts_nor_nearly(made, name):
    train, dev, test = ([e.source for e in made[name].splits[part]] for part in ("train", "dev", "test"))
    keys = [key(sentence) for sentence in [*train, *dev, *test]]
    assert len(set(keys)) == len(keys)
    assert set(text.near_duplicates(train, [*dev, *test])) == set(text.near_duplicates(dev, test)) == {-1}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_sentence_is_in_the_pretraining_text(made, language):
    seen = {key(record.text) for record in text.texts(language)}
    found = {e.source for t in made.values() if t.language == language for e in everything(t)}
    assert found and not {sentence for sentence in found if key(sentence) in seen}


@names
def test_fewer_labelled_sentences_are_among_more(made, name):
    sizes = [made[name].labelled(n, seed=3) for n in (30, 100, 300, 1000)]
    for few, many in pairwise(sizes):
        assert many[: len(few)] == few
    assert len({e.id for e in sizes[-1]}) == 1000 and set(sizes[-1]) <= set(made[name].splits["train"])
    assert made[name].labelled(30, seed=4) != sizes[0]


# ---- As token ids


@pytest.fixture(scope="module")
def tokenizers(made):
    chinese, english = ([e.source for e in made[name].splits["dev"]] for name in ("zh-words", "en-punctuation"))
    return {"characters": text.train_characters(chinese[:50], 300), "bpe": text.train_bpe(english, 500),
            "wordpiece": text.train_wordpiece(english, 500)}  # fmt: skip


@names
@pytest.mark.parametrize("kind", ["characters", "bpe", "wordpiece"])
def test_ids_are_those_of_the_text_and_labels_stand_at_last_tokens(made, tokenizers, name, kind):
    if (kind == "characters") != (name[:2] == "zh"):
        return
    found, tokenizer = made[name], tokenizers[kind]
    rows = found.rows(found.splits["dev"])
    encoded = encode(found, tokenizer, rows)
    for row, ids, mask, labels in zip(rows, encoded.ids, encoded.mask[:, 0, 0], encoded.labels, strict=True):
        ids = ids[mask].tolist()
        assert ids == [1, *text.encode(tokenizer, found.blank.join(row.units)), 2] and not mask[len(ids) :].any()
        if found.kind == "sentence":
            assert labels == row.labels[0]
            continue
        assert labels[labels != IGNORE].tolist() == [y for y in row.labels if y != IGNORE]
        last = (labels != IGNORE).nonzero().flatten().tolist()  # each label closes a unit: decode back up to it
        read = [tokenizer.decode(ids[1 : i + 1]) for i in last]
        ends = [i for i, y in enumerate(row.labels) if y != IGNORE]
        wanted = [found.blank.join(row.units[: i + 1]) for i in ends]
        if kind == "wordpiece":  # its decoder moves blanks
            read, wanted = ([key(x) for x in found] for found in (read, wanted))
        assert read == wanted


def test_rare_characters_have_one_label_for_all_their_bytes():
    found = toy(("甲乙", (B, E)))
    encoded = encode(found, text.train_characters(["甲"], 262), found.splits["test"])
    assert encoded.labels.tolist() == [[IGNORE, B, IGNORE, IGNORE, E, IGNORE]] and encoded.mask.all()


def test_padding_is_masked_and_trimmed():
    found = toy(("ab", (0, 1)), ("abcd", (1, 1, 1, 0)))
    encoded = encode(found, text.train_characters(["abcd"], 300), found.splits["test"])
    assert encoded.ids.shape == encoded.labels.shape == (2, 6) and encoded.mask.shape == (2, 1, 1, 6)
    assert encoded.mask[0, 0, 0].tolist() == [True] * 4 + [False] * 2
    first = Encoded(*(x[:1] for x in encoded)).trimmed()
    assert first.ids.tolist() == [encoded.ids[0, :4].tolist()] and first.labels.shape == (1, 4) and first.mask.all()
    assert torch.equal(encoded.trimmed().ids, encoded.ids)


def test_rows_join_sentences_and_lose_none(made):
    found = made["en-punctuation"]
    rows = found.rows(found.splits["dev"])
    assert len(rows) == -(-DEV // 3) and found.rows(found.splits["dev"][:2])[0].units[:1] == rows[0].units[:1]
    for part in ("units", "labels"):
        assert [x for r in rows for x in getattr(r, part)] == [
            x for e in found.splits["dev"] for x in getattr(e, part)]  # fmt: skip
    assert rows[0].source == " ".join(e.source for e in found.splits["dev"][:3])


def test_predictions_are_spread_over_units_that_have_labels():
    found = toy(("ab。", (1, 0, IGNORE)), ("c", (1,)))
    assert spread(found.splits["test"], [1, 1, 0]) == [(1, 1, IGNORE), (0,)]


# ---- Measures


@names
def test_right_labels_score_1_and_wrong_ones_0(made, name):
    found = made[name]
    assert evaluate(found, lambda rows: [row.labels for row in rows]) == 1.0
    wrong = {"word F1": lambda y: M, "mark F1": lambda y: 0, "accuracy": lambda y: (y + 1) % 8}[found.measure]
    score = evaluate(found, lambda rows: [tuple(map(wrong, row.labels)) for row in rows])
    assert score == 0 if found.measure != "word F1" else score < 0.05  # "我。" is a word, whatever its tag


def test_accuracy_by_hand():
    assert accuracy([(1,), (2,), (0,), (1,)], [(1,), (0,), (0,), (1,)]) == 0.75
    assert accuracy([(1, IGNORE, 2)], [(1, 7, 0)]) == 0.5


def test_mark_f1_by_hand():
    gold, predicted = [(0, 1, 0, 2), (0, 0, 3)], [(0, 1, 1, 0), (2, 0, 1)]
    assert mark_f1(gold, predicted) == pytest.approx(2 * 1 / (4 + 3))  # one right, four put, three there
    assert mark_f1([(0, 0)], [(0, 0)]) == 1.0 and mark_f1([(1,)], [(0,)]) == 0.0


def test_word_f1_by_hand():
    gold = [(B, E, S, IGNORE, B, M, E)]
    assert word_f1(gold, [(S, S, S, 0, B, M, E)]) == pytest.approx(2 * 2 / (4 + 3))
    assert word_f1(gold, [(B, M, E, 2, B, M, E)]) == pytest.approx(2 * 1 / (2 + 3))  # punctuation parts, whatever it is


@pytest.mark.parametrize("found, words", [
    ([B, E, S], {(0, 2), (2, 3)}), ([M, M, E, E], {(0, 3), (3, 4)}), ([B, B, M], {(0, 1), (1, 3)}),
    ([IGNORE, E, M, IGNORE, IGNORE, S], {(1, 2), (2, 3), (5, 6)}), ([S, M], {(0, 1), (1, 2)}), ([IGNORE], set()),
])  # fmt: skip
def test_spans_by_hand(found, words):
    assert spans(found) == words


@quick
@given(tags)
def test_spans_cut_all_that_is_no_punctuation_once(found):
    for row in found:
        covered = [i for start, end in sorted(spans(row)) for i in range(start, end)]
        assert covered == [i for i, tag in enumerate(row) if tag != IGNORE]
    assert word_f1(found, found) == 1.0


# ---- What is refused


def test_what_is_refused(made):
    with pytest.raises(ValueError, match=re.escape(f"name: expected one of {', '.join(TASKS)}, got 'ner'")):
        task("ner")
    found = made["zh-topic"]
    for n in (0, len(found.splits["train"]) + 1):
        with pytest.raises(ValueError, match=f"n: expected 1 to {len(found.splits['train'])} labelled .*, got {n}"):
            found.labelled(n, seed=0)
    with pytest.raises(ValueError, match="predicted: expected as many labels as the 2 rows have, 2 in all, got 1 in 1"):
        found.score(found.splits["test"][:2], [(1,)])


def test_what_encode_refuses(tokenizers):
    found = toy(("a", (0,)))
    with pytest.raises(ValueError, match="rows: expected at least one, got none"):
        encode(found, tokenizers["bpe"], [])
    with pytest.raises(ValueError, match=re.escape("tokenizer: expected [PAD] in it, found none")):
        encode(found, Tokenizer(models.BPE()), found.splits["test"])
    with pytest.raises(ValueError, match="tokenizer: expected a token for each unit, found none for one of"):
        encode(found, tokenizers["wordpiece"], [Example("0", "a", ("a", "\u200b"), (0, 0))])


def test_tags_are_what_the_tests_call_them():
    assert TAGS == ("B", "M", "E", "S")
