"""The glossary of both editions: its page, and the links that lead to it.

- the directive ``{terms}`` shows those terms of ``book/glossary.toml`` that a section treats;
- on the page of a chapter the first use of each term is linked to its entry, whose text shows where the pointer rests.
  Nothing has to be marked in the notebooks, which stay readable in JupyterLab.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from llmbook_site import HERE, edition
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

GLOSSARY = HERE.parent / "glossary.toml"
ASIDE = r"(of|with) .*|social|.*的"  # brackets that say which sense is meant, and are no name of the term
PLAIN = (nodes.title, nodes.caption, nodes.literal, nodes.FixedTextElement, nodes.reference, nodes.math, nodes.raw)


def terms() -> list[dict[str, str]]:
    """All terms of the glossary."""
    found: list[dict[str, str]] = tomllib.loads(GLOSSARY.read_text("utf8"))["term"]
    return found


# ---- The page


class TermsDirective(SphinxDirective):
    """```` ```{terms} 4.1 ````: the terms that a section treats, each with its name in the other edition."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A Sphinx glossary: the role ``{term}`` finds its entries."""
        self.env.note_dependency(str(GLOSSARY))
        here = [term for term in terms() if term["section"] == self.arguments[0]]
        if not here:
            raise self.error(f"terms: expected a section with terms in {GLOSSARY.name}, got {self.arguments[0]}")
        box = nodes.container(classes=["terms"])
        self.state.nested_parse(StringList(glossary(here, edition(self.env.app)), str(GLOSSARY)), 0, box)
        return [box]


def glossary(terms: list[dict[str, str]], lang: str) -> list[str]:
    """The lines of a glossary in Markdown."""
    other = "zh" if lang == "en" else "en"
    lines = ["```{glossary}"]
    for term in terms:
        lines += [term[lang], f"  *{term[other]}*{'. ' if lang == 'en' else '。'}{term[f'{lang}_text']}", ""]
    return [*lines, "```"]


# ---- The links


def section(docname: str) -> str:
    """``"4.1"`` for the chapter ``notebooks/04_1_attention``; empty for what is no chapter."""
    found = re.match(r"notebooks/0*(\d+)(?:_(\d+))?", docname)
    return ".".join(filter(None, found.groups())) if found else ""


def names(term: dict[str, str], lang: str, here: str) -> list[str]:
    """How a term is written on a page: its name, and the other one in brackets, if it has one.

    Away from the section that treats it, only what is hardly an everyday word: names of two words, capitals, long ones.
    """
    name, _, bracket = term[lang].replace("（", " (").replace("）", ")").rstrip(")").partition(" (")
    aside = re.fullmatch(ASIDE, bracket)
    written = [name] if aside or not bracket else [name, bracket]
    if term["section"] == here:
        return written
    plain = r".{1,2}" if lang == "zh" else r"[a-z]{1,6}"
    return [] if aside else [w for w in written if not re.fullmatch(plain, w)]


def pattern(written: Iterable[str], lang: str) -> re.Pattern[str]:
    """Any of these, the longest first; those in Latin letters as whole words, English ones in the plural too."""
    plural = "(?:e?s)?" if lang == "en" else ""

    def whole(name: str) -> str:
        before, after = (r"(?<![A-Za-z0-9–-])" if name[0].isascii() else "",
                         rf"{plural}(?![A-Za-z0-9–-])" if name[-1].isascii() else "")  # fmt: skip
        return f"{before}{re.escape(name)}{after}"

    return re.compile("|".join(map(whole, sorted(written, key=len, reverse=True))), re.IGNORECASE)


def readable(doctree: nodes.document) -> Iterator[nodes.Text]:
    """The text of a page without titles, code, mathematics, links and what the code printed."""
    for text in list(doctree.findall(nodes.Text)):
        above, node = [], text.parent
        while node is not None:
            above.append(node)
            node = node.parent
        if not any(isinstance(n, PLAIN) or "cell_output" in n.get("classes", []) for n in above[:-1]):
            yield text


def link_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Link the first use of each term on the page of a chapter."""
    here, lang = section(docname), edition(app)
    if not here:
        return
    by_name = {name.casefold(): (name, term) for term in terms() for name in names(term, lang, here)}
    written, seen = pattern(by_name, lang), set()

    def link(said: str) -> nodes.Node | None:
        """The link for what was found; none if the term has one already, or is written otherwise (a T for a t)."""
        stem = next(s for s in (said, said[:-1], said[:-2]) if s.casefold() in by_name)
        name, term = by_name[stem.casefold()]
        if term["en"] in seen or (name != name.lower() and stem != name):
            return None
        seen.add(term["en"])
        return entry(app, docname, term, said)

    for text in readable(doctree):
        parts, end = [], 0
        whole = text.astext()
        for match in written.finditer(whole):
            if node := link(match[0]):
                parts += [nodes.Text(whole[end : match.start()]), node]
                end = match.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(whole[end:])])


def entry(app: Sphinx, docname: str, term: dict[str, str], said: str) -> nodes.Node:
    """A link to a term's entry; where the pointer rests it shows its name in the other edition, and what it means."""
    lang = edition(app)
    page, label = app.env.get_domain("std").objects["term", term[lang]]  # type: ignore[attr-defined]
    meaning = re.sub(r"[$*`]", "", f"{term['zh' if lang == 'en' else 'en']}: {term[f'{lang}_text']}")
    node = make_refnode(app.builder, docname, page, label, nodes.Text(said), meaning)
    node["classes"].append("term-link")
    return node


def depend(app: Sphinx, docname: str, source: list[str]) -> None:
    """A chapter is built again when the glossary changes."""
    if section(docname):
        app.env.note_dependency(str(GLOSSARY))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("terms", TermsDirective)
    app.connect("source-read", depend)
    app.connect("doctree-resolved", link_terms, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
