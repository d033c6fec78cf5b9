"""Text: clean and simplified, splits that do not leak, tokenizers that give back what they got, full rows."""

import functools
import hashlib
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmbook import text
from llmbook.text import SPECIAL, Graded, Packed, Pair, Poem, Text

PAD, CLS, SEP, MASK, UNK = range(5)

quick = settings(deadline=None, derandomize=True, max_examples=60)
unicode = st.text(st.characters(exclude_categories=["Cs"]))
surrogates = pytest.mark.parametrize("bad", ["\ud800", "a\udfffb", "\ude00\ud83d"])


@pytest.fixture(scope="module", autouse=True)
def corpora():
    """Each source is read, and its Chinese converted, once."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("pairs", "graded", "verses", "poems"):
            patch.setattr(text, name, functools.cache(getattr(text, name)))
        yield


@pytest.fixture(scope="module")
def texts():
    return {language: text.texts(language) for language in ("en", "zh")}


def key(s):
    """What is left of a text without case, blanks and punctuation; of a text of these alone, all."""
    return "".join(c for c in s.casefold() if c.isalnum()) or s


# ---- Cleaning


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("ＡＢｚ０９", "ABz09"),
        ("１＋１＝２，好吗？（好！）", "1＋1＝2，好吗？（好！）"),
        ("it`s", "it's"),
        ("e\u0301", "é"),
        ("ｅ\u0301", "é"),
        ("\u1fef", "'"),  # its canonical form is the backtick
        ("a\x00b\x7fc\x85d", "a b c d"),
        (" \ta\r\n\u3000\xa0b\u2028 ", "a b"),
        ("\ufeffa", "a"),
        ("", ""),
        ("𝒳 👩 ﬁ 臺", "𝒳 👩 ﬁ 臺"),
    ],
)
def test_clean_text_by_example(dirty, expected):
    assert text.clean(dirty) == expected


@quick
@given(unicode)
@example("ｅ\u0301`\u0300\u1fef\u200b\x00")
def test_clean_text_is_one_line_composed_printable_and_stays_as_it_is(s):
    found = text.clean(s)
    assert text.clean(found) == found == unicodedata.normalize("NFC", found)
    assert not {unicodedata.category(c) for c in found} & {"Cc", "Cf"}
    assert "`" not in found and found == " ".join(found.split())


@surrogates
def test_lone_surrogate_is_refused(bad):
    at, code = next((i, ord(c)) for i, c in enumerate(bad) if unicodedata.category(c) == "Cs")
    message = re.escape(f"text: expected Unicode text, got the lone surrogate U+{code:04X} at {at}")
    with pytest.raises(ValueError, match=message):
        text.clean(bad)
    with pytest.raises(ValueError, match=message):
        text.encode(text.train_characters([], 261), bad)
    for train in (text.train_bpe, text.train_wordpiece, text.train_characters):
        with pytest.raises(ValueError, match=message.replace("text", "texts", 1)):
            train(["good", bad], 300)


def test_traditional_characters_become_simplified():
    assert text.simplified("我們試試看！頭髮發財，AB12") == "我们试试看！头发发财，AB12"


def test_what_is_simplified_stays():
    for row in text.graded():
        assert text.simplified(row.zh) == row.zh
    for pair in text.pairs()[::20]:
        assert text.simplified(pair.zh.text) == pair.zh.text


# ---- Corpora


def test_corpora_have_their_records_and_types():
    for found, kind, count in [
        (text.pairs(), Pair, 56_578),
        (text.graded(), Graded, 4_354),
        (text.verses(), Text, 31_102),
        (text.poems(), Poem, 7_418),
        (text.chapters(), Text, 1_189),
        (text.verse(), Text, 7_418),
    ]:
        assert len(found) == count and {type(record) for record in found} == {kind}
        assert all(record.group for record in found)


def test_every_text_is_clean_and_not_empty():
    found = [side.text for pair in text.pairs() for side in (pair.zh, pair.en)] + [v.text for v in text.verses()]
    found += [s for row in text.graded() for s in (row.zh, *row.words)]
    found += [s for poem in text.poems() for s in (poem.title, poem.author, *poem.lines)]
    assert all(found)
    assert all(text.clean(s) == s for s in found[::10])


def test_pairs_of_different_groups_share_no_sentence_and_no_text():
    groups = defaultdict(set)
    for pair in text.pairs():
        assert pair.group == pair.zh.group == pair.en.group
        for side in pair[:2]:
            groups["id", side.id].add(pair.group)
            groups["text", key(side.text)].add(pair.group)
    assert {len(found) for found in groups.values()} == {1}


def test_pairs_of_a_group_are_connected():
    """No group is larger than it must be: from its first pair shared texts lead to all others."""
    groups = defaultdict(list)
    for pair in text.pairs():
        groups[pair.group].append({pair.zh.id, pair.en.id, key(pair.zh.text), key(pair.en.text)})
    for group in groups.values():
        (reached, *rest), before = group, -1
        while len(rest) != before:
            before, left = len(rest), []
            for names in rest:
                if names & reached:
                    reached |= names
                else:
                    left.append(names)
            rest = left
        assert rest == []


@pytest.mark.parametrize("corpus", ["graded", "poems"])
def test_equal_texts_are_of_one_group(corpus):
    groups = defaultdict(set)
    for record in getattr(text, corpus)():
        groups[key(record.zh if corpus == "graded" else "".join(record.lines))].add(record.group)
    assert {len(found) for found in groups.values()} == {1}


def test_a_verse_belongs_to_its_chapter_and_a_chapter_is_its_verses():
    verses = defaultdict(list)
    for v in text.verses():
        verses[v.group].append(v.text)
    chapters = {c.id: c for c in text.chapters()}
    assert {group: " ".join(found) for group, found in verses.items()} == {k: c.text for k, c in chapters.items()}
    assert all(c.group == c.id for c in chapters.values())
    assert chapters["bible 43011"].genre == "gospels" and "Jesus wept." in chapters["bible 43011"].text


def test_a_poem_as_text_is_its_title_and_its_lines():
    for poem, as_text in zip(text.poems(), text.verse(), strict=True):
        assert as_text == Text(poem.id, "\n".join([poem.title, *poem.lines]), poem.group)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_texts_are_unique_and_none_is_kept_for_fine_tuning(texts, language):
    found = texts[language]
    assert len({t.text for t in found}) == len({t.id for t in found}) == len(found)
    kept = {key(getattr(row, language)) for row in text.graded()}
    assert not any(key(t.text) in kept for t in found)
    genres = {t.genre for t in found if t.id.startswith("bible")}
    assert len(genres) == (7 if language == "en" else 0)


def test_texts_lack_nothing_but_repetitions_and_what_is_kept(texts):
    kept = {key(row.zh) for row in text.graded()}
    assert {t.text for t in texts["zh"]} == {p.zh.text for p in text.pairs() if key(p.zh.text) not in kept}


@pytest.mark.parametrize("language", ["fr", "EN", None])
def test_other_languages_are_refused(language):
    with pytest.raises(ValueError, match=re.escape(f"language: expected 'en' or 'zh', got {language!r}")):
        text.texts(language)


# ---- Splits


def records(groups):
    return [Text(str(i), f"text {i}", f"group {g}") for i, g in enumerate(groups)]


@quick
@given(st.lists(st.integers(0, 20)), st.sampled_from([0, 0.1, 0.4]), st.sampled_from([0, 0.1, 0.5]), st.data())
def test_a_group_is_in_one_part_and_stays_there_when_others_leave(groups, dev, test, data):
    found = records(groups)
    parts = text.split(found, dev=dev, test=test)
    assert list(parts) == ["train", "dev", "test"]
    assert sorted([r for part in parts.values() for r in part], key=found.index) == found
    place = {r.group: name for name, part in parts.items() for r in part}
    assert all(place[r.group] == name for name, part in parts.items() for r in part)
    for part in parts.values():
        assert part == sorted(part, key=found.index)
    fewer = [r for r in found if data.draw(st.booleans())]
    assert all(place[r.group] == name for name, part in text.split(fewer, dev=dev, test=test).items() for r in part)


def test_shares_are_as_asked():
    found = records(range(20_000))
    for dev, test in [(0.04, 0.04), (0.2, 0.1), (0, 0.5), (0, 0)]:
        parts = text.split(found, dev=dev, test=test)
        for part, p in [(parts["dev"], dev), (parts["test"], test)]:
            assert abs(len(part) / len(found) - p) <= 4.5 * (p * (1 - p) / len(found)) ** 0.5


def test_a_larger_test_part_holds_the_smaller_one():
    found = records(range(500))
    small, large = (set(text.split(found, test=share)["test"]) for share in (0.1, 0.2))
    assert small < large


@pytest.mark.parametrize(("dev", "test"), [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5), (1, 0), (float("nan"), 0)])
def test_shares_that_leave_nothing_for_training_are_refused(dev, test):
    message = f"dev, test: expected shares of 0 or more with a sum below 1, got {dev} and {test}"
    with pytest.raises(ValueError, match=re.escape(message)):
        text.split([], dev=dev, test=test)


def test_parts_of_the_corpora_share_no_group(texts):
    for corpus in (text.pairs(), texts["en"], texts["zh"], text.graded(), text.chapters(), text.poems()):
        groups = [{record.group for record in part} for part in text.split(corpus).values()]
        assert not any(a & b for i, a in enumerate(groups) for b in groups[:i])
        assert len(groups[0]) > 20 * min(len(groups[1]), len(groups[2])) > 0


def test_an_equal_text_in_another_group_is_left_out_of_the_later_part(texts):
    assert Counter(map(len, text.split([Text(str(i), f"Yes, {'!' * i}", f"{i}") for i in range(99)]).values()))[0] == 2
    parts = {name: {key(t.text) for t in part} for name, part in text.split(texts["en"]).items()}
    assert not (parts["train"] & parts["dev"] or parts["test"] & (parts["train"] | parts["dev"]))
    assert sum(map(len, text.split(texts["en"]).values())) < len(texts["en"])


# ---- Near duplicates


def shingles(s, n):
    s = key(s)
    return {s[i : i + n] for i in range(len(s) - n + 1)} or {s}


@settings(quick, max_examples=300)
@given(
    st.lists(st.text("abC ,", max_size=9), max_size=8),
    st.lists(st.text("abC ,", max_size=9), max_size=8),
    st.integers(1, 4),
    st.sampled_from([0.01, 0.3, 0.5, 0.7, 0.9, 1.0]),
)
@example(["abcdefghij"], ["abcdefghij", "abcdefghijk"], 3, 0.7)
@example(["", "?!", "? !"], ["", "?!"], 3, 1.0)
def test_near_duplicates_are_those_of_all_comparisons(some, seen, n, threshold):
    found = text.near_duplicates(some, seen, n=n, threshold=threshold)
    for s, i in zip(some, found, strict=True):
        a = shingles(s, n)
        near = [j for j, t in enumerate(seen) if len(a & shingles(t, n)) / len(a | shingles(t, n)) >= threshold]
        assert i == (near[0] if near else -1)


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_threshold_outside_its_range_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold: expected a number above 0 and at most 1, got "):
        text.near_duplicates([], [], threshold=threshold)


# ---- Tokenizers

LEARNT = ["The cat sat on the mat.", "A dog, a log: unbelievable!", "你好，世界。", "مرحبا", "nothing [MASK] new"] * 9
HARD = ["👩‍👩‍👧‍👦🏳️‍🌈", "مرحبا بالعالم", "שָׁלוֹם", "e\u0301\u0328x\u0308", "a\x00b", "  two  blanks ", "\t\r\n", "<0x41>",
        "\ufffd\uffff\U0010ffff", "Ġ", "İﬁ", "[mask] [MASK [PAD", "\u2028\x85"]  # fmt: skip
TRAINERS = {"bpe": text.train_bpe, "characters": text.train_characters, "wordpiece": text.train_wordpiece}

trainers = pytest.mark.parametrize("kind", TRAINERS)
lossless = pytest.mark.parametrize("kind", ["bpe", "characters"])


@pytest.fixture(scope="module")
def tokenizers():
    return {kind: train(LEARNT, 300) for kind, train in TRAINERS.items()}


@lossless
def test_decoding_undoes_encoding(tokenizers, kind):
    tokenizer = tokenizers[kind]

    @settings(quick, max_examples=300)
    @given(unicode.filter(lambda s: not any(name in s for name in SPECIAL)))
    def check(s):
        ids = text.encode(tokenizer, s)
        assert tokenizer.decode(ids) == s
        assert min(ids, default=UNK + 1) > UNK and max(ids, default=0) < tokenizer.get_vocab_size()

    check()
    for s in HARD:
        assert tokenizer.decode(text.encode(tokenizer, s)) == s


@lossless
def test_the_name_of_a_special_token_in_a_text_is_that_token(tokenizers, kind):
    """It is then no text any more: decoding leaves it out, and gives no blank back that stood before [MASK]."""
    tokenizer = tokenizers[kind]
    for i, name in enumerate(SPECIAL):
        assert text.encode(tokenizer, name) == [i]
    a, z = (text.encode(tokenizer, s) for s in ("a", " z"))
    ids = text.encode(tokenizer, "a \n [MASK] z")
    assert ids == [*a, MASK, *z]
    assert tokenizer.decode(ids) == "a z"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "a[MASK] z"
    kept = "a [CLS] z[SEP] "
    assert tokenizer.decode(text.encode(tokenizer, kept), skip_special_tokens=False) == kept


@trainers
def test_special_tokens_come_first_whatever_the_texts_say(tokenizers, kind):
    assert [tokenizers[kind].id_to_token(i) for i in range(5)] == list(SPECIAL)
    assert sorted(tokenizers[kind].get_vocab().values()) == list(range(tokenizers[kind].get_vocab_size()))


@trainers
def test_no_special_token_is_added(tokenizers, kind):
    assert text.encode(tokenizers[kind], "") == []
    assert not set(range(5)) & set(text.encode(tokenizers[kind], "the cat"))


DIGEST = """
import hashlib
from llmbook import text
from test_text import LEARNT, TRAINERS
print(*(hashlib.sha256(train(LEARNT, 280).to_str().encode()).hexdigest() for train in TRAINERS.values()))
"""


def test_the_same_texts_give_the_same_tokenizer_in_every_process():
    expected = [hashlib.sha256(train(iter(LEARNT), 280).to_str().encode()).hexdigest() for train in TRAINERS.values()]
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.path.dirname(__file__)}
        done = subprocess.run([sys.executable, "-c", DIGEST], env=environment, capture_output=True, check=True)
        assert done.stdout.decode().split() == expected


@trainers
def test_tokenizer_comes_back_from_its_file(tokenizers, kind, tmp_path):
    tokenizers[kind].save(str(tmp_path / "tokenizer.json"))
    again = type(tokenizers[kind]).from_file(str(tmp_path / "tokenizer.json"))
    for s in [*LEARNT, *HARD, "a [MASK] z"]:
        assert text.encode(again, s) == text.encode(tokenizers[kind], s)


@pytest.mark.parametrize(("kind", "least"), [("bpe", 261), ("characters", 261), ("wordpiece", 58)])
def test_vocabulary_has_room_for_what_must_be_in_it(kind, least):
    TRAINERS[kind](LEARNT, least)
    with pytest.raises(ValueError, match=f"vocab_size: expected at least {least}, got {least - 1}"):
        TRAINERS[kind](LEARNT, least - 1)


@trainers
def test_vocabulary_is_no_larger_than_asked(kind):
    assert TRAINERS[kind](LEARNT, 270).get_vocab_size() <= 270
    assert TRAINERS[kind](LEARNT, 5000).get_vocab_size() < 400


def test_byte_pairs_merge_what_is_frequent(tokenizers):
    assert tokenizers["bpe"].encode("cat").tokens == ["cat"]
    assert tokenizers["bpe"].encode("tac").tokens == ["t", "a", "c"]


def test_frequent_characters_are_tokens_and_others_are_bytes():
    tokenizer = text.train_characters(["好好好你你他", "你好"], 263)
    assert tokenizer.encode("好你").tokens == ["好", "你"]
    assert tokenizer.encode("他").tokens == ["<0xE4>", "<0xBB>", "<0x96>"]
    assert text.train_characters(["ba", "ab"], 262).token_to_id("a") == 261  # of equals the first


def test_word_pieces_begin_with_two_crosses_inside_a_word(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    assert tokenizer.encode("The cat!").tokens == ["the", "cat", "!"]
    pieces = tokenizer.encode("Believable").tokens
    assert len(pieces) > 1 and all(p.startswith("##") for p in pieces[1:])
    assert "".join(p.removeprefix("##") for p in pieces) == "believable"
    assert tokenizer.encode("the 龘 qqq").tokens == ["the", "[UNK]", "[UNK]"]
    assert tokenizer.encode("the [MASK] sat").ids[1] == MASK
    assert tokenizer.decode(tokenizer.encode("The Cat sat").ids) == "the cat sat"


# ---- Rows

sequences = st.lists(st.lists(st.integers(5, 30), max_size=25), max_size=12)


@quick
@given(sequences, st.integers(3, 15))
@example([], 3)
@example([[], [7]], 3)
def test_every_token_is_in_the_rows_once_and_in_order(found, length):
    packed = text.pack(found, length)
    assert packed.ids.shape == packed.segments.shape == (len(packed.ids), length)
    assert packed.ids.dtype == packed.segments.dtype == torch.int64
    pieces = []
    for ids, segments in zip(packed.ids.tolist(), packed.segments.tolist(), strict=True):
        real = [s for s in segments if s >= 0]
        assert real == sorted(real) and set(real) == set(range(max(real) + 1))  # numbered from 0, none in two places
        assert segments == real + [-1] * (length - len(real)) and ids[len(real) :] == [PAD] * (length - len(real))
        for k in range(max(real) + 1):
            cls, *piece, sep = (i for i, s in zip(ids, segments, strict=True) if s == k)
            assert (cls, sep) == (CLS, SEP) and piece
            pieces.append(tuple(piece))
    inner = length - 2
    expected = [tuple(ids[i : i + inner]) for ids in found for i in range(0, len(ids), inner)]
    assert Counter(pieces) == Counter(expected)


@quick
@given(sequences, st.integers(3, 15))
def test_no_two_rows_could_have_been_one(found, length):
    """Where there is room for a text, it does not begin a row."""
    used = (text.pack(found, length).segments >= 0).sum(1).tolist()
    assert sum(n <= length // 2 for n in used) <= 1


def test_packing_of_a_few_texts_by_hand():
    packed = text.pack([[10, 11], [12, 13, 14, 15, 16, 17], [18], []], 7)
    assert packed.ids.tolist() == [[1, 12, 13, 14, 15, 16, 2], [1, 10, 11, 2, 1, 17, 2], [1, 18, 2, 0, 0, 0, 0]]
    assert packed.segments.tolist() == [[0] * 7, [0] * 4 + [1] * 3, [0] * 3 + [-1] * 4]


def test_special_tokens_of_another_tokenizer_can_be_given():
    special = {"[PAD]": 9, "[CLS]": 101, "[SEP]": 102}
    assert text.pack([[7]], 4, special=special).ids.tolist() == [[101, 7, 102, 9]]
    assert text.stream([[7]], 3, special=special).tolist() == [[101, 7, 102]]


def test_tokens_read_those_of_their_own_text_alone():
    segments = torch.tensor([[0, 0, 1, -1], [0, 1, 1, 1]])
    mask = Packed.mask(segments)
    assert mask.shape == (2, 1, 4, 4) and mask.dtype == torch.bool and mask.is_contiguous()
    for b in range(2):
        for i in range(4):
            assert mask[b, 0, i].tolist() == [bool(segments[b, i] == segments[b, j]) for j in range(4)]


@pytest.mark.parametrize("length", [2, 1, 0, -3])
def test_rows_without_room_for_a_token_are_refused(length):
    with pytest.raises(ValueError, match=f"length: expected at least 3, got {length}"):
        text.pack([[7]], length)


@quick
@given(sequences, st.integers(1, 15))
def test_rows_of_a_stream_are_its_beginning(found, length):
    whole = [i for ids in found for i in (CLS, *ids, SEP)]
    rows = text.stream(found, length)
    assert rows.dtype == torch.int64 and rows.shape == (len(whole) // length, length)
    assert rows.flatten().tolist() == whole[: rows.numel()]


def test_stream_in_rows_of_nothing_is_refused():
    with pytest.raises(ValueError, match="length: expected at least 1, got 0"):
        text.stream([[7]], 0)


@pytest.mark.parametrize("page", ["book/corpora.md", "zh/book/corpora.md"])
def test_the_page_of_corpora_says_how_large_they_are(page, texts):
    pairs, graded = text.pairs(), text.graded()
    chinese, english = ({getattr(p, x).id: getattr(p, x).text for p in pairs} for x in ("zh", "en"))
    sizes = [
        len(pairs), sum(map(len, chinese.values())), sum(len(t.split()) for t in english.values()),
        len(graded), sum(len(g.zh) for g in graded), sum(len(g.en.split()) for g in graded),
        len(text.verses()), sum(len(v.text.split()) for v in text.verses()),
        len(text.poems()), sum(len(line) for p in text.poems() for line in p.lines),
    ]  # fmt: skip
    said = (Path(__file__).parents[1] / page).read_text("utf8")
    assert [size for size in sizes if f"{size:,}" not in said] == []
