"""The pages that are made from the code: the table of equations, and the reference of the package.

- the directive ``{equations}`` shows ``book/equations.toml`` as a table;
- autodoc and napoleon read the docstrings; in the Chinese edition the first paragraph of each is the one that
  ``book/api_zh.toml`` has for it.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from llmbook_site import edition
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

BOOK = Path(__file__).parents[1]
EQUATIONS, SUMMARIES = BOOK / "equations.toml", BOOK / "api_zh.toml"
WORDS: dict[str, dict[str, Any]] = {
    "en": {"head": ["Equation", "Document", "Code", "Test"], "derivation": "derivation", "cell": "cell"},
    "zh": {"head": ["公式", "讲义", "代码", "测试"], "derivation": "推导", "cell": "单元格"},
}
OTHERS = r"(torch|numpy|npt|tokenizers|traitlets|t|pathlib|typing|collections|contextlib)(\.\w+)+"  # t: traitlets


def configure(app: Sphinx, config: Any) -> None:
    """How signatures and docstrings are shown, and whose names need not be found."""
    config.autodoc_default_options = {"members": True, "ignore-module-all": True}
    config.autodoc_inherit_docstrings = False
    config.autodoc_member_order = "bysource"
    config.autodoc_type_aliases = {name: name for name in ("npt.ArrayLike", "Array")}
    config.napoleon_numpy_docstring = False
    config.napoleon_use_ivar, config.napoleon_use_rtype = True, False
    config.python_use_unqualified_type_names = True
    config.maximum_signature_line_length = 72
    config.html_domain_indices = False
    config.toc_object_entries_show_parents = "hide"
    config.nitpick_ignore_regex = [
        (r"py:(class|obj|exc)", OTHERS),
        (r"py:class", r"Array"),  # llmbook.reference's name for numpy's
        (r"py:class", r"Tensor|Tokenizer"),  # of a NamedTuple's fields autodoc knows the type as it is written
        (r"py:class", r"llmbook\.text\.Record"),  # a type variable
        (r"py:attr", r".*"),  # parameters and layers are told of by their class and have no entries of their own
    ]


class EquationsDirective(SphinxDirective):
    """```` ```{equations} ````: each equation of the book, with its place in the document, its code and its test."""

    def run(self) -> list[nodes.Node]:
        """The table, whose links are resolved like any others."""
        self.env.note_dependency(str(EQUATIONS))
        lines = table(tomllib.loads(EQUATIONS.read_text("utf8"))["equation"], edition(self.env.app))
        box = nodes.container(classes=["equations"])
        self.state.nested_parse(StringList(lines, str(EQUATIONS)), 0, box)
        return [box]


def table(equations: list[dict[str, Any]], lang: str) -> list[str]:
    """The lines of a Markdown table, a row an equation."""
    rows = [WORDS[lang]["head"], ["---"] * 4, *(cells(equation, lang) for equation in equations)]
    return [f"| {' | '.join(row)} |" for row in rows]


def cells(equation: dict[str, Any], lang: str) -> list[str]:
    """One row: the equation's number and name, where the document has it, what computes it, what checks it."""
    code = equation.get("code", "")
    computed = f"{{py:obj}}`{code.removeprefix('llmbook.')} <{code}>`" if code else WORDS[lang]["derivation"]
    if "uses" in equation:
        computed += f" ({breakable(equation['uses'])})"
    checked = breakable(equation.get("test", ""))
    if "cell" in equation:
        notebook, _, cell = equation["cell"].partition("#")
        chapter = ".".join(re.findall(r"\d+", notebook))
        checked = f"{{doc}}`{chapter} </{notebook.removesuffix('.ipynb')}>`, {WORDS[lang]['cell']} `{cell}`"
    document = ", ".join(f"§{place}" for place in equation["document"])
    return [f"{{eq}}`{equation['label']}` {equation[lang]}", document, computed, checked]


def breakable(name: str) -> str:
    """A long name as code that may be broken between its words; what is copied from the page is unbroken."""
    broken = re.sub(r"(::|[._])", r"\1<wbr>", name)
    return f'<code class="docutils literal notranslate">{broken}</code>' if name else ""


def keep_drawings(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Indented lines that stand alone in a docstring are an equation or a drawing: their line breaks count."""
    kept: list[str] = []
    for line in lines:
        before = next((text for text in reversed(kept) if text), "")
        if line.startswith("  ") and kept[-1:] == [""] and not before.startswith((" ", "..")) and before[-2:] != "::":
            kept += [".. code-block:: text", ""]
        kept.append(line)
    lines[:] = kept
    if what in ("attribute", "data", "property"):
        lines.insert(0, "\\")  # an escaped line break: napoleon takes a first line "The state: a tensor" for a type


@cache
def summaries() -> dict[str, str]:
    """Name -> the first paragraph of its docstring in Chinese."""
    return tomllib.loads(SUMMARIES.read_text("utf8"))


def translate(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """In the Chinese edition, a docstring's first paragraph in Chinese."""
    if edition(app) != "zh":
        return
    app.env.note_dependency(str(SUMMARIES))
    summary = summaries().get(name)
    if summary:
        end = lines.index("") if "" in lines else len(lines)
        literal = ["", "::"] if lines[end - 1].endswith("::") else []
        lines[:end] = [summary, *literal]


def skip(app: Sphinx, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out what is imported (else autodoc reads its source first), and the fields of a NamedTuple."""
    home = app.env.temp_data.get("autodoc:module")
    if (inspect.isroutine(obj) or inspect.isclass(obj)) and getattr(obj, "__module__", home) != home:
        return True
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def drop_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """A protocol is not called: it has no arguments to show."""
    return ("", "") if getattr(obj, "_is_protocol", False) else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.connect("config-inited", configure, priority=10)
    app.connect("autodoc-process-docstring", translate, priority=100)
    app.connect("autodoc-process-docstring", keep_drawings, priority=200)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", drop_signature)
    app.add_directive("equations", EquationsDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
