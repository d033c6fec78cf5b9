"""Explorers as a page of their own: one file with all that they need inside, which opens anywhere without a network."""

from __future__ import annotations

import html
import re
from pathlib import Path

from .base import STATIC, Explorer, classic, styles

LANGUAGES = {"en": "en", "zh": "zh-CN"}

STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; background: #fff; color: #222832; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: .5rem; }
h1 { margin: .5rem 0; font-size: 1.5rem; line-height: 1.3; overflow-wrap: anywhere; }
.llm-fallback { display: block; overflow-x: auto; }
.llm-fallback :is(th, td) { padding: .2rem .6rem; text-align: left; }
@media (prefers-color-scheme: dark) { body { background: #14181e; color: #ced6dd; } }
"""

# the explorers' dark styles hang on the theme that a page says it has
THEME = """
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => { document.documentElement.dataset.theme = dark.matches ? "dark" : "light"; };
  dark.addEventListener("change", follow);
  follow();
})();
"""


def save_html(path: str | Path, *explorers: Explorer, title: str | None = None, lang: str | None = None) -> None:
    """Write explorers, as they are now, into one HTML file.

    The file holds styles, scripts, state and, for readers without scripts, a table of each. It opens from the disk and
    from any server, asks for nothing from anywhere, and is light or dark as the reader's system is. It is written at
    once: a file that was there before stays whole until the new one is.

    Args:
        path: the file, in a folder that exists.
        explorers: one or more, from top to bottom.
        title: the title of the page, which then also stands above the first explorer; without one the page is called
            after the explorers.
        lang: ``"en"`` or ``"zh"``, the language of the page; unless given, that of the first explorer that has one,
            else English.

    Raises:
        ValueError: there are no explorers, or ``lang`` is neither of the two.
        TypeError: one of ``explorers`` is none, or ``title`` is no string.
        FileNotFoundError, IsADirectoryError: there is no folder for ``path``, or ``path`` is one.
    """
    if not explorers:
        raise ValueError("explorers: expected one or more, got none")
    for explorer in explorers:
        if not isinstance(explorer, Explorer):
            raise TypeError(f"explorers: expected explorers, got {explorer!r}")
    if title is not None and not isinstance(title, str):
        raise TypeError(f"title: expected a string, got {title!r}")
    if lang is not None and lang not in LANGUAGES:
        raise ValueError(f"lang: expected 'en' or 'zh', got {lang!r}")
    _write(Path(path), _page(explorers, title, lang or next((e.lang for e in explorers if e.lang), "en")))


def _page(explorers: tuple[Explorer, ...], title: str | None, lang: str) -> str:
    names = list(dict.fromkeys(explorer.files for explorer in explorers))
    pieces = dict.fromkeys(piece for explorer in explorers for piece in explorer.scripts())
    code = [(STATIC / "loader.js").read_text("utf8"), *map(classic, names), *pieces]
    name = html.escape(", ".join(dict.fromkeys(type(e).__name__ for e in explorers)) if title is None else title)
    return "\n".join([
        f'<!DOCTYPE html>\n<html lang="{LANGUAGES[lang]}">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>{name}</title>\n<link rel="icon" href="data:,">',  # else a browser asks its server for one
        f"<style>{STYLE}{styles(*names)}</style>\n{_script(THEME)}\n</head>\n<body>\n<main>",
        *([] if title is None else [f"<h1>{name}</h1>"]),
        *(explorer.to_html() for explorer in explorers),
        "</main>",
        *map(_script, code),
        "</body>\n</html>\n",
    ])  # fmt: skip


def _script(code: str) -> str:
    """A script element; what would end it, or begin a comment, is written otherwise."""
    return "<script>" + re.sub(r"<(?=/script|!--)", r"\\x3c", code, flags=re.I) + "</script>"


def _write(path: Path, text: str) -> None:
    from ..checkpoints import write_text

    if path.is_dir():
        raise IsADirectoryError(f"path: expected a file, got the folder {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: expected a file in a folder that exists, got {path}; there is no {path.parent}")
    write_text(path, re.sub("[\ud800-\udfff]", "\ufffd", text))  # half a character is none in UTF-8
