"""What every explorer shares on the Python side: typed state, a live widget, and the same figure as plain HTML.

An explorer is three files: ``name.py`` (its state, as traits), ``static/name.js`` (it computes and draws) and
``static/name.css``. JupyterLab shows the live widget, whose traits Python reads and sets. Everywhere else, on the
website for one, :meth:`Explorer.to_html` stands in: the state as JSON, on which the site's loader mounts the very
same module, with a static table for readers that run no script.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets as t

STATIC = Path(__file__).parent / "static"


def bundle(name: str) -> str:
    """The ES module of one explorer with ``base.js`` put in the place of its import: it needs no other file."""
    base = re.sub(r"^export ", "", (STATIC / "base.js").read_text("utf8"), flags=re.M)
    code = (STATIC / f"{name}.js").read_text("utf8")
    return re.sub(r'^import \{[^}]*\} from "\./base\.js";\n', lambda _: base, code, count=1, flags=re.M)


def styles(*names: str) -> str:
    """The style sheets of the explorers ``names``, the shared one first."""
    return "\n".join((STATIC / f"{name}.css").read_text("utf8") for name in ("base", *names))


class Explorer(anywidget.AnyWidget):
    """Base class: a subclass says ``files = "name"`` for its ``static/name.js`` and ``static/name.css``."""

    files: ClassVar[str]  #: the name of its module and style sheet
    state: ClassVar[tuple[str, ...]] = ()  #: the traits that the figure needs, in the order of the JSON

    lang = t.Enum(["", "en", "zh"], "", help="language of the labels; empty: that of the page").tag(sync=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "files" in cls.__dict__:
            cls._esm, cls._css = bundle(cls.files), styles(cls.files)
        super().__init_subclass__(**kwargs)

    @t.default("lang")
    def _lang_of_the_edition(self) -> str:
        return "zh" if Path.cwd().match("zh/notebooks") else ""

    def fallback(self) -> str:
        """A static table of the figure, for readers without scripts."""
        raise NotImplementedError

    def to_html(self) -> str:
        """The figure as HTML: its state, and a table that shows until (or unless) the module is mounted on it."""
        state = json.dumps({name: getattr(self, name) for name in self.state}, ensure_ascii=False)
        safe = state.replace("<", "\\u003c")  # no state can close the script element
        script = f'<script type="application/json">{safe}</script>'
        return f'<div class="llm-explorer" data-explorer="{self.files}">{script}{self.fallback()}</div>'

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is not None:
            bundle[0].update({"text/html": self.to_html(), "text/plain": repr(self)})
        return bundle


def table(*rows: Sequence[str]) -> str:
    """An HTML table whose first row and first column are headers."""
    cells = [
        "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for tag, cell in zip(tags, row, strict=True))
        for tags, row in ((["th"] * len(row) if i == 0 else ["th", *["td"] * (len(row) - 1)], row)
                          for i, row in enumerate(rows))
    ]  # fmt: skip
    return '<table class="llm-fallback">' + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"


class Vector(t.TraitType[list[float], Any]):
    """A trait that holds a non-empty list of finite floats; takes lists, numpy arrays and tensors."""

    info_text = "a non-empty vector of finite numbers"

    def validate(self, obj: Any, value: Any) -> list[float]:
        """Convert ``value``; raises TraitError naming the trait and what is wrong."""
        return [_number(self.name, x) for x in _items(self.name, value, "numbers")]


class Matrix(t.TraitType[list[list[float]], Any]):
    """A trait that holds a non-empty rectangle of finite floats; takes lists, numpy arrays and tensors."""

    info_text = "a non-empty matrix of finite numbers"

    def validate(self, obj: Any, value: Any) -> list[list[float]]:
        """Convert ``value``; raises TraitError naming the trait and what is wrong."""
        rows = _items(self.name, value, "rows")
        matrix = [[_number(self.name, x) for x in _items(self.name, row, "numbers in each row")] for row in rows]
        widths = [len(row) for row in matrix]
        if len(set(widths)) > 1:
            raise t.TraitError(f"{self.name}: expected rows of one length, got lengths {widths}")
        return matrix


class Pairs(t.TraitType[list[tuple[str, str]], Any]):
    """A trait that holds a non-empty list of pairs of non-empty strings."""

    info_text = "a non-empty list of pairs of non-empty strings"

    def validate(self, obj: Any, value: Any) -> list[tuple[str, str]]:
        """Convert ``value``; raises TraitError naming the trait and what is wrong."""
        return [_pair(self.name, x) for x in _items(self.name, value, "pairs of strings")]


def _items(name: str | None, value: Any, what: str) -> list[Any]:
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | dict):
        raise t.TraitError(f"{name}: expected {what}, got {value!r}")
    if not (items := list(value)):
        raise t.TraitError(f"{name}: expected {what}, got none")
    return items


def _pair(name: str | None, value: Any) -> tuple[str, str]:
    whole = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(x, str) and x for x in value)
    if not whole:
        raise t.TraitError(f"{name}: expected pairs of non-empty strings, got {value!r}")
    return str(value[0]), str(value[1])


def _number(name: str | None, value: Any) -> float:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise t.TraitError(f"{name}: expected finite numbers, got {value!r}")
    return float(value)
