"""The glossary: enough terms, in order, complete in both languages, on the page of either edition, linked from use."""

import sys
import tomllib
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[1]
TERMS = tomllib.loads((ROOT / "book" / "glossary.toml").read_text("utf8"))["term"]


def test_there_are_two_hundred_terms_each_once_in_order_and_complete():
    assert len(TERMS) >= 200
    assert {tuple(term) for term in TERMS} == {("en", "zh", "en_text", "zh_text", "section")}
    assert all(value.strip() == value != "" for term in TERMS for value in term.values())
    names = [term["en"].casefold() for term in TERMS]
    assert names == sorted(names)
    for lang in ("en", "zh"):
        assert len({term[lang].casefold() for term in TERMS}) == len(TERMS)


def test_definitions_are_short_and_in_their_language():
    for term in TERMS:
        assert len(term["en_text"].split()) <= 45 and len(term["zh_text"]) <= 110, term["en"]
        assert any("一" <= c <= "鿿" for c in term["zh_text"]), term["en"]
        assert not any("一" <= c <= "鿿" for c in term["en_text"]), term["en"]
        assert term["en_text"][-1] in ".)" and term["zh_text"][-1] in "。）", term["en"]


@pytest.mark.parametrize("edition", ["en", "zh"])
def test_every_term_is_on_the_page_with_its_name_in_the_other_edition(site, edition):
    page = BeautifulSoup((site / edition / "book" / "glossary.html").read_text("utf8"), "html.parser")
    entries = {
        dt.get_text().rstrip("#").strip(): dt.find_next_sibling("dd").get_text() for dt in page.select("dl.glossary dt")
    }
    assert len(entries) == len(TERMS)
    for term in TERMS:
        assert term["zh" if edition == "en" else "en"] in entries[term[edition]]


# ---- Links from the chapters


@pytest.fixture
def linking(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "site"))
    for name in ("llmbook_site", "llmbook_terms"):
        sys.modules.pop(name, None)
    import llmbook_terms

    return llmbook_terms


def test_a_chapter_has_a_section_and_other_pages_have_none(linking):
    pages = ("notebooks/04_1_attention", "notebooks/01_background", "book/index", "book/glossary")
    assert [linking.section(page) for page in pages] == ["4.1", "1", "", ""]


@pytest.mark.parametrize(
    ("name", "at_home", "elsewhere"),
    [
        ("masked language model (MLM)", ["masked language model", "MLM"], ["masked language model", "MLM"]),
        ("key", ["key"], []),
        ("perplexity", ["perplexity"], ["perplexity"]),
        ("norm (of a vector)", ["norm"], []),
    ],
)
def test_everyday_words_are_terms_in_their_own_section_alone(linking, name, at_home, elsewhere):
    term = {"en": name, "section": "4.1"}
    assert linking.names(term, "en", "4.1") == at_home and linking.names(term, "en", "3.2") == elsewhere


@pytest.mark.parametrize(
    ("lang", "written", "text", "found"),
    [
        ("en", ["mask", "masked language model"], "Masked language models mask", ["Masked language models", "mask"]),
        ("en", ["attention"], "self-attention, attentions", ["attentions"]),
        ("zh", ["掩码", "掩码语言模型", "GPT"], "掩码语言模型用GPT吗？GPTs用掩码", ["掩码语言模型", "GPT", "掩码"]),
    ],
)  # fmt: skip
def test_the_longest_name_is_found_as_a_whole_word(linking, lang, written, text, found):
    assert linking.pattern(written, lang).findall(text) == found


@pytest.mark.parametrize("edition", ["en", "zh"])
def test_each_chapter_links_a_term_once_and_never_from_code_or_titles(site, edition):
    glossary = BeautifulSoup((site / edition / "book" / "glossary.html").read_text("utf8"), "html.parser")
    pages = sorted((site / edition / "notebooks").glob("*.html"))
    for path in pages:
        page = BeautifulSoup(path.read_text("utf8"), "html.parser")
        links = page.select("a.term-link")
        targets = [link["href"].partition("#")[2] for link in links]
        assert len(targets) == len(set(targets)) >= 5, path
        for link, target in zip(links, targets, strict=True):
            assert glossary.find(id=target).name == "dt" and link["title"]
        assert not page.select("pre a.term-link, h1 a.term-link, h2 a.term-link, a a")
    assert pages
