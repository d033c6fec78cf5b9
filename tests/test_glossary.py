"""The glossary: enough terms, in order, complete in both languages, and every one on the page of either edition."""

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
