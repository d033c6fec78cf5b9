"""The built site in a real browser: nothing from elsewhere, nothing broken, two languages, search, mathematics."""

import html
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urljoin

import pytest
import website
import yaml

ROOT = Path(__file__).parents[1]
CHAPTER = "notebooks/04_1_attention"


def pages():
    """Every page of an edition, as its table of contents says, and the search page."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    return [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"]), "search", "genindex"]


def scroll_through(page):
    """Bring every part of the page on the screen once, so that what loads late is loaded."""
    page.evaluate(
        """async () => { for (let y = 0; y < document.documentElement.scrollHeight; y += 700) {
               scrollTo(0, y); await new Promise((done) => setTimeout(done, 30)); } }"""
    )
    page.wait_for_function("!document.querySelector('.llm-explorer:not(:has(.llm))')")


def is_whole(page, edition):
    scroll_through(page)
    page.wait_for_function("!document.querySelector('article .math:not(:has(mjx-container))')")
    assert page.locator("mjx-merror").count() == 0
    assert page.locator("html").get_attribute("lang")[:2] == edition


def title_of(source):
    return " ".join(html.unescape(re.search(r"<title>(.*?)</title>", source, re.S)[1]).split())


@pytest.mark.parametrize("edition", ["en", "zh"])
@pytest.mark.parametrize("name", pages())
def test_every_page_is_whole(visit, http, edition, name):
    with visit(f"{http}/{edition}/{name}.html") as page:
        is_whole(page, edition)
        other = urljoin(page.url, page.locator(".language-switch").get_attribute("href"))
        assert other == f"{http}/{'en' if edition == 'zh' else 'zh'}/{name}.html"
        title, other_title = (title_of(page.request.get(url).text()) for url in (page.url, other))
        assert title == page.title() != other_title


@pytest.mark.parametrize("edition", ["en", "zh"])
@pytest.mark.parametrize("name", pages())
def test_a_narrow_page_from_the_disk_is_whole_and_does_not_scroll_sideways(visit, site, edition, name):
    with visit(f"{site.as_uri()}/{edition}/{name}.html", width=390) as page:
        is_whole(page, edition)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_selector(f"html[data-theme={scheme}]", state="attached")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_language_switch_leads_to_the_same_page_and_back(visit, address):
    with visit(f"{address}/en/{CHAPTER}.html") as page:
        title = page.title()
        page.wait_for_load_state("networkidle")
        page.click(".language-switch")
        page.wait_for_url(f"**/zh/{CHAPTER}.html")
        assert page.title() != title
        page.wait_for_load_state("networkidle")
        page.click(".language-switch")
        page.wait_for_url(f"**/en/{CHAPTER}.html")
        assert page.title() == title


@pytest.mark.parametrize("edition", ["en", "zh"])
def test_no_link_of_any_page_is_broken(site, edition):
    for path in [p for p in (site / edition).rglob("*.html") if "_static" not in p.parts]:
        html = path.read_text("utf8")
        for href in re.findall(r'(?:href|src)="([^"#?]+)[^"]*"', html):
            if not re.match(r"[a-z]+:", href):
                assert (path.parent / href).exists(), f"{path}: {href}"
            assert not re.match(r"(https?:)?//", href) or re.match(
                r"https://(www\.sphinx-doc\.org|doi\.org|arxiv\.org"
                r"|creativecommons\.org|tatoeba\.org|worldenglish\.bible|pypi\.org)",  # whose text it is
                href,
            ), f"{path}: {href}"


@pytest.mark.parametrize(
    ("edition", "query"),
    [("en", "attention weights"), ("zh", "注意力权重"), ("zh", "掩码"), ("zh", "softmax 饱和"), ("en", "saturated")],
)
def test_search_finds_the_chapter(visit, address, edition, query):
    with visit(f"{address}/{edition}/search.html?q={query}") as page:
        page.wait_for_selector(f"#search-results .search li a[href*='{CHAPTER}']")  # results come one by one


def test_search_finds_nothing_for_a_word_that_is_nowhere(visit, http):
    with visit(f"{http}/zh/search.html?q=蒸汽机车") as page:
        page.wait_for_function("document.querySelector('#search-results p.search-summary')?.textContent.length > 20")
        assert page.locator("#search-results .search li").count() == 0


@pytest.mark.parametrize(("locale", "edition"), [("zh-CN", "zh"), ("en-GB", "en"), ("fr-FR", "en")])
def test_the_front_door_opens_in_the_reader_s_language(visit, http, locale, edition):
    with visit(f"{http}/", locale=locale) as page:
        page.wait_for_url(f"**/{edition}/book/index.html")


def test_a_copy_button_copies_the_cell(visit, http):
    with visit(f"{http}/en/{CHAPTER}.html", permissions=["clipboard-read", "clipboard-write"]) as page:
        cell = page.locator("div.highlight", has_text="score_1 = ").first
        cell.hover()
        cell.locator("button.copybtn").click()
        assert page.evaluate("navigator.clipboard.readText()").startswith("score_1 = 0.1 * 0.3")


def test_the_theme_button_turns_the_page_dark(visit, http):
    with visit(f"{http}/en/{CHAPTER}.html") as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        for _ in range(3):  # auto, light, dark in turn
            page.locator(".theme-switch-button").first.click()
            if page.locator("html").get_attribute("data-theme") == "dark":
                break
        assert page.evaluate(ground) != light


def test_every_figure_has_alt_text_and_a_caption(visit, http):
    for edition in ("en", "zh"):
        with visit(f"{http}/{edition}/{CHAPTER}.html") as page:
            figures = page.locator("article figure:has(img)")
            assert figures.count() >= 2
            for figure in figures.all():
                assert len(figure.locator("img").get_attribute("alt")) > 20
                assert figure.locator("figcaption").inner_text().strip()
            assert page.locator("article img:not([alt]), article img[alt='']").count() == 0


def test_without_scripts_every_explorer_leaves_a_table(visit, http):
    with visit(f"{http}/en/{CHAPTER}.html", java_script_enabled=False) as page:
        tables = page.locator(".llm-explorer .llm-fallback")
        assert tables.count() == page.locator(".llm-explorer").count() >= 4
        assert tables.first.locator("td").all_inner_texts() == ["0.489", "0.511"]


def test_a_taken_port_ends_in_one_sentence():
    with website.server(0) as taken:
        port = taken.server_port
        run = [sys.executable, ROOT / "tools" / "website.py", "serve", "--port", str(port)]
        done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert done.stderr == f"llmbook: port {port} is taken; choose another: make serve PORT={port + 1}\n"
