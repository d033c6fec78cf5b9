"""Text to learn from: corpora as typed records, splits that do not leak, tokenizers, and rows of token ids.

    texts("en")  →  split(…)  →  train_bpe(…)  →  pack(…)  →  rows for llmbook.mlm.mask_tokens

Each corpus is a list of records that say where they come from. What belongs together (a sentence and all of its
translations, a chapter, a poem) has the same ``group``, and a group is never cut by a split.
"""

from __future__ import annotations

import functools
import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from llmbook import sources
from llmbook.sources import SOURCES, Source

__all__ = ["SOURCES", "SPECIAL", "Graded", "Packed", "Pair", "Poem", "Source", "Text", "chapters", "clean", "encode",
           "graded", "near_duplicates", "pack", "pairs", "poems", "simplified", "split", "stream", "texts", "train_bpe",
           "train_characters", "train_wordpiece", "verse", "verses"]  # fmt: skip

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]")
"""The tokens that every tokenizer of the book begins with: ids 0 to 4."""

PAD, CLS, SEP, MASK, UNK = range(len(SPECIAL))


class Text(NamedTuple):
    """A piece of text. ``id`` is its number at its source, ``group`` what it must not be parted from."""

    id: str
    text: str
    group: str
    genre: str = ""


class Pair(NamedTuple):
    """A sentence and a translation of it (Tatoeba)."""

    zh: Text
    en: Text
    group: str


class Graded(NamedTuple):
    """A Chinese sentence cut into words, its translation (some have none, ``""``), what it is about, level 1 to 6."""

    id: str
    zh: str
    en: str
    words: tuple[str, ...]
    topic: str
    level: int
    group: str


class Poem(NamedTuple):
    """A poem: lines of seven characters and a punctuation mark."""

    id: str
    title: str
    author: str
    lines: tuple[str, ...]
    group: str


_FULL_WIDTH = {0xFF01 + i: 0x21 + i for i in range(94) if chr(0x21 + i).isalnum()}


def clean(text: str) -> str:
    """One line of text as the corpora have it.

    Unicode in composed form (NFC), runs of white space as one blank, no control characters, full-width letters and
    digits as ordinary ones (Ａ９ → A9; Chinese punctuation stays full-width), a backtick as an apostrophe.

    Raises:
        ValueError: the text holds a lone surrogate, half of a character that is not there.
    """
    _check_unicode("text", text)
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).translate(_FULL_WIDTH).replace("`", "'"))
    return " ".join("".join(c if unicodedata.category(c) not in ("Cc", "Cf") else " " for c in text).split())


def _checked(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        _check_unicode("texts", text)
        yield text


def _check_unicode(name: str, text: str) -> None:
    for i, c in enumerate(text):
        if "\ud800" <= c <= "\udfff":
            raise ValueError(f"{name}: expected Unicode text, got the lone surrogate U+{ord(c):04X} at {i}")


@functools.cache
def _converter() -> Callable[[str], str]:
    from opencc import OpenCC  # half a second, only for Chinese

    convert: Callable[[str], str] = OpenCC("t2s").convert
    return convert


def simplified(text: str) -> str:
    """Traditional characters as simplified ones, by the tables of OpenCC; what is simplified already stays.

    The way back is not unique (发 is 發 or 髮), so the Chinese models of the book know simplified characters alone.
    """
    return _converter()(text)


def pairs() -> list[Pair]:
    """Tatoeba's Chinese–English pairs; a group is all that translations, and equal texts, connect.

    Raises:
        FetchError: the text cannot be had.
    """
    found = [(r["zh_id"], clean(simplified(r["zh"])), r["en_id"], clean(r["en"])) for r in sources.rows("tatoeba")]
    links = [(f"zh {zh_id}", f"en {en_id}") for zh_id, _, en_id, _ in found]
    links += [(f"zh {zh_id}", f"= {_key(zh)}") for zh_id, zh, _, _ in found]
    links += [(f"en {en_id}", f"= {_key(en)}") for _, _, en_id, en in found]
    component = _components(links)
    result = []
    for zh_id, zh, en_id, en in found:
        group = component[f"zh {zh_id}"]
        result.append(Pair(Text(f"tatoeba {zh_id}", zh, group), Text(f"tatoeba {en_id}", en, group), group))
    return result


def graded() -> list[Graded]:
    """Sentences for learners of Chinese, each with its words, topic and level; a group is a sentence and its equals.

    Raises:
        FetchError: the text cannot be had.
    """
    result = []
    for r in sources.rows("graded"):
        zh, en = clean(r["zh"]), "" if r["en"].startswith("placeholder") else clean(r["en"])
        words = tuple(map(clean, r["words"]))
        result.append(Graded(r["id"], zh, en, words, r["topic"], r["level"], f"graded {_key(zh)}"))
    return result


def verses() -> list[Text]:
    """The World English Bible, a record a verse, in order; a group is a chapter.

    Raises:
        FetchError: the text cannot be had.
    """
    found = sources.rows("bible")
    return [Text(f"bible {r['id']}", clean(r["en"]), f"bible {r['chapter']}", r["genre"]) for r in found]


def poems() -> list[Poem]:
    """Tang poems in simplified characters; a group is a poem and its equals.

    The source was converted from simplified characters by machine, with faults (雲 for 云); the way back mends them.

    Raises:
        FetchError: the text cannot be had.
    """
    result = []
    for r in sources.rows("tang"):
        lines = tuple(clean(simplified(line)) for line in r["lines"])
        title, author = clean(simplified(r["title"])), clean(simplified(r["author"]))
        result.append(Poem(f"tang {r['id']}", title, author, lines, f"tang {_key(''.join(lines))}"))
    return result


def texts(language: str) -> list[Text]:
    """All that a masked language model of the book is trained and tested on, each text once.

    English: Tatoeba and the Bible; Chinese: Tatoeba. Sentences that :func:`graded` has, too, are left out: they are
    kept for fine-tuning.

    Args:
        language: ``"en"`` or ``"zh"``.

    Raises:
        ValueError: another language.
        FetchError: a text cannot be had.
    """
    if language not in ("en", "zh"):
        raise ValueError(f"language: expected 'en' or 'zh', got {language!r}")
    kept = {_key(getattr(record, language)) for record in graded()}
    found = [getattr(pair, language) for pair in pairs()] + (verses() if language == "en" else [])
    unique = {record.text: record for record in reversed(found) if _key(record.text) not in kept}
    return list(reversed(unique.values()))


def chapters() -> list[Text]:
    """The World English Bible, a record a chapter, its verses joined by blanks: prose for a causal language model.

    Raises:
        FetchError: the text cannot be had.
    """
    whole: dict[str, list[Text]] = {}
    for verse in verses():
        whole.setdefault(verse.group, []).append(verse)
    return [Text(group, " ".join(v.text for v in found), group, found[0].genre) for group, found in whole.items()]


def verse() -> list[Text]:
    """Tang poems as text: the title, and a line of text for each couplet's half.

    Raises:
        FetchError: the text cannot be had.
    """
    return [Text(poem.id, "\n".join([poem.title, *poem.lines]), poem.group) for poem in poems()]


def _key(text: str) -> str:
    """What two texts share if they differ in case, blanks and punctuation alone."""
    return "".join(c for c in text.casefold() if c.isalnum()) or text


def _components(links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """For each name the smallest name that links connect it to."""
    parent: dict[str, str] = {}

    def root(x: str) -> str:
        while parent.setdefault(x, x) != x:
            parent[x] = x = parent[parent[x]]
        return x

    for a, b in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return {name: root(name) for name in parent}


Record = TypeVar("Record", Text, Pair, Graded, Poem)


def split(records: Sequence[Record], *, dev: float = 0.04, test: float = 0.04) -> dict[str, list[Record]]:
    """Training, development and test records; a group is in one of them, always the same.

    A group's place is a hash of its name: no other record moves it. A text that equals one of an earlier part, but for
    case, blanks and punctuation, is left out, though no group connects the two.

    Args:
        records: with a ``group``.
        dev, test: the shares of groups, in expectation.

    Returns:
        ``{"train": …, "dev": …, "test": …}``, each in the order of ``records``.

    Raises:
        ValueError: the shares are negative or leave nothing for training.
    """
    if not (dev >= 0 and test >= 0 and dev + test < 1):
        raise ValueError(f"dev, test: expected shares of 0 or more with a sum below 1, got {dev} and {test}")
    parts: dict[str, list[Record]] = {"train": [], "dev": [], "test": []}
    for record in records:
        place = int.from_bytes(hashlib.sha256(record.group.encode()).digest()[:8], "big") / 2**64
        parts["test" if place < test else "dev" if place < test + dev else "train"].append(record)
    seen: set[str] = set()
    for part, found in parts.items():
        keys = [_key(record.text) if isinstance(record, Text) else record.group for record in found]
        parts[part] = [record for record, key in zip(found, keys, strict=True) if key not in seen]
        seen.update(keys)
    return parts


def near_duplicates(texts: Sequence[str], seen: Sequence[str], *, n: int = 3, threshold: float = 0.7) -> list[int]:
    """For each text the index of one in ``seen`` that it nearly repeats, or -1.

    Two texts are near if their sets of character ``n``-grams (of letters and digits alone) have a Jaccard index
    ``|A ∩ B| / |A ∪ B|`` of ``threshold`` or more (Broder, 1997).

    Raises:
        ValueError: ``threshold`` is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: expected a number above 0 and at most 1, got {threshold}")
    sets = [_shingles(text, n) for text in seen]
    where: dict[str, list[int]] = defaultdict(list)
    for i, grams in enumerate(sets):
        for gram in grams:
            where[gram].append(i)
    result = []
    for text in texts:
        grams = _shingles(text, n)
        rare = sorted(grams, key=lambda g: len(where.get(g, ())))
        prefix = rare[: len(grams) - int(-(-threshold * len(grams) // 1)) + 1]  # any near text shares one of these
        candidates = sorted({i for gram in prefix for i in where.get(gram, ())})
        near = (i for i in candidates if len(grams & sets[i]) >= threshold * len(grams | sets[i]))
        result.append(next(near, -1))
    return result


def _shingles(text: str, n: int) -> frozenset[str]:
    key = _key(text)
    return frozenset(key[i : i + n] for i in range(max(len(key) - n + 1, 1)))


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-pair encoding on bytes (Sennrich et al., 2016; Radford et al., 2019, section 2.2): decoding undoes encoding.

    Args:
        texts: what it learns its merges from.
        vocab_size: number of tokens at most, :data:`SPECIAL` and the 256 bytes among them.

    Raises:
        ValueError: ``vocab_size`` has no room for these, or a text holds a lone surrogate.
    """
    if vocab_size < 256 + len(SPECIAL):
        raise ValueError(f"vocab_size: expected at least {256 + len(SPECIAL)}, got {vocab_size}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=_special(), initial_alphabet=alphabet,
                                  show_progress=False)  # fmt: skip
    tokenizer.train_from_iterator(_checked(texts), trainer)
    return tokenizer


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """WordPiece as in BERT (Schuster & Nakajima, 2012; Devlin et al., 2019): words in pieces, ``##`` inside a word.

    Text is lower-cased, and what no piece covers becomes ``[UNK]``, so decoding does not give back all of it.

    Args:
        texts: what it learns its pieces from; of their characters the 1000 most frequent are known.
        vocab_size: number of tokens at most, :data:`SPECIAL` and the characters, with ``##`` and without, among them.

    Raises:
        ValueError: ``vocab_size`` has no room for these, or a text holds a lone surrogate.
    """
    normalizer, cutter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    texts = [normalizer.normalize_str(text) for text in _checked(texts)]
    words = Counter(word for text in texts for word, _ in cutter.pre_tokenize_str(text))
    counts: Counter[str] = Counter()
    for word, n in words.items():
        for c in word:
            counts[c] += n
    known = sorted(sorted(counts, key=lambda c: (-counts[c], c))[:1000])
    inside = sorted({f"##{c}" for word in words for c in word[1:]} & {f"##{c}" for c in known})
    if vocab_size < len(SPECIAL) + len(inside) + len(known):
        raise ValueError(f"vocab_size: expected at least {len(SPECIAL) + len(inside) + len(known)}, got {vocab_size}")
    # the trainer numbers characters inside words as it meets them, in another order each time, unless they are given
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=[*SPECIAL, *inside], show_progress=False,
                                        initial_alphabet=known, limit_alphabet=len(known))  # fmt: skip
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = cutter
    learner.train_from_iterator(texts, trainer)
    tokenizer = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, cutter, decoders.WordPiece()
    tokenizer.add_special_tokens(_special())
    return tokenizer


def train_characters(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A token for each character, as BERT does with Chinese; rarer characters are written in bytes of UTF-8.

    Decoding undoes encoding. Nothing is changed on the way: no case, no width, no traditional character.

    Args:
        texts: the most frequent characters of these get a token.
        vocab_size: number of tokens at most, :data:`SPECIAL` and the 256 bytes among them.

    Raises:
        ValueError: ``vocab_size`` has no room for these, or a text holds a lone surrogate.
    """
    first = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    if vocab_size < len(first):
        raise ValueError(f"vocab_size: expected at least {len(first)}, got {vocab_size}")
    counts = Counter(c for text in _checked(texts) for c in text)
    ranked = sorted(counts, key=lambda c: (-counts[c], c))[: vocab_size - len(first)]
    vocab = {token: i for i, token in enumerate([*first, *ranked])}
    tokenizer = Tokenizer(models.BPE(vocab, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(_special())
    return tokenizer


def _special() -> list[AddedToken]:
    """``[MASK]`` takes the blank before it along, for a word is "␣word" to byte-pair encoding."""
    return [AddedToken(token, special=True, normalized=False, lstrip=token == "[MASK]") for token in SPECIAL]


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """The token ids of a text, no special tokens added; ``[MASK]`` in the text is the token of that name.

    So is the name of any special token, and the blanks before ``[MASK]`` belong to it: decoding gives back neither.

    Raises:
        ValueError: the text holds a lone surrogate.
    """
    _check_unicode("text", text)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


class Packed(NamedTuple):
    """Rows filled with whole texts: ``ids (N, T)``, and ``segments (N, T)``, the number of the text within the row.

    Filling is ``[PAD]`` and segment -1.
    """

    ids: Tensor
    segments: Tensor

    @staticmethod
    def mask(segments: Tensor) -> Tensor:
        """Who may read whom: tokens of the same text, ``(B, 1, T, T)``."""
        return (segments[:, None, :, None] == segments[:, None, None, :]).contiguous()


def pack(sequences: Iterable[Sequence[int]], length: int, *, special: Mapping[str, int] | None = None) -> Packed:
    """Put texts into rows of ``length`` tokens, as ``[CLS] … [SEP]`` each, the longest first, where there is room.

    A text that does not fit into a row is cut into several.

    Args:
        sequences: the token ids of each text.
        length: T.
        special: the ids of ``[PAD]``, ``[CLS]`` and ``[SEP]``; 0, 1 and 2 unless given.

    Raises:
        ValueError: a row has no room for a token between ``[CLS]`` and ``[SEP]``.
    """
    if length < 3:
        raise ValueError(f"length: expected at least 3, got {length}")
    pad, cls, sep = ((special or {}).get(name, i) for i, name in enumerate(SPECIAL[:3]))
    inner = length - 2
    pieces = [list(ids[i : i + inner]) for ids in sequences for i in range(0, len(ids), inner)]
    pieces.sort(key=len, reverse=True)
    rows: list[list[list[int]]] = []
    room: dict[int, list[int]] = defaultdict(list)  # free places → rows that have so many
    for piece in pieces:
        need = len(piece) + 2
        free = min((r for r, waiting in room.items() if r >= need and waiting), default=None)
        row = len(rows) if free is None else room[free].pop()
        if free is None:
            rows.append([])
        rows[row].append([cls, *piece, sep])
        room[(length if free is None else free) - need].append(row)
    ids = torch.full((len(rows), length), pad)
    segments = torch.full((len(rows), length), -1)
    for i, row_ in enumerate(rows):
        flat = [token for piece in row_ for token in piece]
        ids[i, : len(flat)] = torch.tensor(flat)
        segments[i, : len(flat)] = torch.tensor([k for k, piece in enumerate(row_) for _ in piece])
    return Packed(ids, segments)


def stream(sequences: Iterable[Sequence[int]], length: int, *, special: Mapping[str, int] | None = None) -> Tensor:
    """One long sequence, each text as ``[CLS] … [SEP]``, cut into rows ``(N, T)`` (Radford et al., 2019).

    A row may begin in the middle of a text; what is left over at the end, less than a row, is dropped.

    Args:
        sequences: the token ids of each text.
        length: T.
        special: the ids of ``[CLS]`` and ``[SEP]``; 1 and 2 unless given.

    Raises:
        ValueError: ``length`` is below 1.
    """
    if length < 1:
        raise ValueError(f"length: expected at least 1, got {length}")
    cls, sep = ((special or {}).get(name, i) for i, name in enumerate(SPECIAL[1:3], start=1))
    flat = torch.tensor([token for ids in sequences for token in (cls, *ids, sep)], dtype=torch.int64)
    return flat[: len(flat) // length * length].view(-1, length)
