"""The reference of the package: every public name is on the page, once, documented, in both languages."""

import importlib
import inspect
import pickle
import pkgutil
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

import llmbook

ROOT = Path(__file__).parents[1]
SITE = ROOT / "book" / "site"
SUMMARIES = tomllib.loads((ROOT / "book" / "api_zh.toml").read_text("utf8"))

editions = pytest.mark.parametrize("edition", ["en", "zh"])


def modules():
    """The modules of the package; __main__ is the command line."""
    found = pkgutil.walk_packages(llmbook.__path__, "llmbook.")
    return ["llmbook", *(m.name for m in found if not m.name.endswith(".__main__"))]


def public():
    """Name and object of every module, of the classes and functions that it defines, and of their methods."""
    for name in modules():
        module = importlib.import_module(name)
        yield name, module
        for key, value in vars(module).items():
            own = getattr(value, "__module__", None) == name and not key.startswith("_")
            if own and (inspect.isclass(value) or inspect.isfunction(value)):
                yield f"{name}.{key}", value
                yield from methods(f"{name}.{key}", value)


def methods(name, cls):
    """The public methods and properties of a class that it says something about itself."""
    for key, value in vars(cls).items() if inspect.isclass(cls) else ():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not key.startswith("_") and inspect.isfunction(function):
            if function.__doc__ is None:  # then a base class must say it; of a protocol, nn.Module does
                assert inspect.getdoc(getattr(cls, key)) or cls._is_protocol, f"{name}.{key} has no docstring"
            else:
                yield f"{name}.{key}", function


@cache
def page(site, edition):
    return BeautifulSoup((site / edition / "book" / "api.html").read_text("utf8"), "html.parser")


@cache
def entries(site, edition):
    """Name -> the first paragraph that the page has for it, in the order of the page."""
    found = []
    for entry in page(site, edition).select("dt.sig[id], section[id^=module-]"):
        text = entry.find_next_sibling("dd") if entry.name == "dt" else entry
        found.append((entry["id"].removeprefix("module-"), text.find("p").get_text()))
    assert len(found) == len(dict(found)), "a name stands twice on the page"
    return dict(found)


@editions
def test_every_public_name_is_on_the_page(site, edition):
    assert [name for name, _ in public() if name not in entries(site, edition)] == []


def test_every_public_name_has_a_docstring():
    assert [name for name, value in public() if not (value.__doc__ or "").strip()] == []


def test_every_name_on_the_page_has_a_chinese_summary_and_no_other_has(site):
    assert sorted(SUMMARIES) == sorted(entries(site, "en")) == sorted(entries(site, "zh"))


def test_each_page_has_the_summaries_of_its_language(site):
    english, chinese = entries(site, "en"), entries(site, "zh")
    for name, summary in SUMMARIES.items():
        assert han(summary) and han(chinese[name]).startswith(han(summary)), name
        assert not han(english[name]), name
    for name, value in public():
        first = re.sub(r":\w+:`[^`]+`", "", inspect.cleandoc(value.__doc__).split("\n\n")[0])
        assert set(re.findall(r"\w+", first)) <= set(re.findall(r"\w+", english[name])), name


def han(text):
    """The Chinese characters of a text."""
    return "".join(re.findall(r"[\u3400-\u9fff]", text))


@editions
def test_sections_of_a_docstring_are_set_in_the_language_of_the_page(site, edition):
    entry = page(site, edition).find(id="llmbook.attention.attention").find_next_sibling("dd")
    words = {"en": ["Parameters:", "Returns:", "Raises:"], "zh": ["参数:", "返回:", "抛出:"]}[edition]
    assert [dt.get_text().replace("：", ":") for dt in entry.select("dl.field-list > dt")] == words


@editions
def test_equations_in_docstrings_keep_their_lines(site, edition):
    entry = page(site, edition).find(id="llmbook.recurrent.LSTMCell").find_next_sibling("dd")
    lines = entry.pre.get_text().splitlines()
    assert len(lines) == 6 and lines[4] == "c_t = f_t ⊙ c_{t−1} + i_t ⊙ g_t"


@editions
def test_pages_are_built_again_when_what_they_are_made_of_changes(site, edition, monkeypatch):
    monkeypatch.syspath_prepend(str(SITE))
    environment = pickle.loads((site.parent / "doctrees" / edition / "environment.pickle").read_bytes())
    used = {page: {(ROOT / path).name for path in paths} for page, paths in environment.dependencies.items()}
    assert "equations.toml" in used["book/equations"]
    assert {Path(importlib.import_module(name).__file__).name for name in modules()} <= used["book/api"]
    assert ("api_zh.toml" in used["book/api"]) == (edition == "zh")


SAMPLE = '''
"""A module."""
from __future__ import annotations
import torch

def good(x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, int]:
    """See :func:`good`, and the equation

        y = x
          = x

    Args:
        x, mask: what comes in.

    Returns:
        The same: and a number.

    Raises:
        TypeError, ValueError: never.
    """

def bad():
    """See :func:`no_function`, :class:`~llmbook.NoClass` and :mod:`llmbook.no_module`."""
'''


def test_a_broken_reference_fails_the_build_and_a_type_of_another_package_does_not(tmp_path):
    (tmp_path / "sample.py").write_text(SAMPLE)
    (tmp_path / "index.md").write_text("# T\n\n```{eval-rst}\n.. automodule:: sample\n```\n")
    (tmp_path / "conf.py").write_text(
        f"import sys; sys.path[:0] = [{str(SITE)!r}, {str(tmp_path)!r}]\n"
        "extensions = ['myst_parser', 'llmbook_reference']\nnitpicky = True\n"
    )
    run = [sys.executable, "-m", "sphinx", "-q", tmp_path, tmp_path / "out"]
    done = subprocess.run(run, capture_output=True, text=True)
    said = re.findall(r"WARNING: (.*)", done.stderr)
    assert [re.sub(r".* not found: ", "", line) for line in said] == [
        "no_function", "llmbook.NoClass", "llmbook.no_module"]  # fmt: skip
