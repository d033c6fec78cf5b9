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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets as t

STATIC = Path(__file__).parent / "static"


_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.M)


def bundle(name: str) -> str:
    """The ES module of one explorer with the files that it imports put before it: it needs no other.

    They are ``base.js``, ``forward.js`` and whatever else stands beside them, which may import each other. Each comes
    once, after those that it imports; all share one scope, so no two may define the same name.
    """
    *shared, own = (_IMPORT.sub("", _source(file)) for file in _needed(name))
    return "".join(re.sub(r"^export ", "", code, flags=re.M) for code in shared) + own


def classic(name: str) -> str:
    """The same as a classic script, which hands the explorer to ``loader.js``: for pages, from ``file://`` too."""
    code = re.sub(r"^export default ", "const explorer = ", bundle(name), flags=re.M)
    return f'(function () {{\n"use strict";\n{code}\nllmExplorers.define("{name}", explorer);\n}})();\n'


def _needed(name: str, before: tuple[str, ...] = ()) -> tuple[str, ...]:
    """``before``, then what the file ``name`` imports and is not there yet, then the file itself."""
    if name in before:
        return before
    for other in _IMPORT.findall(_source(name)):
        before = _needed(other, before)
    return (*before, name)


def _source(name: str) -> str:
    return (STATIC / f"{name}.js").read_text("utf8")


def styles(*names: str) -> str:
    """The style sheets of the explorers ``names``, each once, after those of what they import; ``base.css`` first."""
    needed: tuple[str, ...] = ("base",)
    for name in names:
        needed = _needed(name, needed)
    sheets = [STATIC / f"{name}.css" for name in needed]
    return "\n".join(sheet.read_text("utf8") for sheet in sheets if sheet.stem in names or sheet.exists())


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

    def _held(self) -> dict[str, Any]:
        """The state as the JSON has it."""
        return {name: getattr(self, name) for name in self.state}

    def to_html(self) -> str:
        """The figure as HTML: its state, and a table that shows until (or unless) the module is mounted on it."""
        state = json.dumps(self._held(), ensure_ascii=False)
        safe = state.replace("<", "\\u003c")  # no state can close the script element
        script = f'<script type="application/json">{safe}</script>'
        return f'<div class="llm-explorer" data-explorer="{self.files}">{script}{self.fallback()}</div>'

    def scripts(self) -> list[str]:
        """Classic scripts that a page needs besides the explorer's module: what it would ask a kernel for."""
        return []

    def save_html(self, path: str | Path, *, title: str | None = None, lang: str | None = None) -> None:
        """The explorer, as it is now, in one HTML file that opens anywhere: :func:`llmbook.widgets.page.save_html`."""
        from .page import save_html

        save_html(path, self, title=title, lang=lang)

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
    """A trait that holds a non-empty rectangle of finite floats; takes lists, numpy arrays and tensors.

    Given ``digits``, it keeps so many significant ones of each number.
    """

    info_text = "a non-empty matrix of finite numbers"

    def __init__(self, default: Any = t.Undefined, *, digits: int | None = None, **kwargs: Any) -> None:
        super().__init__(default, **kwargs)
        self.digits = digits

    def validate(self, obj: Any, value: Any) -> list[list[float]]:
        """Convert ``value``; raises TraitError naming the trait and what is wrong."""
        rows = _items(self.name, value, "rows")
        matrix = [[_number(self.name, x) for x in _items(self.name, row, "numbers in each row")] for row in rows]
        widths = [len(row) for row in matrix]
        if len(set(widths)) > 1:
            raise t.TraitError(f"{self.name}: expected rows of one length, got lengths {widths}")
        return [[_significant(x, self.digits) for x in row] for row in matrix]


class Arrays(t.TraitType[dict[str, Any], Any]):
    """A trait that holds named vectors and matrices of finite floats, as a model's ``state_dict()`` does.

    Takes lists, numpy arrays and tensors. Given ``digits``, it keeps so many significant ones of each number.
    """

    info_text = "vectors and matrices of finite numbers by name"

    def __init__(self, default: Any = t.Undefined, *, digits: int | None = None, **kwargs: Any) -> None:
        super().__init__(default, **kwargs)
        self.digits = digits

    def validate(self, obj: Any, value: Any) -> dict[str, Any]:
        """Convert ``value``; raises TraitError naming the trait, the array and what is wrong."""
        if not isinstance(value, Mapping):
            raise t.TraitError(f"{self.name}: expected arrays by name, got {value!r}")
        return {name: self._array(f"{self.name}: {name}", array) for name, array in value.items()}

    def _array(self, name: str, value: Any) -> Any:
        items = _items(name, value, "numbers or rows")
        if any(isinstance(x, Iterable) for x in items):
            matrix = Matrix(digits=self.digits)
            matrix.name = name
            return matrix.validate(None, items)
        return [_significant(_number(name, x), self.digits) for x in items]


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


def _significant(x: float, digits: int | None) -> float:
    return x if digits is None else float(f"{x:.{digits}g}")


def _uniform(seed: int, place: int) -> float:
    """A number in [0, 1), the same in Python and on the page: two rounds of 32 bits mixed well."""
    return _mix(_mix(seed + 0x9E3779B9 & 0xFFFFFFFF) ^ (place + 1) * 0x9E3779B9 & 0xFFFFFFFF) / 2**32


def _mix(x: int) -> int:
    """MurmurHash3's finalizer (Appleby, 2011): a bijection of 32 bits; changing one changes about half of them."""
    x = (x ^ x >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    x = (x ^ x >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return x ^ x >> 16
