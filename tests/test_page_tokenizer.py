"""tokenizer.js, the tokenizers of the shipped models on the page: ids, places and texts are those of Python's."""

import json
import random
import re
from itertools import accumulate

import pytest
import unicode_classes
from tokenizers import Tokenizer, normalizers, processors

from llmbook import text, zoo
from llmbook.widgets.base import bundle
from llmbook.widgets.tokenizers import label, tokenizer_data

SOURCE = re.sub(r"^export ", "", bundle("tokenizer"), flags=re.M)
PREPARE = """(source, data) => {
  const make = new Function(`${source} return tokenizer;`)();
  window.models = Object.fromEntries(Object.entries(data).map(([name, parts]) => [name, make(parts)]));
}"""
ENCODE = """(name, texts) => texts.map((text) => {
  const tokens = models[name].encode(text);
  return ["id", "start", "end"].map((key) => tokens.map((token) => token[key]));
})"""


@pytest.fixture(scope="module")
def tokenizers():
    return {name: zoo.load(name)[1] for name in ("mlm-en", "gpt-en", "mlm-zh", "gpt-zh")}


@pytest.fixture
def js(visit, stage, tokenizers):
    """``js(function, *values)``: what a function gives, on a page that has the four ``models``."""
    with visit(stage()) as page:

        def call(function, *values):
            script = f"(values) => JSON.stringify(({function})(...JSON.parse(values)) ?? null)"
            return json.loads(page.evaluate(script, json.dumps(values)))

        call(PREPARE, SOURCE, {name: tokenizer_data(tokenizer) for name, tokenizer in tokenizers.items()})
        yield call


def encoded(tokenizer, texts):
    """For each text its ids, and where in it the tokens start and end, in UTF-16 units."""
    result = []
    for string, found in zip(texts, tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
        units = [0, *accumulate(2 if c > "\uffff" else 1 for c in string)]
        result.append([found.ids, [units[a] for a, _ in found.offsets], [units[b] for _, b in found.offsets]])
    return result


# --- the texts

PLANES = [(0, 0xD800), (0xE000, 0x10000), (0x10000, 0x20000), (0x20000, 0x40000), (0xE0000, 0x110000)]
PIECES = [
    *(list(map(chr, range(a, b))) for a, b in ((0x20, 0x7F), (0x61, 0x7B), (0, 0x21), (0x7F, 0xA1), (0x300, 0x370))),
    *(list(map(chr, range(a, b))) for a, b in ((0x4E00, 0x9FFF), (0x3000, 0x3040), (0x590, 0x700), (0xFF00, 0xFF60))),
    [*"的一是在不了有和人这中大为上个国我以要他。，？！"],
    [*"\t\n\v\f\r \x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2000\u2007\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000"],
    [*"  \n\u3000\ufeff"],
    ["'s", "'S", "'t", "'T", "'re", "'RE", "'ve", "'m", "'ll", "'LL", "'d", "'D", "’s", "'", "''", "it", "we", " "],
    ["👩\u200d👩\u200d👧", "🏳️\u200d🌈", "👍🏽", "🇩🇪", "😀", "\u200d", "\ufe0f", "e\u0301", "각", " "],
    [*"0123456789٠١٢٣०१२३๐๑៣０９Ⅷ²½①㊿𝟘𝟗𐒠 "],
    [*text.SPECIAL, " [MASK]", "\u3000\x85[MASK]", "[mask]", "[MASK", "[[", "]", " ", "\u2028", "\u200b", "[X]", "的"],
    ["the", " the", "ing", " and", "tion", "<0xE4>", "<0x", "Ġthe", "Ċ", "␣", "‹E4›", "\ufffd"],
]


def strings(n):
    """Texts of a few kinds of pieces each; the same every time."""
    draw = random.Random(0)
    anywhere = [[chr(draw.randrange(*plane)) for _ in range(2000)] for plane in PLANES]
    kinds = [*PIECES, *anywhere]
    for _ in range(n):
        some = draw.sample(kinds, draw.randint(1, 4))
        yield "".join(draw.choice(draw.choice(some)) for _ in range(draw.randint(0, 24)))


def long_words():
    """Words that take many merges, and much of the same."""
    draw = random.Random(0)
    for letters in ("a", "ab", "eeettaaoinshr", "abcdefghijklmnopqrstuvwxyz", "0", " ", " \n", "的是", "😀", "!"):
        yield "".join(draw.choice(letters) for _ in range(10_000))


# --- the same as in Python


def test_ids_and_places_of_random_texts_are_python_s(js, tokenizers):
    texts = [*strings(10_000), *long_words()]
    for name, tokenizer in tokenizers.items():
        found = js(ENCODE, name, texts)
        for string, here, there in zip(texts, found, encoded(tokenizer, texts), strict=True):
            assert here == there, (name, ascii(string[:200]))
            assert whole(here, len(string.encode("utf-16-le")) // 2), (name, ascii(string[:200]))


def whole(tokens, length):
    """Whether tokens follow one another without a gap, or share a character, from the start of a text to its end."""
    _, starts, ends = tokens
    shared = [start in (begun, end) for begun, start, end in zip([0, *starts], starts, [0, *ends], strict=False)]
    return all(shared) and [0, *ends][-1] == length


def test_whatever_was_learnt_is_joined_in_python_s_order(js):
    draw = random.Random(0)
    words = ["".join(draw.choices("ab", (4, 1), k=draw.randint(1, 40))) for _ in range(2000)]
    for size in (262, 264, 270, 300, 400):
        tokenizer = text.train_bpe(words[:200], size)
        js(PREPARE, SOURCE, {"trained": tokenizer_data(tokenizer)})
        assert js(ENCODE, "trained", words) == encoded(tokenizer, words)


def test_decoding_random_texts_and_random_ids_is_python_s(js, tokenizers):
    draw, texts = random.Random(0), list(strings(2000))
    for name, tokenizer in tokenizers.items():
        ids = [found.ids for found in tokenizer.encode_batch(texts, add_special_tokens=False)]
        for kinds in (range(261), range(tokenizer.get_vocab_size()), [*range(5, 261), 3, 300, 9_999]):
            ids += [[draw.choice(kinds) for _ in range(draw.randint(0, 12))] for _ in range(2000)]
        decoded = js("(name, all) => all.map((ids) => models[name].decode(ids))", name, ids)
        for some, here, there in zip(ids, decoded, tokenizer.decode_batch(ids, skip_special_tokens=False), strict=True):
            assert here == there, (name, some)


def test_whole_corpora_are_encoded_as_in_python_and_decoded_to_what_they_were(js, tokenizers):
    pairs = text.pairs()
    script = """(name, texts) => texts.map((text) => {
      const ids = models[name].encode(text).map((token) => token.id);
      return models[name].decode(ids) === text ? ids : "decoding gives another text";
    })"""
    for name, tokenizer in tokenizers.items():
        texts = sorted({getattr(pair, name[-2:]).text for pair in pairs})
        expected = tokenizer.encode_batch(texts, add_special_tokens=False)
        for string, found, there in zip(texts, js(script, name, texts), expected, strict=True):
            assert found == there.ids, (name, string)


def test_labels_are_python_s_and_the_special_tokens_and_the_size_are_known(js, tokenizers):
    for name, tokenizer in tokenizers.items():
        size = tokenizer.get_vocab_size()
        labels = js("(name, size) => Array.from({ length: size }, (_, id) => models[name].label(id))", name, size)
        assert labels == [label(tokenizer, i) for i in range(size)]
        assert js("(name) => models[name].size", name) == size
        assert js("(name) => models[name].special", name) == {token: i for i, token in enumerate(text.SPECIAL)}


# --- by cases


def test_labels(js):
    for name, string, shown in (
        ("mlm-en", "The cat\n“sat”", ["The", "␣cat", "⏎", "‹E2›‹80›", "‹9C›", "s", "at", "‹E2›‹80›", "‹9D›"]),
        ("mlm-en", "é\x01 \t", ["‹C3›", "‹A9›", "‹01›", "␣", "‹09›"]),
        ("mlm-en", "a [MASK][SEP]", ["a", "[MASK]", "[SEP]"]),
        ("mlm-zh", "我 A=\n龘[MASK]", ["我", "␣", "A", "=", "⏎", "‹E9›", "‹BE›", "‹98›", "[MASK]"]),
        ("gpt-zh", "春\n😀", ["春", "⏎", "‹F0›", "‹9F›", "‹98›", "‹80›"]),
    ):
        labels = "(name, text) => models[name].encode(text).map(({ id }) => models[name].label(id))"
        assert js(labels, name, string) == shown


def test_each_token_knows_which_characters_it_covers(js):
    for name, string, places in (
        ("mlm-en", "I'd go", ["I", "'d", " go"]),
        ("mlm-en", "é😀", ["é", "é", "😀", "😀", "😀", "😀"]),
        ("mlm-en", "“”", ["“", "“", "”", "”"]),
        ("mlm-en", "a \x85[MASK] b", ["a", " \x85[MASK]", " b"]),
        ("mlm-en", "a\u200b[MASK]", ["a", "\u200b", "\u200b", "[MASK]"]),
        ("mlm-en", " [SEP] [MASK]", [" ", "[SEP]", " [MASK]"]),
        ("mlm-zh", "我龘 [MASK]。", ["我", "龘", "龘", "龘", " [MASK]", "。"]),
    ):
        cover = "(name, text) => models[name].encode(text).map(({ start, end }) => text.slice(start, end))"
        assert js(cover, name, string) == places


def test_half_a_surrogate_pair_is_read_as_a_replacement_character(js, tokenizers):
    halves = ("\ud800", "a\udc00b", "的\ud83d", "\udc00\ud800 ", "\ud83d\ud83d\ude00\ude00", " \udfff[MASK]\ud800")
    replaced = [string.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for string in halves]
    for name, tokenizer in tokenizers.items():
        assert js(ENCODE, name, halves) == encoded(tokenizer, replaced)


def test_no_text_has_no_tokens(js, tokenizers):
    for name in tokenizers:
        assert js("(name) => [models[name].encode(''), models[name].decode([])]", name) == [[], ""]


# --- what it is made from


def test_the_page_has_the_tokenizer_s_letters_numbers_and_white_space(js, monkeypatch):
    classes = unicode_classes.classes()
    monkeypatch.setattr(unicode_classes, "classes", lambda: classes)
    assert unicode_classes.FILE.read_text("utf8") == unicode_classes.source()
    script = """(source) => {
      const kinds = new Function(`${source} return [LETTER, NUMBER, SPACE];`)();
      const patterns = kinds.map((kind) => new RegExp(`[${kind}]`, "u"));
      const kind = (point) => patterns.findIndex((pattern) => pattern.test(String.fromCodePoint(point))) + 1;
      return Array.from({ length: 0x110000 }, (_, point) => kind(point)).join("");
    }"""
    expected = ["0"] * 0x110000
    for number, name in enumerate(unicode_classes.KINDS, start=1):
        for point in classes[name]:
            expected[point] = str(number)
    assert js(script, SOURCE) == "".join(expected)
    monkeypatch.setattr(unicode_classes, "stripped", lambda: set(map(ord, "\t\n\v\f\r ")))
    with pytest.raises(ValueError, match=r"expected a token to take along what is white space, not so: \{.*\b133\b"):
        unicode_classes.source()


def test_data_has_a_length_for_each_merge():
    made = text.train_bpe(["ab ab abab"], 264)
    data = tokenizer_data(made)
    assert data["vocab"][:5] == list(text.SPECIAL) and data["vocab"][261:] == ["ab", "Ġab", "Ġabab"]
    assert data == {"vocab": data["vocab"], "merges": [1, 1, 3], "characters": False}
    made = tokenizer_data(text.train_characters(["ab"], 263))
    assert (made["vocab"][260:], made["merges"], made["characters"]) == (["<0xFF>", "a", "b"], [], True)


@pytest.mark.parametrize(
    ("change", "other"),
    [
        (lambda t: setattr(t, "normalizer", normalizers.Lowercase()), "normalizer"),
        (lambda t: t.add_tokens(["<br>"]), "added_tokens"),
        (lambda t: t.enable_truncation(3), "truncation"),
        (lambda t: setattr(t, "post_processor", processors.ByteLevel()), "post_processor"),
    ],
)
def test_tokenizers_of_another_kind_are_refused(change, other):
    for made in (text.train_bpe(["ab"], 262), text.train_characters(["ab"], 263)):
        change(made)
        with pytest.raises(ValueError, match=f"expected one by train_bpe or train_characters, got another {other}"):
            tokenizer_data(made)


def test_so_is_one_that_a_merge_gives_no_token_of_its_own():
    settings = json.loads(text.train_bpe(["aaa aaa"], 263).to_str())
    settings["model"]["merges"].reverse()
    with pytest.raises(ValueError, match="tokenizer: expected a token for each merge, in their order, got others"):
        tokenizer_data(Tokenizer.from_str(json.dumps(settings)))
    with pytest.raises(ValueError, match="got another normalizer"):
        tokenizer_data(text.train_wordpiece(["ab"], 300))
