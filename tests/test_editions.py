"""The tool that keeps the two editions equal: one thing changed at a time, and the place is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import editions
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from parity import features

ROOT = Path(__file__).resolve().parents[1]

ENGLISH = r"""(sec:scores)=
## Scores of the words

After {cite:t}`bahdanau2015`, in {cite:t}`vaswani2017` the words of a sentence look at each other,
see {eq}`eq-softmax` and [the preface](../book/index.md).

$$
a = \text{softmax}(q k^\top)
$$ (eq-softmax)

![Two curves that cross](images/curves.png)

| word | score |
|---|---|
| cat | 1 |

<details><summary>The answer to the question</summary>It is `1`.</details>

:::{note} A note on scores
They are numbers:

```python
score = 1
```
:::
"""

CHINESE = r"""(sec:scores)=
## 词的分数

见[前言](../book/index.md)和 {eq}`eq-softmax`：
在 {cite:t}`vaswani2017` 中，继 {cite:t}`bahdanau2015` 之后，句中各词互相关注。

$$
a = \text{归一}(q k^\top)
$$ (eq-softmax)

![相交的两条曲线](images/curves.png)

| 词 | 分数 |
|---|---|
| 猫 | 1 |

<details><summary>问题的答案</summary>是 `1`。</details>

:::{note} 关于分数
分数是数：

```python
score = 1
```
:::
"""

PAGE = """# The preface of the book

```{explorer} attention
{"q": [0.5], "tokens": ["cat", "milk"]}
```

```{math}
:label: eq-page
x = 1
```

```{figure} images/map.png
:alt: A map of the chapters
The caption of the map.
```
"""

CHINESE_PAGE = """---
title: 前言
---
# 本书的前言

```{explorer} attention
{"q": [0.5], "tokens": ["猫", "牛奶"]}
```

```{math}
:label: eq-page
x = 1
```

```{figure} images/map.png
:alt: 各章的地图
地图的说明。
```
"""

TOC = """format: jb-book
root: book/index
parts:
  - caption: {caption}
    chapters:
      - file: notebooks/one
        title: {title}
      - file: book/last
"""


PLOT = "display({'image/png': 'AAAA', 'text/plain': '<Figure>'}, raw=True)"


def notebook(prose: str) -> Any:
    """One notebook, already in its stored form."""
    hello = [new_output("stream", name="stdout", text="2\n")]
    drawn = [new_output("display_data", {"image/png": "AAAA", "text/plain": "<Figure>"})]
    words = ("A curve", "The curve rises") if prose == ENGLISH else ("一条曲线", "曲线上升")
    figure = {"mystnb": {"image": {"alt": words[0]}, "figure": {"name": "fig-curve", "caption": words[1]}}}
    cells = [
        new_markdown_cell(prose, id="scores"),
        new_code_cell("x = 1\nprint(x + 1)", id="add", outputs=hello),
        new_code_cell("x", id="show", outputs=[new_output("execute_result", {"text/plain": "1"}, execution_count=2)]),
        new_code_cell(PLOT, id="plot", outputs=drawn, metadata=figure),
    ]
    return editions.normalise(new_notebook(cells=cells))


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def edit(path: Path, action: Callable[[Any], object]) -> None:
    """Change a notebook and store it in normal form."""
    nb = nbformat.read(path, as_version=4)
    action(nb)
    path.write_text(editions.dumps(editions.normalise(nb)), "utf-8")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """Two small editions with no difference."""
    put(tmp_path / "notebooks/one.ipynb", editions.dumps(notebook(ENGLISH)))
    put(tmp_path / "zh/notebooks/one.ipynb", editions.dumps(notebook(CHINESE)))
    put(tmp_path / "_toc.yml", TOC.format(caption="Parts", title="One"))
    put(tmp_path / "zh/_toc.yml", TOC.format(caption="部分", title="一"))
    for name in ("index", "last"):
        put(tmp_path / f"book/{name}.md", PAGE)
        put(tmp_path / f"zh/book/{name}.md", CHINESE_PAGE)
        assert main(tmp_path, "accept", f"book/{name}.md") == 0
    assert main(tmp_path, "accept", "notebooks/one.ipynb") == 0
    return tmp_path


def main(root: Path, command: str, *arguments: str) -> int:
    return int(editions.main([command, "--root", str(root), *arguments]))


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def prose(old: str, new: str) -> Callable[[Path], None]:
    """A change of the Chinese prose cell."""

    def tamper(root: Path) -> None:
        def replace(nb: Any) -> None:
            assert old in nb.cells[0].source
            nb.cells[0].source = nb.cells[0].source.replace(old, new, 1)

        edit(root / "zh/notebooks/one.ipynb", replace)

    return tamper


def chinese(action: Callable[[Any], object]) -> Callable[[Path], None]:
    """A change of the Chinese notebook."""
    return lambda root: edit(root / "zh/notebooks/one.ipynb", action)


def both(action: Callable[[Any], object]) -> Callable[[Path], None]:
    """The same change of both notebooks, the Chinese accepted afterwards."""

    def tamper(root: Path) -> None:
        edit(root / "notebooks/one.ipynb", action)
        edit(root / "zh/notebooks/one.ipynb", action)
        assert main(root, "accept", "notebooks/one.ipynb") == 0

    return tamper


def page(old: str, new: str) -> Callable[[Path], None]:
    """A change of a Chinese page."""
    return lambda root: change(root / "zh/book/index.md", old, new)


def stored(action: Callable[[Any], object], side: str = "zh/") -> Callable[[Path], None]:
    """A change of the stored JSON as it is, without normalising."""

    def tamper(root: Path) -> None:
        path = root / side / "notebooks/one.ipynb"
        nb = json.loads(path.read_text("utf-8"))
        action(nb)
        path.write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")

    return tamper


ERROR = new_output("error", ename="ValueError", evalue="bad", traceback=[])
CELL = "zh/notebooks/one.ipynb: cell scores"
TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    # code and outputs
    "code": (chinese(lambda nb: nb.cells[1].update(source="x = 2")), "zh/notebooks/one.ipynb: cell add: source"),
    "output": (chinese(lambda nb: nb.cells[1].outputs[0].update(text="3\n")), "cell add: outputs"),
    "tags": (chinese(lambda nb: nb.cells[1].metadata.update(tags=["hide-cell"])), "cell add: tag"),
    "cell order": (chinese(lambda nb: nb.cells.reverse()), "zh/notebooks/one.ipynb: order of cell"),
    "cell missing": (chinese(lambda nb: nb.cells.pop()), "cell differs: English 'plot', Chinese '(nothing)'"),
    "cell extra": (
        chinese(lambda nb: nb.cells.append(new_markdown_cell("多余", id="more"))),
        "English '(nothing)', Chinese 'more'",
    ),
    "cell type": (
        chinese(lambda nb: nb.cells.__setitem__(2, new_markdown_cell("x", id="show"))),
        "cell show: cell_type",
    ),
    # prose
    "English prose changed": (
        lambda root: edit(root / "notebooks/one.ipynb", lambda nb: nb.cells[0].update(source=ENGLISH + "\nMore.")),
        f"{CELL}: en_hash",
    ),
    "never accepted": (chinese(lambda nb: nb.cells[0].metadata.pop("en_hash")), f"{CELL}: no en_hash"),
    "untranslated": (chinese(lambda nb: nb.cells[0].update(source=ENGLISH)), f"{CELL}: not translated"),
    "other English": (
        chinese(lambda nb: nb.cells[0].update(source=ENGLISH.replace("cat", "dog"))),
        f"{CELL}: not translated",
    ),
    "untranslated with a Chinese example": (
        both(lambda nb: nb.cells[0].update(source="The two words 你好 are a greeting")),
        f"{CELL}: not translated",
    ),
    "equation": (prose("k^\\top", "k"), f"{CELL}: display equation differs"),
    "equation label": (prose("$$ (eq-softmax)", "$$ (eq-max)"), f"{CELL}: display equation differs"),
    "label": (prose("(sec:scores)=", "(sec:fen)="), f"{CELL}: label differs"),
    "citation": (prose("{cite:t}`vaswani2017`", "{cite:t}`vaswani2018`"), f"{CELL}: citation differs"),
    "cross-reference": (prose("{eq}`eq-softmax`", "{eq}`eq-other`"), f"{CELL}: cross-reference differs"),
    "link": (prose("../book/index.md", "../book/last.md"), f"{CELL}: link differs"),
    "heading": (prose("## 词", "### 词"), f"{CELL}: heading differs"),
    "image": (prose("images/curves.png", "images/lines.png"), f"{CELL}: image differs"),
    "alt text": (prose("![相交的两条曲线]", "![]"), f"{CELL}: image without alt text"),
    "table row": (prose("| 猫 | 1 |\n", ""), f"{CELL}: table row differs"),
    "details": (prose("<details>", "<div>"), f"{CELL}: <details> differs"),
    "fence": (prose("score = 1", "score = 2"), f"{CELL}: code differs"),
    "directive": (prose(":::{note}", ":::{tip}"), f"{CELL}: directive differs"),
    # pages
    "figure name": (
        chinese(lambda nb: nb.cells[3].metadata.mystnb.figure.update(name="fig-x")),
        "cell plot: figure name",
    ),
    "figure without words": (chinese(lambda nb: nb.cells[3].metadata.pop("mystnb")), "cell plot: a figure without alt"),
    "figure untranslated": (
        chinese(lambda nb: nb.cells[3].metadata.mystnb.image.update(alt="A curve")),
        "cell plot: alt text or caption not translated",
    ),
    "page missing": (lambda root: (root / "zh/book/index.md").unlink(), "zh/book/index.md is missing"),
    "page extra": (lambda root: put(root / "zh/book/new.md", "新"), "zh/book/new.md has no English counterpart"),
    "page changed": (
        lambda root: change(root / "book/index.md", "The caption", "A caption"),
        "zh/book/index.md: en_hash",
    ),
    "page explorer": (page("0.5", "0.6"), "zh/book/index.md: code differs"),
    "page equation": (page("x = 1", "x = 2"), "zh/book/index.md: display equation differs"),
    "page figure": (page("map.png", "atlas.png"), "zh/book/index.md: image differs"),
    "page alt text": (page(":alt: 各章的地图\n", ""), "zh/book/index.md: image without alt text"),
    "page untranslated": (
        lambda root: put(root / "zh/book/index.md", editions.with_hash(PAGE, editions.digest(PAGE))),
        "zh/book/index.md: not translated",
    ),
    # the house
    "toc file": (
        lambda root: put(root / "zh/_toc.yml", TOC.format(caption="部分", title="一").replace("one", "two")),
        "zh/_toc.yml",
    ),
    "toc option": (lambda root: change(root / "zh/_toc.yml", "jb-book", "jb-article"), "zh/_toc.yml: line"),
    "toc missing": (lambda root: (root / "zh/_toc.yml").unlink(), "zh/_toc.yml"),
    "notebook missing": (lambda root: (root / "zh/notebooks/one.ipynb").unlink(), "zh/notebooks/one.ipynb is missing"),
    "notebook extra": (
        lambda root: put(root / "zh/notebooks/two.ipynb", "{}"),
        "zh/notebooks/two.ipynb has no English counterpart",
    ),
    "notebook broken": (lambda root: put(root / "notebooks/one.ipynb", "<<<<"), "notebooks/one.ipynb is not a valid"),
    "no notebook": (lambda root: (root / "notebooks/one.ipynb").unlink(), "notebooks/ holds no *.ipynb"),
    "id twice": (
        stored(lambda nb: nb["cells"][2].update(id="add")),
        "zh/notebooks/one.ipynb has more than one cell with the id add",
    ),
    # the stored form
    "widgets": (stored(lambda nb: nb["metadata"].update(widgets={})), "zh/notebooks/one.ipynb is not normalised"),
    "kernel": (stored(lambda nb: nb["metadata"]["kernelspec"].update(name="mine"), ""), "notebooks/one.ipynb is not"),
    "no ids": (stored(lambda nb: nb["cells"][0].pop("id"), ""), "notebooks/one.ipynb is not normalised"),
    "timestamps": (stored(lambda nb: nb["cells"][1]["metadata"].update(execution={}), ""), "one.ipynb is not normal"),
    "counts": (stored(lambda nb: nb["cells"][1].update(execution_count=7), ""), "one.ipynb is not normalised"),
    # rules for code
    "long code": (
        both(lambda nb: nb.cells[1].update(source="x = 1\n" * 26)),
        "notebooks/one.ipynb: cell add: 26 lines",
    ),
    "error output": (both(lambda nb: nb.cells[1].update(outputs=[ERROR])), "cell add: a stored error output"),
    "ignored by tag": (
        both(lambda nb: nb.cells[1].metadata.update(tags=["nbval-ignore-output"])),
        "cell add: nbval-ignore without an assert",
    ),
    "ignored by comment": (
        both(lambda nb: nb.cells[1].update(source="# NBVAL_IGNORE_OUTPUT\nx = 1  # assert")),
        "cell add: NBVAL_IGNORE without an assert",
    ),
}


def test_two_equal_editions_have_no_difference(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(book, "parity") == 0
    assert capsys.readouterr().out == "parity: 1 notebooks, 2 pages, no difference\n"


@pytest.mark.parametrize("name", TAMPERED)
def test_parity_names_the_place(book: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    tamper, place = TAMPERED[name]
    tamper(book)
    capsys.readouterr()
    assert main(book, "parity") == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(place in line for line in lines), lines


def test_an_order_in_the_contents_is_a_difference(book: Path) -> None:
    moved = "      - file: book/last\n      - file: notebooks/one\n        title: 一\n"
    put(book / "zh/_toc.yml", TOC.format(caption="部分", title="一").partition("      -")[0] + moved)
    assert [line for line in editions.parity(book) if line.startswith("zh/_toc.yml: order of line")]


def test_an_asserted_cell_may_be_ignored(book: Path) -> None:
    both(lambda nb: nb.cells[1].update(source="# NBVAL_IGNORE_OUTPUT\nassert 1 + 1 == 2"))(book)
    assert editions.parity(book) == []


def test_names_and_formulas_need_no_translation(book: Path) -> None:
    both(lambda nb: nb.cells.append(new_markdown_cell("## BERT and GPT\n\n$softmax of the scores$", id="name")))(book)
    assert editions.parity(book) == []


def test_an_example_of_markup_is_code_and_not_a_reference() -> None:
    example = "\n".join(["````md", "# no heading", "```{note}", "{cite}`nobody`", "```", "````", "and `$$` in code"])
    found = features(example)
    assert found["heading"] == found["citation"] == found["directive"] == found["display equation"] == []
    assert found["code"] == ["md\n# no heading\n```{note}\n{cite}`nobody`\n```\n"]


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("```{note}\nx\n```\n\n```\n# plain\n```\n# Title", "heading", ["#"]),
        ("````{hint}\n```{math}\nx\n```\n````\n:::{tip}\n:::", "directive", ["hint", "math", "tip"]),
        ("```{math}\n:label: a\nx\n```\n\n$$y$$ (b) and $z$", "display equation", ["$$:label:ax$$", "$$y$$(b)"]),
        ("{ref}`the *part* <a>`, {numref}`Fig. %s <b>`, {doc}`c`, {term}`word`", "cross-reference", ["a", "b", "c"]),
        ("{cite:t}`{see}a{section 3}` and {cite}`b, c`", "citation", ["a", "b,c"]),
        ("[x](a.md#part), [y](#z), [far](https://x.org/a.md), [f](b.zip)", "link", ["a.md", "#"]),
        ("![the [M]](a.png) <img src='b.png' alt='b'>\n```{image} c.png\n```", "image", ["a.png", "b.png", "c.png"]),
        ("![ ](a.png) <img src='b'> <img src='c' alt='c'>", "no alt", ["![ ](a.png", "<img src='b'"]),
    ],
)
def test_what_a_text_holds(text: str, kind: str, found: list[str]) -> None:
    assert features(text)[kind] == found


def test_words_inside_an_equation_are_translated_and_spaces_do_not_count(book: Path) -> None:
    prose("a = \\text{归一}(q k^\\top)", "a=\\text{归一 $x_{i}$}(q  k^\\top)")(book)
    assert editions.parity(book) == []


# --- sync


def test_sync_repairs_code_outputs_and_form(book: Path) -> None:
    before = snapshot(book)
    chinese(lambda nb: (nb.cells.reverse(), nb.cells[0].update(source="x = 2", outputs=[])))(book)
    stored(lambda nb: nb["metadata"].update(widgets={}))(book)
    stored(lambda nb: nb["metadata"].update(widgets={}), "")(book)
    assert main(book, "sync") == 0
    assert snapshot(book) == before


def test_sync_inserts_new_prose_that_parity_refuses_until_it_is_translated(book: Path) -> None:
    new = new_markdown_cell("A new paragraph of English prose.", id="new", metadata={"en_hash": "0123"})
    edit(book / "notebooks/one.ipynb", lambda nb: nb.cells.insert(1, new))
    assert main(book, "sync") == 0
    lines = editions.parity(book)
    assert any("cell new: no en_hash" in line for line in lines)
    assert any("cell new: not translated" in line for line in lines)
    edit(book / "zh/notebooks/one.ipynb", lambda nb: nb.cells[1].update(source="新的一段。"))
    assert main(book, "accept", "notebooks/one.ipynb", "new") == 0
    assert editions.parity(book) == []


def test_sync_makes_a_notebook_that_is_missing(book: Path) -> None:
    (book / "zh/notebooks/one.ipynb").unlink()
    assert main(book, "sync") == 0
    assert json.loads((book / "zh/notebooks/one.ipynb").read_text("utf-8"))["cells"][0]["metadata"] == {}


@pytest.mark.parametrize(
    "remove",
    [
        lambda nb: nb.cells.pop(0),
        lambda nb: nb.cells.__setitem__(0, new_code_cell("x", id="scores")),
    ],
    ids=["cell removed", "prose became code"],
)
def test_sync_throws_no_chinese_away_unasked(
    book: Path, capsys: pytest.CaptureFixture[str], remove: Callable[[Any], object]
) -> None:
    edit(book / "notebooks/one.ipynb", remove)
    before = snapshot(book)
    assert main(book, "sync") == 1
    assert "zh/notebooks/one.ipynb: scores left the English" in capsys.readouterr().err
    assert snapshot(book) == before
    assert main(book, "sync", "--drop") == 0
    assert editions.parity(book) == []


# --- accept


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# 标题\n", '---\nen_hash: "{}"\n---\n# 标题\n'),
        ("---\ntitle: 前言\n---\n\n# 标题", '---\ntitle: 前言\nen_hash: "{}"\n---\n\n# 标题'),
        ("---\nen_hash: 0123\ntitle: x  \n---\n正文\n\n---\n", '---\nen_hash: "{}"\ntitle: x  \n---\n正文\n\n---\n'),
        ("---\r\na: 1\r\n---\r\n正文\r\n", '---\r\na: 1\r\nen_hash: "{}"\r\n---\r\n正文\r\n'),
        ("正文\n\n---\n\nen_hash: 0123\n", '---\nen_hash: "{}"\n---\n正文\n\n---\n\nen_hash: 0123\n'),
    ],
)
def test_accept_keeps_the_rest_of_a_page(book: Path, before: str, after: str) -> None:
    path = book / "zh/book/index.md"
    path.write_bytes(before.encode())
    for _ in range(2):  # accepting twice changes nothing more
        assert main(book, "accept", "book/index.md") == 0
        assert path.read_bytes().decode() == after.format(editions.digest(PAGE))


def test_accept_only_the_cells_that_are_named(book: Path) -> None:
    more = new_markdown_cell("注", id="note")
    for side in ("notebooks", "zh/notebooks"):
        edit(book / side / "one.ipynb", lambda nb: nb.cells.append(more))
    edit(book / "notebooks/one.ipynb", lambda nb: nb.cells[0].update(source=ENGLISH + "\nMore."))
    assert main(book, "accept", "notebooks/one.ipynb", "note") == 0
    assert [line.partition(": en_hash")[0] for line in editions.parity(book)] == [CELL]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["notebooks/one.ipynb", "add"], "add is not a markdown cell of both editions"),
        (["notebooks/one.ipynb", "nothing"], "nothing is not a markdown cell of both editions"),
        (["notebooks/two.ipynb"], "zh/notebooks/two.ipynb cannot be read"),
        (["book/index.md", "scores"], "book/index.md is a page"),
        (["zh/book/index.md"], "zh/book/index.md is neither"),
        (["_toc.yml"], "_toc.yml is neither"),
    ],
)
def test_accept_refuses(book: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    before = snapshot(book)
    capsys.readouterr()
    assert main(book, "accept", *arguments) == 1
    complaint = capsys.readouterr().err
    assert message in complaint and complaint.count("\n") == 1
    assert snapshot(book) == before


# --- execute


def test_execute_twice_changes_no_byte(book: Path) -> None:
    path = book / "notebooks/one.ipynb"
    source = "import pathlib, sys\nprint(pathlib.Path.cwd().name)\nprint(1)\nprint(2, file=sys.stderr)"
    edit(path, lambda nb: nb.cells[1].update(source=source, outputs=[]))
    assert main(book, "execute", "notebooks/one.ipynb") == 1  # x is gone
    edit(path, lambda nb: nb.cells[1].update(source="x = 1\n" + source))
    assert main(book, "execute", "notebooks/one.ipynb") == 0
    outputs = json.loads(path.read_text("utf-8"))["cells"][1]["outputs"]
    streams = {output["name"]: "".join(output["text"]) for output in outputs}
    assert streams == {"stdout": "notebooks\n1\n", "stderr": "2\n"}
    assert editions.parity(book) == []
    once, written = snapshot(book), path.stat().st_mtime_ns
    assert main(book, "execute") == 0
    assert snapshot(book) == once and path.stat().st_mtime_ns == written


@pytest.mark.parametrize("tags", [[], ["raises-exception"]])
def test_execute_of_a_failing_notebook_writes_nothing(
    book: Path, capsys: pytest.CaptureFixture[str], tags: list[str]
) -> None:
    failing = new_code_cell("print(0)\nraise ValueError('no such word\\nat all')", id="fail", metadata={"tags": tags})
    edit(book / "notebooks/one.ipynb", lambda nb: nb.cells.append(failing))
    before = snapshot(book)
    assert main(book, "execute") == 1
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert "notebooks/one.ipynb: cell fail raises ValueError: no such word; nothing was written" in complaint
    assert snapshot(book) == before


def test_a_write_that_is_cut_off_leaves_the_old_file(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*paths: Path) -> None:
        raise KeyboardInterrupt

    change(book / "book/index.md", "The caption", "A caption")
    before = snapshot(book)
    monkeypatch.setattr(editions.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        main(book, "accept", "book/index.md")
    assert snapshot(book) == before


def test_normal_form_drops_what_changes_from_run_to_run() -> None:
    view, words = "application/vnd.jupyter.widget-view+json", "text/plain"
    stream = [new_output("stream", name="stdout", text=text) for text in ("a", "b")]
    bundles: list[dict[str, Any]] = [{view: {}, words: "w"}, {view: {}}]
    shown = [new_output("display_data", bundle) for bundle in bundles]
    result = new_output("execute_result", {words: "1"}, execution_count=9)
    cell = new_code_cell("x", outputs=[*stream, *shown, result], execution_count=9, metadata={"execution": {}})
    nb = editions.normalise(new_notebook(cells=[cell], metadata={"widgets": {}, "title": "kept"}))
    outputs = nb.cells[0].outputs
    assert [output.get("text") or list(output.data) for output in outputs] == ["ab", [words], [view], [words]]
    assert nb.cells[0].execution_count == outputs[-1].execution_count == 1
    assert nb.cells[0].metadata == {} and set(nb.metadata) == {"kernelspec", "language_info", "title"}
    assert editions.dumps(editions.normalise(nb)) == editions.dumps(nb)


def test_the_two_editions_of_this_book_are_equal() -> None:
    assert editions.parity(ROOT) == []
