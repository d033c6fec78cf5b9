"""The two editions of the book: run the English notebooks, carry them into the Chinese, prove the two equal.

python tools/editions.py execute [notebooks/X.ipynb ...]      run, normalise, sync
python tools/editions.py sync [--drop]                        English code and outputs into zh/, by cell id
python tools/editions.py accept notebooks/X.ipynb [cell-id ...]  the Chinese prose says what the English says now
python tools/editions.py accept book/Y.md                     the same for a page
python tools/editions.py parity                               one line per difference; exit 1 if there is any
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

FOLDERS = {"notebooks": "*.ipynb", "book": "*.md"}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WIDGET = "application/vnd.jupyter.widget-view+json"
TIMEOUT = 2000  # seconds a cell, as in nbval
MAX_CODE_LINES = 25
MAX_PLAIN_WORDS = 3  # a cell of more English words than this has to be translated


class EditionError(Exception):
    """Something the author has to put right; the message is one sentence."""


# ---------------------------------------------------------------- files


def digest(text: str) -> str:
    """The first 12 hex digits of the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_text(path: Path) -> str:
    """The text of a file with its own line ends."""
    if not path.is_file():
        raise EditionError(f"{path} does not exist")
    return path.read_bytes().decode()


def write(path: Path, text: str) -> None:
    """Replace a file in one step, and only when its bytes change."""
    if path.is_file() and path.read_bytes() == text.encode():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(text.encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> NotebookNode:
    """A valid notebook of format 4.5 whose cells all have an id of their own."""
    try:
        nb = nbformat.v4.reads(read_text(path))
        nb.nbformat_minor = 5
        for number, cell in enumerate(nb.cells):
            cell.setdefault("id", digest(f"{number} {cell.source}"))
        nbformat.validate(nb)
    except (ValueError, KeyError, AttributeError, nbformat.ValidationError) as error:
        raise EditionError(f"{path} is not a valid notebook: {first_line(error)}") from error
    twice = [name for name, count in Counter(ids(nb)).items() if count > 1]
    if twice:
        raise EditionError(f"{path} has several cells with the id {', '.join(twice)}")
    return nb


def first_line(error: object) -> str:
    """The first line of a message."""
    return str(error).strip().partition("\n")[0]


def ids(nb: NotebookNode) -> list[str]:
    """The ids of the cells, in order."""
    return [cell.id for cell in nb.cells]


def relative(root: Path, name: str) -> Path:
    """`notebooks/X.ipynb` or `book/Y.md` as the author gave it, checked."""
    path = Path(os.path.relpath(root / name, root))
    if len(path.parts) != 2 or not path.match(FOLDERS.get(path.parts[0], "no such folder")):
        raise EditionError(f"{name} is neither notebooks/X.ipynb nor book/Y.md")
    return path


# ---------------------------------------------------------------- normal form


def normalise(nb: NotebookNode) -> NotebookNode:
    """Bring a notebook into the one form that is stored (in place)."""
    nb.metadata.pop("widgets", None)
    nb.metadata.update(kernelspec=dict(KERNEL), language_info={"name": "python"})
    number = 0
    for cell in nb.cells:
        kept = {key: cell.metadata[key] for key in ("tags", "en_hash") if cell.metadata.get(key)}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code":
            number += 1
            cell.execution_count = number
            cell.outputs = normalise_outputs(cell.outputs, number)
    return nb


def normalise_outputs(outputs: list[NotebookNode], number: int) -> list[NotebookNode]:
    """Merge neighbouring streams, number the results, drop the widget view where something else can be shown."""
    merged: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and merged and merged[-1].get("name") == output.name:
            merged[-1].text += output.text
            continue
        if len(output.get("data", {})) > 1:
            output.data.pop(WIDGET, None)
        if output.output_type == "execute_result":
            output.execution_count = number
        merged.append(output)
    return merged


def dumps(nb: NotebookNode) -> str:
    """The stored text of a notebook."""
    return str(nbformat.v4.writes(nb, ensure_ascii=False)) + "\n"


# ---------------------------------------------------------------- execute, sync, accept


def run(path: Path, nb: NotebookNode) -> None:
    """Run a notebook (in place) in a fresh kernel inside its own folder."""
    where = {"cell": "(none)"}
    client = NotebookClient(
        nb,
        timeout=TIMEOUT,
        kernel_name=KERNEL["name"],
        force_raise_errors=True,
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=lambda cell, cell_index: where.update(cell=cell.id),
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", error)
        raise EditionError(f"{path}: cell {where['cell']} raises {name}: {first_line(value)}") from error


def execute(root: Path, names: list[str]) -> None:
    """Run English notebooks (all if none is named), store what they print, carry it into the Chinese."""
    for name in names or [f"notebooks/{path.name}" for path in files(root, "notebooks")]:
        path = root / relative(root, name)
        nb = read(path)
        run(path, nb)
        write(path, dumps(normalise(nb)))
        sync_notebook(root, path.name, drop=False)
        print(f"notebooks/{path.name}: executed")


def sync(root: Path, drop: bool) -> None:
    """Carry every English notebook into the Chinese edition."""
    for path in files(root, "notebooks"):
        sync_notebook(root, path.name, drop)


def sync_notebook(root: Path, name: str, drop: bool) -> None:
    """Give the Chinese notebook the English cells, keeping the prose it has of its own."""
    english = normalise(read(root / "notebooks" / name))
    path = root / "zh" / "notebooks" / name
    chinese = read(path) if path.exists() else nbformat.v4.new_notebook(metadata=deepcopy(english.metadata))
    types = {cell.id: cell.cell_type for cell in english.cells}
    lost = [cell.id for cell in chinese.cells if types.get(cell.id) not in {cell.cell_type, "markdown"}]
    if lost and not drop:
        raise EditionError(f"{path}: no English cell {', '.join(lost)} any more; move the prose or sync with --drop")
    prose = {cell.id: cell for cell in chinese.cells if cell.cell_type == "markdown"}
    chinese.cells = [translated(cell, prose.get(cell.id)) for cell in english.cells]
    write(path, dumps(normalise(chinese)))


def translated(english: NotebookNode, prose: NotebookNode | None) -> NotebookNode:
    """The Chinese counterpart of an English cell: the same cell, with Chinese prose where there is some."""
    cell = deepcopy(english)
    cell.metadata.pop("en_hash", None)
    if cell.cell_type == "markdown" and prose is not None:
        cell.source = prose.source
        cell.metadata.update({key: prose.metadata[key] for key in ["en_hash"] if key in prose.metadata})
    return cell


def accept(root: Path, name: str, cells: list[str]) -> None:
    """Record that Chinese prose says what the English says now."""
    path = relative(root, name)
    english, chinese = root / path, root / "zh" / path
    if path.parts[0] == "notebooks":
        accept_cells(english, chinese, cells)
    elif cells:
        raise EditionError(f"{name} is a page and is accepted as a whole, without cell ids")
    else:
        write(chinese, with_hash(read_text(chinese), digest(read_text(english))))


def accept_cells(english: Path, chinese: Path, chosen: list[str]) -> None:
    """Set the hash of the named markdown cells, or of all of them."""
    nb = read(chinese)
    theirs, mine = ({c.id: c for c in n.cells if c.cell_type == "markdown"} for n in (read(english), nb))
    for cell in chosen or theirs:
        if cell not in theirs or cell not in mine:
            raise EditionError(f"{chinese}: {cell} is not a markdown cell of both editions")
        mine[cell].metadata["en_hash"] = digest(theirs[cell].source)
    write(chinese, dumps(normalise(nb)))


FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.S | re.M)
EN_HASH = re.compile(r"^en_hash:[ \t]*[\"']?(\w+)[\"']?[ \t]*(?=\r?$)", re.M)


def with_hash(page: str, value: str) -> str:
    """A page with `en_hash` in its front matter and every other byte as it was."""
    end = "\r\n" if "\r\n" in page else "\n"
    entry, front = f'en_hash: "{value}"', FRONT.match(page)
    if not front:
        return f"---{end}{entry}{end}---{end}{page}"
    old = EN_HASH.search(page, front.start(1), front.end(1))
    start, stop, entry = (old.start(), old.end(), entry) if old else (front.end(1), front.end(1), entry + end)
    return page[:start] + entry + page[stop:]


# ---------------------------------------------------------------- what a text holds

FENCE = re.compile(
    r"^[ \t>]*(?P<mark>`{3,}+|~{3,}+|:{3,}+)[ \t]*(?P<info>[^\n`]*)\n(?P<body>.*?)"
    r"(?:^[ \t>]*(?P=mark)[`~:]*[ \t]*$|\Z)",
    re.S | re.M,
)
DIRECTIVE = re.compile(r"\{([\w:+-]+)\}[ \t]*(.*)")
OPTIONS = re.compile(r"\A(?:[ \t]*:[\w-]+:.*(?:\n|\Z))*")
DISPLAY = re.compile(
    r"\$\$.+?\$\$(?:[ \t]*\([\w:.-]+\))?|\\begin\{(align|equation|gather|multline)\*?\}.+?\\end\{\1\*?\}", re.S
)
TEXT_IN_MATH = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt)?|mbox)\s*\{(?:[^{}]|\{[^{}]*\})*\}|\s+")
ROLE = re.compile(r"\{([\w:+-]+)\}`([^`]+)`")
IMAGE = re.compile(r"!\[((?:[^\[\]]|\[[^\]]*\])*)\]\(\s*<?([^)\s>]+)|<img\b([^>]*)>")
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)")
LOCAL = re.compile(r"#|.*\.(?:md|ipynb|png|jpe?g|gif|svg|webp|pdf)(?:#|$)", re.I)
NOT_PROSE = re.compile(r"\$[^$\n]+\$|`[^`\n]+`|\]\([^)]*\)|<[^>]+>|https?://\S+|^\(\S+\)=", re.M)
VERBATIM = {"explorer", "code", "code-block", "code-cell", "literalinclude", "include", "toctree", "bibliography"}
IN_ORDER = ["heading", "directive", "display equation", "label", "code", "explorer", "image", "<details>", "table row"]
IN_ANY_ORDER = ["citation", "cross-reference", "link"]  # a translated sentence may turn them round
Found = dict[str, list[str]]


def features(text: str) -> Found:
    """All that a translation must leave as it is, by kind, and the `word`s and Chinese characters (`han`) left over."""
    found: Found = defaultdict(list)
    prose = unfence(re.sub(r"<!--.*?-->", "", text, flags=re.S), found)
    prose = re.sub(r"(?<!`)(``+)(?!`).+?(?<!`)\1(?!`)", " ", prose, flags=re.S)
    found["display equation"] = [TEXT_IN_MATH.sub("", match[0]) for match in DISPLAY.finditer(prose)]
    prose = DISPLAY.sub(" ", prose)
    for role, target in ROLE.findall(prose):
        add_role(role, target, found)
    prose = re.sub(r"`[^`\n]+`", " ", ROLE.sub(" ", prose))
    found["heading"] = re.findall(r"^[ \t>]*(#{1,6})[ \t]", prose, re.M)
    found["label"] += re.findall(r"^[ \t>]*\(([^()\s]+)\)=[ \t]*$", prose, re.M)
    found["link"] = [target.partition("#")[0] or "#" for target in LINK.findall(prose) if LOCAL.match(target)]
    for alt, target, tag in IMAGE.findall(prose):
        add_image(target or attribute(tag, "src"), alt or attribute(tag, "alt"), found)
    found["<details>"] = re.findall(r"<details\b", prose)
    found["table row"] = re.findall(r"^[ \t>]*(?:\||\* - )|<tr\b", prose, re.M)
    rest = NOT_PROSE.sub(" ", prose)
    found["word"], found["han"] = re.findall(r"[A-Za-z]{2,}", rest), re.findall(r"[\u3400-\u9fff]", rest)
    return found


def unfence(text: str, found: Found) -> str:
    """The text without its fences; directives leave their own prose behind, equations become $$ blocks."""
    return FENCE.sub(lambda match: open_fence(match["info"].strip(), match["body"], found), text)


def open_fence(info: str, body: str, found: Found) -> str:
    """Note what one fence holds and return the prose in it."""
    directive = DIRECTIVE.match(info)
    if not directive:
        found["code"].append(f"{info}\n{body}")
        return ""
    name, argument = directive.groups()
    options = OPTIONS.match(body)
    head, body = (options[0], body[options.end() :]) if options else ("", body)
    labels = re.findall(r"^[ \t]*:(?:label|name):[ \t]*(\S+)", head, re.M)
    found["directive"].append(name)
    if name == "math":
        return f"\n$$ {argument}{body} $$ {''.join(f'({label})' for label in labels)}\n"
    found["label"] += labels
    if name in VERBATIM:
        found[name if name == "explorer" else "code"].append(f"{{{name}}} {argument}\n{body.strip()}")
        return ""
    if name in {"image", "figure"}:
        add_image(argument, "".join(re.findall(r"^[ \t]*:alt:[ \t]*(\S.*)", head, re.M)), found)
        argument = ""
    return f"{argument}\n\n{unfence(body, found)}\n"


def add_role(role: str, target: str, found: Found) -> None:
    """Note a citation or a cross-reference."""
    if role.startswith("cite"):
        found["citation"] += [key.strip() for key in target.split(",")]
    elif role in {"ref", "eq", "numref", "doc", "download", "prf:ref"}:
        pointed = re.search(r"<([^>]+)>\s*$", target)
        found["cross-reference"].append(f"{role} {pointed[1] if pointed else target.strip()}")


def add_image(target: str, alt: str, found: Found) -> None:
    """Note an image, and whether it lacks a text for those who do not see it."""
    found["image"].append(target)
    if not alt.strip():
        found["no alt"].append(target)


def attribute(tag: str, name: str) -> str:
    """The value of an attribute in the inside of an HTML tag."""
    match = re.search(rf"\b{name}\s*=\s*[\"']([^\"']*)", tag)
    return match[1] if match else ""


# ---------------------------------------------------------------- parity


def files(root: Path, folder: str) -> list[Path]:
    """The notebooks or pages of one folder of one edition."""
    return sorted(path for path in (root / folder).glob(FOLDERS[folder]) if not path.name.startswith("."))


def parity(root: Path) -> list[str]:
    """Every difference between the editions, one line each."""
    lines = [*compare_tocs(root)]
    for folder in FOLDERS:
        english, chinese = ({path.name: path for path in files(side, folder)} for side in (root, root / "zh"))
        if not english:
            lines.append(f"{folder}/ holds no {FOLDERS[folder]}")
        for name in sorted({*english, *chinese}):
            if name not in chinese:
                lines.append(f"zh/{folder}/{name} is missing")
            elif name not in english:
                lines.append(f"zh/{folder}/{name} has no English counterpart")
            else:
                lines += (compare_notebooks if folder == "notebooks" else compare_pages)(root, f"{folder}/{name}")
    return lines


def differs(place: str, what: str, english: str, chinese: str) -> str:
    """One line that shows both sides from shortly before the first difference."""
    start = max(0, len(os.path.commonprefix([english, chinese])) - 20)
    shown = [text[start : start + 60] or "(nothing)" for text in (english, chinese)]
    return f"{place}: {what} differs: English {shown[0]!r}, Chinese {shown[1]!r}"


def compare_lists(place: str, what: str, english: list[str], chinese: list[str], ordered: bool = True) -> Iterator[str]:
    """What one list has and the other has not, or else the first place where the order differs."""
    ours, theirs = list((Counter(english) - Counter(chinese))), list((Counter(chinese) - Counter(english)))
    if ours or theirs:
        for number in range(max(len(ours), len(theirs))):
            yield differs(place, what, "".join(ours[number : number + 1]), "".join(theirs[number : number + 1]))
    elif ordered and english != chinese:
        pair = next((a, b) for a, b in zip(english, chinese, strict=True) if a != b)
        yield differs(place, f"order of {what}", *pair)


def compare_tocs(root: Path) -> Iterator[str]:
    """Differences of the tables of contents other than the words of their titles."""
    tocs = []
    for path in (root / "_toc.yml", root / "zh" / "_toc.yml"):
        try:
            tocs.append(yaml.safe_dump(without_titles(yaml.safe_load(read_text(path)))).splitlines())
        except (EditionError, yaml.YAMLError) as error:
            yield f"{path.relative_to(root)} cannot be read: {' '.join(str(error).split())}"
            return
    if tocs[0] != tocs[1]:
        yield from compare_lists("zh/_toc.yml", "line", *tocs)


def without_titles(node: Any) -> Any:
    """A table of contents with the words of titles and captions blanked."""
    if isinstance(node, dict):
        return {key: "" if key in {"title", "caption"} else without_titles(value) for key, value in node.items()}
    return [without_titles(value) for value in node] if isinstance(node, list) else node


def compare_notebooks(root: Path, name: str) -> Iterator[str]:
    """Differences of a notebook and its Chinese counterpart, and what is wrong with either alone."""
    try:
        english, chinese = read(root / name), read(root / "zh" / name)
    except EditionError as error:
        yield str(error).replace(f"{root}{os.sep}", "")
        return
    for place, nb in ((name, english), (f"zh/{name}", chinese)):
        yield from check_notebook(place, nb, read_text(root / place))
    yield from compare_lists(f"zh/{name}", "cell", ids(english), ids(chinese))
    theirs = {cell.id: cell for cell in chinese.cells}
    for cell in english.cells:
        if cell.id in theirs:
            yield from compare_cells(f"zh/{name}: cell {cell.id}", cell, theirs[cell.id])


def check_notebook(place: str, nb: NotebookNode, stored: str) -> Iterator[str]:
    """What is wrong with one notebook by itself."""
    if dumps(normalise(deepcopy(nb))) != stored:
        yield f"{place} is not normalised: run execute or sync"
    for cell in nb.cells:
        here = f"{place}: cell {cell.id}"
        if cell.cell_type == "markdown":
            yield from check_images(here, features(cell.source))
        elif cell.cell_type == "code":
            yield from check_code(here, cell)


def check_code(place: str, cell: NotebookNode) -> Iterator[str]:
    """Code that is too long, fails, or is compared with nothing."""
    length = len(cell.source.splitlines())
    if length > MAX_CODE_LINES:
        yield f"{place}: {length} lines of code, more than {MAX_CODE_LINES}"
    if any(output.output_type == "error" for output in cell.outputs):
        yield f"{place}: a stored error output"
    ignored = re.search(r"nbval[-_](ignore|skip)", " ".join([*cell.metadata.get("tags", []), cell.source]), re.I)
    if ignored and not re.search(r"^[^#\n]*\bassert", cell.source, re.M):
        yield f"{place}: {ignored[0]} without an assert"


def check_images(place: str, found: Found) -> Iterator[str]:
    """Images without a text for those who do not see them."""
    for target in found["no alt"]:
        yield f"{place}: image {target} has no alt text"


def compare_cells(place: str, english: NotebookNode, chinese: NotebookNode) -> Iterator[str]:
    """Differences of two cells of the same id."""
    if english.cell_type != chinese.cell_type:
        yield differs(place, "type", english.cell_type, chinese.cell_type)
        return
    keys = [] if english.cell_type == "markdown" else ["source", "outputs", "execution_count"]
    pairs = [(key, english.get(key), chinese.get(key)) for key in keys]
    for key, ours, theirs in [*pairs, ("tags", english.metadata.get("tags"), chinese.metadata.get("tags"))]:
        if ours != theirs:
            yield differs(place, key, *(json.dumps(side, ensure_ascii=False) for side in (ours, theirs)))
    if english.cell_type == "markdown":
        yield from check_hash(place, chinese.metadata.get("en_hash"), digest(english.source))
        yield from compare_prose(place, english.source, chinese.source)


def compare_pages(root: Path, name: str) -> Iterator[str]:
    """Differences of a page and its Chinese counterpart."""
    english, chinese = read_text(root / name), read_text(root / "zh" / name)
    front = FRONT.match(chinese)
    stored = EN_HASH.search(front[1]) if front else None
    english_body, chinese_body = FRONT.sub("", english), FRONT.sub("", chinese)
    yield from check_images(name, features(english_body))
    yield from check_images(f"zh/{name}", features(chinese_body))
    yield from check_hash(f"zh/{name}", stored[1] if stored else None, digest(english))
    yield from compare_prose(f"zh/{name}", english_body, chinese_body)


def check_hash(place: str, stored: str | None, now: str) -> Iterator[str]:
    """Chinese that nobody has compared with the English as it stands."""
    if not stored:
        yield f"{place}: no en_hash; translate it, then accept it"
    elif stored != now:
        yield f"{place}: older than its English (en_hash {stored}, English {now})"


def compare_prose(place: str, english: str, chinese: str) -> Iterator[str]:
    """Differences of two texts in all that a translation leaves as it is."""
    ours, theirs = features(english), features(chinese)
    if len(ours["word"]) > MAX_PLAIN_WORDS and (english == chinese or not theirs["han"]):
        yield f"{place}: not translated: {' '.join(english.split())[:60]!r}"
    for kind in IN_ORDER + IN_ANY_ORDER:
        yield from compare_lists(place, kind, ours[kind], theirs[kind], ordered=kind in IN_ORDER)


# ---------------------------------------------------------------- the command line


def report(root: Path) -> int:
    """Print what parity finds; the exit status."""
    lines = parity(root)
    counts = [len(files(root, folder)) for folder in FOLDERS]
    print("\n".join(lines) or f"parity: {counts[0]} notebooks, {counts[1]} pages, no difference")
    return 1 if lines else 0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("execute", parents=[common]).add_argument("notebooks", nargs="*")
    commands.add_parser("sync", parents=[common]).add_argument("--drop", action="store_true")
    accepting = commands.add_parser("accept", parents=[common])
    accepting.add_argument("path")
    accepting.add_argument("cells", nargs="*")
    commands.add_parser("parity", parents=[common])
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = arguments().parse_args(argv)
    root = options.root.resolve()
    try:
        if options.command == "parity":
            return report(root)
        if options.command == "execute":
            execute(root, options.notebooks)
        elif options.command == "sync":
            sync(root, options.drop)
        else:
            accept(root, options.path, options.cells)
    except EditionError as error:
        print(str(error).replace(f"{root}{os.sep}", ""), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
