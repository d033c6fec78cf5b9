"""The Sphinx extension of both editions: explorers without a kernel, everything from this site, two languages.

- the explorers' modules as classic scripts (they work from ``file://`` too), their loader and their styles;
- MathJax from a Python package instead of a CDN; nothing that calls another host;
- a link to the same page in the other edition; a search that finds Chinese compounds;
- the directive ``{explorer}``, for an explorer on a page that is no notebook;
- by :mod:`llmbook_reference`: the table of equations, and the reference of the package;
- by :mod:`llmbook_terms`: the glossary, and the links to it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import jieba
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.search import languages
from sphinx.search.zh import SearchChinese
from sphinx.util.docutils import SphinxDirective

import llmbook
from llmbook import zoo
from llmbook.widgets import EXPLORERS
from llmbook.widgets.base import STATIC, classic, styles
from llmbook.widgets.network import scripts

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EDITIONS = {"en": ("English", ROOT), "zh": ("中文", ROOT / "zh")}


def configure(app: Sphinx, config: Any) -> None:
    """What both editions have in common, so that their two _config.yml say only what differs."""
    config.llmbook_site_digest = digest(HERE, Path(llmbook.__file__).parent / "widgets")
    config.templates_path = [str(HERE / "templates")]
    config.html_static_path = [str(HERE / "static")]
    config.html_logo, config.html_favicon = str(HERE / "assets" / "logo.svg"), str(HERE / "assets" / "favicon.svg")
    config.mathjax_path = "mathjax/tex-mml-chtml.js"
    config.nb_ipywidgets_js = {}
    config.nb_mime_priority_overrides = [
        ("html", "text/html", 5),
        ("html", "application/vnd.jupyter.widget-view+json", None),
    ]
    config.html_context["default_mode"] = "auto"
    config.html_theme_options |= {
        "logo": {"text": "llmbook"},
        "navbar_persistent": [],
        "article_header_end": ["language.html", "article-header-buttons.html"],
        "use_download_button": True,
        "show_toc_level": 2,
    }
    config.bibtex_reference_style = "author_year"


def digest(*folders: Path) -> str:
    """A hash of all files in ``folders``: when one of them changes, every page has to be built again."""
    files = sorted(p for f in folders for p in f.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def edition(app: Sphinx) -> str:
    """``"en"`` or ``"zh"``."""
    return "zh" if str(app.config.language).startswith("zh") else "en"


def other_edition(app: Sphinx, pagename: str) -> dict[str, str]:
    """Code, name and relative address of this page in the other edition.

    The site holds the two side by side; a lone ``jupyter-book build`` leaves each in its own ``_build/html``.
    """
    mine = edition(app)
    theirs = "en" if mine == "zh" else "zh"
    out = Path(app.outdir)
    root = out.parent / theirs if out.name == mine else EDITIONS[theirs][1] / "_build" / "html"
    page = os.path.relpath(root / f"{pagename}.html", (out / pagename).parent)
    return {"code": theirs, "name": EDITIONS[theirs][0], "href": Path(page).as_posix()}


def link_edition(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """What templates/language.html shows."""
    context["other_edition"] = other_edition(app, pagename)


def drop_thebe(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Take sphinx-thebe off the page: it would call a CDN, and nothing here uses it."""

    def wanted(asset: Any) -> bool:
        text = f"{getattr(asset, 'filename', asset)} {getattr(asset, 'attributes', {}).get('body', '')}"
        return "thebe" not in text.lower()

    for files in ("script_files", "css_files"):
        context[files] = [asset for asset in context[files] if wanted(asset)]


def write_assets(app: Sphinx) -> None:
    """The files that pages load besides Sphinx's own; before the pages, which name some of them by their checksums."""
    if app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    names = [explorer.files for explorer in EXPLORERS.values()]
    folder = static / "explorers"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(STATIC / "loader.js", folder)
    for name in names:
        (folder / f"{name}.js").write_text(classic(name), "utf8")
    for model in zoo.available():
        (folder / "models" / model).mkdir(parents=True, exist_ok=True)
        for i, script in enumerate(scripts(model)):
            (folder / "models" / model / f"{i}.js").write_text(script, "utf8")
    (folder / "explorers.css").write_text(styles(*names), "utf8")
    write_mathjax(static / "mathjax")


def remove_stale_pages(app: Sphinx, exception: Exception | None) -> None:
    """Pages whose source is gone: Sphinx leaves them in the site, with links that lead nowhere."""
    if exception or app.builder.format != "html":
        return
    out = Path(app.outdir)
    known = {"index", "search", "genindex", *app.env.found_docs}
    for path in out.rglob("*.html"):
        page = path.relative_to(out).with_suffix("")
        if "_static" not in page.parts and page.as_posix() not in known:
            path.unlink()


def write_mathjax(folder: Path) -> None:
    """MathJax with its fonts, and the TeX extensions that it loads when a page needs one."""
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("sphinx-mathjax-offline is not installed: pip install -r requirements.txt")
    source = Path(spec.submodule_search_locations[0]) / "static" / "mathjax"
    parts = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions", "a11y", "sre")
    for part in parts:
        if (folder / part).exists():
            continue
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (source / part).is_dir() else shutil.copy
        copy(source / part, folder / part)


class ExplorerDirective(SphinxDirective):
    """```` ```{explorer} AttentionExplorer ```` with keyword arguments as JSON in the body, if any."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """The explorer's HTML as a raw node."""
        name = self.arguments[0]
        if name not in EXPLORERS:
            raise self.error(f"explorer: expected one of {', '.join(EXPLORERS)}, got {name!r}")
        try:
            explorer = EXPLORERS[name](**json.loads("\n".join(self.content) or "{}"))
        except Exception as problem:
            raise self.error(f"explorer {name}: {problem}") from None
        return [nodes.raw("", explorer.to_html(), format="html")]


class ChineseSearch(SearchChinese):
    """Sphinx cuts Chinese pages into words but not what the reader types, so a compound finds nothing.

    The browser's side cuts the query by the longest word that the index knows; a character that begins no word of
    the index is passed over.
    """

    js_splitter_code = (HERE / "assets" / "split_query.js").read_text("utf8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    jieba.setLogLevel(logging.WARNING)
    app.setup_extension("llmbook_reference")
    app.setup_extension("llmbook_terms")
    languages["zh"] = ChineseSearch
    app.add_config_value("llmbook_site_digest", "", "env", str)
    app.connect("config-inited", configure, priority=10)
    app.connect("html-page-context", link_edition, priority=10)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("builder-inited", write_assets)
    app.connect("build-finished", remove_stale_pages)
    app.add_directive("explorer", ExplorerDirective)
    app.add_css_file("explorers/explorers.css")
    app.add_css_file("book.css")
    app.add_js_file("book.js")
    app.add_js_file("explorers/loader.js")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
