"""How the site is built: only what changed, by Jupyter Book alone too, and what is wrong stops it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import pytest

ROOT = Path(__file__).parents[1]
CHAPTER = "notebooks/04_1_attention"
TOC = "format: jb-book\nroot: book/index\nchapters:\n- file: book/same\n- file: book/other\n"
PAGES = ["book/index", "book/same", "book/other"]


@pytest.fixture
def book(tmp_path):
    """A book of three short pages, in two editions, with all that the real one is built with."""
    for name in ("tools", "book/site"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*ROOT.glob("book/*.toml"), ROOT / "book" / "references.bib"]:
        shutil.copy(path, tmp_path / "book")
    for edition in ("", "zh"):
        (tmp_path / edition / "book").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / edition / "_config.yml", tmp_path / edition)
        (tmp_path / edition / "_toc.yml").write_text(TOC)
        for page in PAGES:
            (tmp_path / edition / f"{page}.md").write_text(f"# {page}\n\n```{{explorer}} AttentionExplorer\n```\n")
    return tmp_path


def build(book):
    run = [sys.executable, book / "tools" / "website.py", "build"]
    return subprocess.run(run, capture_output=True, text=True)


def test_a_second_build_writes_only_what_changed(book):
    pages = [book / "_build" / "site" / "en" / f"{name}.html" for name in PAGES[1:]]
    times = []
    for change in (None, None, "book/other.md", "book/site/static/book.js"):
        if change:
            with (book / change).open("a") as file:
                file.write("\n")
        done = build(book)
        assert done.returncode == 0, done.stderr[-3000:]
        times.append([page.stat().st_mtime_ns for page in pages])
    first, second, after_page, after_script = times
    assert first == second
    assert after_page[0] == first[0] and after_page[1] > first[1]
    assert all(after > before for after, before in zip(after_script, after_page, strict=True))


@pytest.mark.parametrize(("folder", "page_of"), [(".", "_build/html"), ("zh", "zh/_build/html")])
def test_jupyter_book_alone_builds_an_edition_with_a_working_switch(tmp_path, folder, page_of):
    ignore = shutil.ignore_patterns(".git", ".venv", "_build", "__pycache__", ".*_cache", ".hypothesis")
    book = shutil.copytree(ROOT, tmp_path / "copy", ignore=ignore)  # the real one, which takes a minute
    run = [Path(sys.executable).with_name("jupyter-book"), "build", folder, "-W", "-n", "--keep-going"]
    pages = [book / page_of / path.relative_to(book / folder).with_suffix(".html")
             for kind in ("notebooks/*.ipynb", "book/*.md") for path in (book / folder).glob(kind)]  # fmt: skip
    times = []
    for _ in range(2):
        done = subprocess.run(run, cwd=book, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        times.append([page.stat().st_mtime_ns for page in pages])
    assert times[0] == times[1]  # nothing changed, so no page is written again
    page = book / page_of / f"{CHAPTER}.html"
    html = page.read_text("utf8")
    href = re.search(r'language-switch" href="([^"]+)"', html)[1]
    other = "zh/_build/html" if folder == "." else "_build/html"
    assert (page.parent / href).resolve() == book.resolve() / other / f"{CHAPTER}.html"
    ours = re.findall(r'"([^"]+/(?:explorers|loader|book)\.(?:css|js))\?v=(\w+)"', html)
    assert len(ours) == 4  # under their checksums, so that no browser shows what an earlier site had
    assert all(int(checksum, 16) == crc32((page.parent / file).read_bytes()) for file, checksum in ours)


def test_a_build_that_failed_fails_again_until_it_is_mended(book):
    page = book / "book" / "other.md"
    good = page.read_text("utf8")
    page.write_text(good + "\n{doc}`nowhere`\n", "utf8")
    for _ in range(2):
        done = build(book)
        assert done.returncode == 1 and "nowhere" in done.stderr + done.stdout
    page.write_text(good, "utf8")
    assert build(book).returncode == 0


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
