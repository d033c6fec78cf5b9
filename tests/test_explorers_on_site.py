"""Every explorer on the pages of the built site, served and straight from the disk: it is there, opens, and answers."""

import re

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from driver import MOUNT, drawn, use
from test_every_explorer import AXE

from llmbook.widgets import EXPLORERS, FillExplorer


def pages(site, edition):
    """The pages that have explorers, and which."""
    found = {
        p: re.findall(r'data-explorer="(\w+)"', p.read_text("utf8")) for p in sorted((site / edition).rglob("*.html"))
    }
    return {p.relative_to(site): names for p, names in found.items() if names}


@pytest.mark.parametrize("edition", ["en", "zh"])
def test_each_is_on_a_page(site, edition):
    names = {name for names in pages(site, edition).values() for name in names}
    assert names == {explorer.files for explorer in EXPLORERS.values()}


@pytest.mark.parametrize(("edition", "address"), [("en", "http"), ("zh", "file")], indirect=["address"])
def test_each_opens_and_answers(visit, site, address, edition):
    for path, names in pages(site, edition).items():
        with visit(f"{address}/{path}") as page:
            page.evaluate(MOUNT)
            assert page.locator(".llm-explorer > .llm").count() == len(names), path
            assert page.locator(".llm-fallback, .llm-error").count() == 0, path
            page.evaluate(AXE_SCRIPT)
            assert page.evaluate(AXE) == [], path
            for name in set(names):
                root = page.locator(f".llm-explorer[data-explorer={name}] > .llm").first
                before = drawn(root)
                use(root)
                assert drawn(root) != before, (path, name)


@pytest.mark.parametrize("edition", ["en", "zh"])
def test_a_model_answers_on_the_page_of_its_chapter(visit, address, edition):
    with visit(f"{address}/{edition}/notebooks/05_3_on_the_page.html") as page:
        page.evaluate(MOUNT)
        root = page.locator(".llm-explorer[data-explorer=fill] > .llm").first
        root.locator(".llm-bar").first.wait_for()
        twin = FillExplorer("mlm-en", "She opened the window because it was hot.", masked=[4])
        for token, p in twin.predictions()[0].likeliest:
            assert token in root.inner_text() and f"{p:.3f}" in root.inner_text()
