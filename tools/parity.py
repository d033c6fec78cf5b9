"""What the two editions of the book have to share, and every place where they do not."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from nbformat import NotebookNode
from stored import EN_HASH, FOLDERS, FRONT, EditionError, digest, dumps, files, load, normalise, read

MAX_CODE_LINES = 25
MAX_WORDS = 3  # prose with more English words than this has to be translated

# --- what a translation must leave as it is

FENCE = re.compile(r"^[ \t>]*(`{3,}+|~{3,}+|:{3,}+)[ \t]*([^\n`]*)\n(.*?)(?:^[ \t>]*\1[`~:]*[ \t]*$|\Z)", re.S | re.M)
NOT_TEXT = {"explorer", "code", "code-block", "code-cell", "literalinclude", "include", "toctree", "bibliography"}
DISPLAY = re.compile(
    r"\$\$.+?\$\$(?:[ \t]*\([\w:.-]+\))?|\\begin\{(align|equation|gather|multline)\*?\}.+?\\end\{\1\*?\}", re.S
)
WORDS_IN_MATH = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt)?|mbox)\s*\{(?:[^{}]|\{[^{}]*\})*\}|\s+")
INLINE_CODE = re.compile(r"(\{[\w:+-]+\}`[^`]+`)|(?<!`)(`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)\2(?!`)", re.S)  # but a role
IMAGE_DIRECTIVE = r"^:::\{(?:image|figure)\}[ \t]*"
IN_ORDER = {
    "heading": r"^[ \t>]*(#{1,6})[ \t]",
    "directive": r"^:::\{([\w:+-]+)\}",
    "label": r"^[ \t>]*\(([^()\s]+)\)=[ \t]*$|^[ \t>]*:(?:label|name):[ \t]*(\S+)",
    "image": rf"{IMAGE_DIRECTIVE}(\S+)|!\[(?:[^][]|\[[^]]*\])*\]\(\s*<?([^)\s>]+)|<img\b[^>]*\bsrc=[\"']([^\"']*)",
    "<details>": r"(<details)\b",
    "table row": r"^[ \t>]*(\||\* - )|(<tr)\b",
}
IN_ANY_ORDER = {  # a translated sentence may turn these round
    "citation": r"\{cite[\w:]*\}`([^`]+)`",
    "cross-reference": r"\{(?:ref|eq|numref|doc|download|prf:ref)\}`(?:[^`<]*<)?([^`>]+)>?`",
    "link": r"\]\(\s*<?(#|(?!https?:)[^)\s>#]+\.(?:md|ipynb|png|jpe?g|gif|svg|webp)(?=[#)\s>]))",
}
NO_ALT = (
    r"(!\[\s*\]\([^)]*)|(<img\b(?![^>]*\balt=[\"'][^\"'>]*\S)[^>]*)|"
    rf"({IMAGE_DIRECTIVE}.*)(?!(?:\n[ \t]*:.*)*\n[ \t]*:alt:[ \t]*\S)$"
)
NOT_PROSE = re.compile(
    r"^:::\{.*|^[ \t]*:[\w-]+:.*|^\(\S+\)=|\{[\w:+-]+\}`[^`]+`|\$[^$\n]+\$|\]\([^)]*\)|<[^>]+>|https?:\S+", re.M
)


def features(text: str) -> dict[str, list[str]]:
    """What two editions of a text have to share, by kind; and its `word`s and Chinese characters (`han`)."""
    code: list[str] = []
    prose = INLINE_CODE.sub(r"\1", unfence(text, code))
    equations = [WORDS_IN_MATH.sub("", match[0]) for match in DISPLAY.finditer(prose)]
    prose = DISPLAY.sub(" ", prose)
    found = {"code": code, "display equation": equations}
    for kind, pattern in {**IN_ORDER, **IN_ANY_ORDER, "no alt": NO_ALT}.items():
        found[kind] = ["".join(filter(None, match.groups())) for match in re.finditer(pattern, prose, re.M)]
    found["citation"] = [re.sub(r"\{[^}]*\}|\s", "", keys) for keys in found["citation"]]  # {section 3} is prose
    rest = NOT_PROSE.sub(" ", prose)
    return found | {"word": re.findall(r"[A-Za-z]{2,}", rest), "han": re.findall(r"[\u3400-\u9fff]", rest)}


def unfence(text: str, code: list[str]) -> str:
    """The text with its code taken out, its {math} as $$ and its other directives open, each under `:::{name}`."""

    def opened(fence: re.Match[str]) -> str:
        info, body = fence[2].strip(), fence[3]
        directive = re.match(r"\{([\w:+-]+)\}", info)
        if directive and directive[1] == "math":
            return f":::{{math}}\n$${info[6:]} {body}$$"
        if directive and directive[1] not in NOT_TEXT:
            return f":::{info}\n{unfence(body, code)}"
        if directive and directive[1] == "explorer":
            body = without_words(body)
        code.append(info + "\n" + re.sub(r"^[ \t]*:caption:.*\n", "", body, flags=re.M))
        return f":::{directive[0]}" if directive else ""

    return FENCE.sub(opened, text)


def without_words(arguments: str) -> str:
    """The JSON of an explorer without its texts (tokens and labels are translated); as it is if it is no JSON."""

    def blank(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: blank(value) for key, value in node.items()}
        return [blank(value) for value in node] if isinstance(node, list) else "" if isinstance(node, str) else node

    try:
        return json.dumps(blank(json.loads(arguments)))
    except ValueError:
        return arguments


# --- parity


def parity(root: Path) -> list[str]:
    """Every difference between the editions, one line each."""
    lines = list(compare_tocs(root))
    for folder, compare in (("notebooks", compare_notebooks), ("book", compare_pages)):
        english, chinese = ({path.name for path in files(side, folder)} for side in (root, root / "zh"))
        lines += [] if english else [f"{folder}/ holds no {FOLDERS[folder]}"]
        lines += [f"zh/{folder}/{name} is missing" for name in sorted(english - chinese)]
        lines += [f"zh/{folder}/{name} has no English counterpart" for name in sorted(chinese - english)]
        for name in sorted(english & chinese):
            try:
                lines += compare(root, f"{folder}/{name}")
            except EditionError as error:
                lines.append(str(error))
    return [line.replace(f"{root}{os.sep}", "") for line in lines]


def differs(place: str, what: str, english: str, chinese: str) -> str:
    """One line that shows both sides from shortly before the first difference."""
    pairs = enumerate(zip(english, chinese, strict=False))
    start = max(0, next((i for i, (a, b) in pairs if a != b), min(len(english), len(chinese))) - 20)
    ours, theirs = (text[start : start + 60] or "(nothing)" for text in (english, chinese))
    return f"{place}: {what} differs: English {ours!r}, Chinese {theirs!r}"


def compare_lists(place: str, what: str, english: list[str], chinese: list[str], ordered: bool = True) -> Iterator[str]:
    """What one list has and the other has not, or else the first place where the order differs."""
    ours, theirs = list(Counter(english) - Counter(chinese)), list(Counter(chinese) - Counter(english))
    for number in range(max(len(ours), len(theirs))):
        yield differs(place, what, "".join(ours[number : number + 1]), "".join(theirs[number : number + 1]))
    if ordered and english != chinese and not ours and not theirs:
        yield differs(place, f"order of {what}", *next((a, b) for a, b in zip(english, chinese, strict=True) if a != b))


def compare_tocs(root: Path) -> Iterator[str]:
    """Differences of the tables of contents other than the words of titles."""
    lines = []
    for path in (root / "_toc.yml", root / "zh" / "_toc.yml"):
        try:
            lines.append(yaml.safe_dump(without_titles(yaml.safe_load(load(path)))).splitlines())
        except (EditionError, yaml.YAMLError) as error:
            yield f"{path}: {' '.join(str(error).replace(f'{path} ', '').split())}"
            return
    yield from compare_lists("zh/_toc.yml", "line", *lines)


def without_titles(node: Any) -> Any:
    """A table of contents with the words of titles and captions blanked."""
    if isinstance(node, dict):
        return {key: "" if key in {"title", "caption"} else without_titles(value) for key, value in node.items()}
    return [without_titles(value) for value in node] if isinstance(node, list) else node


def compare_notebooks(root: Path, name: str) -> Iterator[str]:
    """Differences of a notebook and its Chinese counterpart, and what is wrong with either alone."""
    english, chinese = read(root / name), read(root / "zh" / name)
    for place, nb in ((name, english), (f"zh/{name}", chinese)):
        if dumps(normalise(deepcopy(nb))) != load(root / place):
            yield f"{place} is not normalised: run sync"
        for cell in nb.cells:
            yield from check_cell(f"{place}: cell {cell.id}", cell)
    ours, theirs = ({cell.id: cell for cell in nb.cells} for nb in (english, chinese))
    yield from compare_lists(f"zh/{name}", "cell", list(ours), list(theirs))
    for cell in english.cells:
        if cell.id in theirs:
            yield from compare_cells(f"zh/{name}: cell {cell.id}", cell, theirs[cell.id])


def check_cell(place: str, cell: NotebookNode) -> Iterator[str]:
    """What is wrong with one cell by itself."""
    if cell.cell_type == "markdown":
        yield from (f"{place}: image without alt text: {image}" for image in features(cell.source)["no alt"])
    if cell.cell_type != "code":
        return
    if (length := len(cell.source.splitlines())) > MAX_CODE_LINES:
        yield f"{place}: {length} lines of code, more than {MAX_CODE_LINES}"
    if any("image/png" in output.get("data", {}) for output in cell.outputs) and not all(figure_words(cell)):
        yield f"{place}: a figure without alt text or caption (metadata mystnb.image.alt, mystnb.figure.caption)"
    if any(output.output_type == "error" for output in cell.outputs):
        yield f"{place}: a stored error output"
    ignored = re.search(r"nbval[-_](ignore|skip)", " ".join([*cell.metadata.get("tags", []), cell.source]), re.I)
    if ignored and not re.search(r"^[^#\n]*\bassert", cell.source, re.M):
        yield f"{place}: {ignored[0]} without an assert"


def figure_words(cell: NotebookNode) -> tuple[str, str]:
    """Alt text and caption of the figure that a code cell draws."""
    mystnb = cell.metadata.get("mystnb", {})
    return mystnb.get("image", {}).get("alt", ""), mystnb.get("figure", {}).get("caption", "")


def compare_cells(place: str, english: NotebookNode, chinese: NotebookNode) -> Iterator[str]:
    """Differences of two cells with the same id."""
    prose = english.cell_type == chinese.cell_type == "markdown"
    for key in ["cell_type"] if prose else ["cell_type", "source", "outputs", "execution_count"]:
        if english.get(key) != chinese.get(key):
            yield differs(place, key, *(json.dumps(cell.get(key), ensure_ascii=False) for cell in (english, chinese)))
    yield from compare_lists(place, "tag", english.metadata.get("tags", []), chinese.metadata.get("tags", []))
    names = [cell.metadata.get("mystnb", {}).get("figure", {}).get("name", "") for cell in (english, chinese)]
    yield from compare_lists(place, "figure name", names[:1], names[1:])
    if any(a and a == b for a, b in zip(figure_words(english), figure_words(chinese), strict=True)):
        yield f"{place}: alt text or caption not translated"
    if prose:
        yield from compare_prose(place, english.source, chinese.source)
        yield from check_hash(place, chinese.metadata.get("en_hash"), digest(english.source))


def compare_pages(root: Path, name: str) -> Iterator[str]:
    """Differences of a page and its Chinese counterpart."""
    english, chinese = load(root / name), load(root / "zh" / name)
    front = FRONT.match(chinese)
    stored = EN_HASH.search(front[1]) if front else None
    bodies = {name: FRONT.sub("", english), f"zh/{name}": FRONT.sub("", chinese)}
    for place, body in bodies.items():
        yield from (f"{place}: image without alt text: {image}" for image in features(body)["no alt"])
    yield from compare_prose(f"zh/{name}", *bodies.values())
    yield from check_hash(f"zh/{name}", stored[1] if stored else None, digest(english))


def check_hash(place: str, stored: str | None, now: str) -> Iterator[str]:
    """Chinese that nobody has compared with the English as it stands."""
    if not stored:
        yield f"{place}: no en_hash: translate it, then accept it"
    elif stored != now:
        yield f"{place}: en_hash {stored} is older than the English, now {now}"


def compare_prose(place: str, english: str, chinese: str) -> Iterator[str]:
    """Differences of two texts in all that a translation leaves as it is."""
    ours, theirs = features(english), features(chinese)
    if len(ours["word"]) > MAX_WORDS and (english == chinese or not theirs["han"]):
        yield f"{place}: not translated: {' '.join(english.split())[:60]!r}"
    for kind in ["code", "display equation", *IN_ORDER, *IN_ANY_ORDER]:
        yield from compare_lists(place, kind, ours[kind], theirs[kind], ordered=kind not in IN_ANY_ORDER)
