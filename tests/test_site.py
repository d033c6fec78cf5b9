"""The built site in a real browser: nothing from elsewhere, nothing broken, two languages, search, mathematics."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zlib import crc32

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


@pytest.mark.parametrize("edition", ["en", "zh"])
@pytest.mark.parametrize("name", pages())
def test_every_page_is_whole(visit, address, edition, name):
    with visit(f"{address}/{edition}/{name}.html") as page:
        scroll_through(page)
        page.wait_for_function("!document.querySelector('article .math:not(:has(mjx-container))')")
        assert page.locator("mjx-merror").count() == 0
        assert page.locator("html").get_attribute("lang")[:2] == edition


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("edition", ["en", "zh"])
@pytest.mark.parametrize("name", pages())
def test_a_narrow_page_does_not_scroll_sideways(visit, http, edition, name, scheme):
    with visit(f"{http}/{edition}/{name}.html", width=390, scheme=scheme) as page:
        scroll_through(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("html").get_attribute("data-theme") == scheme


@pytest.mark.parametrize("name", [n for n in pages() if n not in ("search", "genindex")])
def test_the_language_switch_leads_to_the_same_page_and_back(visit, address, name):
    with visit(f"{address}/en/{name}.html") as page:
        title = page.title()
        page.wait_for_load_state("networkidle")
        page.click(".language-switch")
        page.wait_for_url(f"**/zh/{name}.html")
        assert page.title() != title
        page.wait_for_load_state("networkidle")
        page.click(".language-switch")
        page.wait_for_url(f"**/en/{name}.html")
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


def copy_of_the_book(folder):
    """Everything that the site is built from."""
    ignore = shutil.ignore_patterns(".git", ".venv", "_build", "__pycache__", ".*_cache", ".hypothesis")
    return shutil.copytree(ROOT, folder / "copy", ignore=ignore)


def build_site(root):
    done = subprocess.run([sys.executable, root / "tools" / "website.py", "build"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_second_build_writes_only_what_changed(tmp_path):
    book = copy_of_the_book(tmp_path)
    pages = [book / "_build" / "site" / "en" / f"{name}.html" for name in (CHAPTER, "book/errata")]
    times = []
    for change in (None, None, "book/errata.md", "book/site/static/book.js"):
        if change:
            with (book / change).open("a") as file:
                file.write("\n")
        build_site(book)
        times.append([page.stat().st_mtime_ns for page in pages])
    first, second, after_page, after_script = times
    assert first == second
    assert after_page[0] == first[0] and after_page[1] > first[1]
    assert all(after > before for after, before in zip(after_script, after_page, strict=True))


@pytest.mark.parametrize(("folder", "page_of"), [(".", "_build/html"), ("zh", "zh/_build/html")])
def test_jupyter_book_alone_builds_an_edition_with_a_working_switch(tmp_path, folder, page_of):
    copy = copy_of_the_book(tmp_path)
    run = [Path(sys.executable).with_name("jupyter-book"), "build", folder, "-W", "-n", "--keep-going"]
    done = subprocess.run(run, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    page = copy / page_of / f"{CHAPTER}.html"
    href = re.search(r'language-switch" href="([^"]+)"', page.read_text("utf8"))[1]
    other = "zh/_build/html" if folder == "." else "_build/html"
    assert (page.parent / href).resolve() == copy.resolve() / other / f"{CHAPTER}.html"
    ours = re.findall(r'"([^"]+/(?:explorers|loader|book)\.(?:css|js))\?v=(\w+)"', page.read_text("utf8"))
    assert len(ours) == 4  # under their checksums, so that no browser shows what an earlier site had
    assert all(int(checksum, 16) == crc32((page.parent / file).read_bytes()) for file, checksum in ours)


def test_a_build_that_failed_fails_again_until_it_is_mended(tmp_path):
    book = copy_of_the_book(tmp_path)
    page = book / "book" / "errata.md"
    good = page.read_text("utf8")
    page.write_text(good + "\n{doc}`nowhere`\n", "utf8")
    run = [sys.executable, book / "tools" / "website.py", "build"]
    for _ in range(2):
        done = subprocess.run(run, capture_output=True, text=True)
        assert done.returncode == 1 and "nowhere" in done.stderr + done.stdout
    page.write_text(good, "utf8")
    build_site(book)


def test_a_taken_port_ends_in_one_sentence():
    with website.server(0) as taken:
        port = taken.server_port
        run = [sys.executable, ROOT / "tools" / "website.py", "serve", "--port", str(port)]
        done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert done.stderr == f"llmbook: port {port} is taken; choose another: make serve PORT={port + 1}\n"


def test_a_wrong_explorer_directive_fails_the_build(tmp_path):
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    source = tmp_path / "book"
    source.mkdir()
    bad = json.dumps({"q": [1], "K": [[1, 2]], "V": [[1]]})
    (source / "index.md").write_text(
        f"# T\n\n```{{explorer}} AttentionExplorer\n{bad}\n```\n\n```{{explorer}} No\n```\n\n"
        '```{explorer} BPEExplorer\n{"merges": ["es"]}\n```\n\n```{explorer} BPEExplorer\n{"step": 3}\n```\n'
    )
    (source / "conf.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'book' / 'site')!r})\n"
        "from llmbook_site import ExplorerDirective\nextensions = ['myst_parser']\n"
        "def setup(app): app.add_directive('explorer', ExplorerDirective)\n"
    )
    warnings = (tmp_path / "warnings").open("w+")
    with docutils_namespace():
        Sphinx(source, source, tmp_path / "out", tmp_path / "tree", "html", status=None, warning=warnings).build()
    warnings.seek(0)
    said = warnings.read()
    assert "explorer AttentionExplorer: q: expected d_k=2 numbers" in said
    assert "explorer BPEExplorer: merges: expected pairs of non-empty strings, got 'es'" in said
    assert "explorer: expected one of AttentionExplorer, BPEExplorer" in said
    page = (tmp_path / "out" / "index.html").read_text("utf8")
    assert re.findall(r'data-explorer="(\w+)".*"step": (\d)', page) == [("bpe", "3")]
