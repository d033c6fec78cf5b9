"""The two editions of the book: run the English notebooks, carry them into the Chinese, prove the two equal.

python tools/editions.py execute [notebooks/X.ipynb ...]         run, store the outputs, normalise, sync
python tools/editions.py sync [--drop]                           normalise; English code and outputs into zh/ by cell id
python tools/editions.py accept notebooks/X.ipynb [cell-id ...]  the Chinese prose says what the English says now
python tools/editions.py accept book/Y.md                        the same for a page
python tools/editions.py parity                                  one line per difference, exit 1 if there is any
"""

import argparse
import os
import sys
from copy import deepcopy
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from parity import parity
from stored import EN_HASH, FOLDERS, FRONT, KERNEL, EditionError, digest, dumps, files, load, normalise, read, store

# --- execute, sync, accept


def run(path: Path, nb: NotebookNode) -> None:
    """Run a notebook (in place) by a fresh kernel in its own folder, on one thread, as the tests do."""
    os.environ["OMP_NUM_THREADS"] = "1"
    at = {"cell": "(start)"}
    client = NotebookClient(
        nb,
        timeout=2000,  # seconds a cell, as nbval
        kernel_name=KERNEL["name"],
        force_raise_errors=True,
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=lambda cell, cell_index: at.update(cell=cell.id),
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        what = getattr(error, "ename", type(error).__name__)
        why = str(getattr(error, "evalue", error)).partition("\n")[0]
        raise EditionError(f"{path}: cell {at['cell']} raises {what}: {why}; nothing was written") from error


def execute(root: Path, names: list[str]) -> None:
    """Run English notebooks (all, if none is named), store what they print, carry it into the Chinese."""
    for path in [locate(root, name) for name in names] or files(root, "notebooks"):
        nb = read(path)
        run(path, nb)
        store(path, dumps(normalise(nb)))
        sync_notebook(root, path.name, drop=False)


def locate(root: Path, name: str) -> Path:
    """The English notebook or page the author names."""
    path = root / name
    if path.parent.parent != root or not path.match(FOLDERS.get(path.parent.name, "nothing")):
        raise EditionError(f"{name} is neither notebooks/X.ipynb nor book/Y.md")
    return path


def sync_notebook(root: Path, name: str, drop: bool) -> None:
    """Normalise an English notebook and give the Chinese one its cells, with the Chinese prose it has."""
    source, target = root / "notebooks" / name, root / "zh" / "notebooks" / name
    english = normalise(read(source))
    chinese = read(target) if target.exists() else nbformat.v4.new_notebook()
    types = {cell.id: cell.cell_type for cell in english.cells}
    lost = [cell.id for cell in chinese.cells if types.get(cell.id) not in {cell.cell_type, "markdown"}]
    if lost and not drop:
        raise EditionError(f"{target}: {', '.join(lost)} left the English; move what is worth it, then sync --drop")
    known = {cell.id: cell for cell in chinese.cells}
    chinese.cells = [counterpart(cell, known.get(cell.id)) for cell in english.cells]
    store(source, dumps(english))
    store(target, dumps(normalise(chinese)))


def counterpart(english: NotebookNode, chinese: NotebookNode | None) -> NotebookNode:
    """An English cell as the Chinese edition has it: prose and captions in the Chinese words, if there are some."""
    cell = deepcopy(english)
    cell.metadata.pop("en_hash", None)
    if chinese and cell.cell_type == chinese.cell_type == "markdown":
        cell.source, cell.metadata["en_hash"] = chinese.source, chinese.metadata.get("en_hash")
    elif chinese and "mystnb" in cell.metadata and "mystnb" in chinese.metadata:
        cell.metadata["mystnb"] = chinese.metadata["mystnb"]
    return cell


def accept(root: Path, name: str, cells: list[str]) -> None:
    """Record that Chinese prose says what the English says now."""
    english = locate(root, name)
    chinese = root / "zh" / english.relative_to(root)
    if english.suffix == ".ipynb":
        accept_cells(english, chinese, cells)
    elif cells:
        raise EditionError(f"{name} is a page: it is accepted as a whole, without cell ids")
    else:
        store(chinese, with_hash(load(chinese), digest(load(english))))


def accept_cells(english: Path, chinese: Path, chosen: list[str]) -> None:
    """Set the hash of the markdown cells chosen, or of all."""
    nb = read(chinese)
    ours, theirs = ({c.id: c for c in n.cells if c.cell_type == "markdown"} for n in (read(english), nb))
    for cell in chosen or ours:
        if cell not in ours or cell not in theirs:
            raise EditionError(f"{chinese}: {cell} is not a markdown cell of both editions")
        theirs[cell].metadata["en_hash"] = digest(ours[cell].source)
    store(chinese, dumps(normalise(nb)))


def with_hash(page: str, value: str) -> str:
    """A page with `en_hash` in its front matter and every other byte as it was."""
    end = "\r\n" if "\r\n" in page else "\n"
    entry, front = f'en_hash: "{value}"', FRONT.match(page)
    if not front:
        return f"---{end}{entry}{end}---{end}{page}"
    old = EN_HASH.search(page, front.start(1), front.end(1))
    start, stop = old.span() if old else (front.end(1), front.end(1))
    return page[:start] + entry + ("" if old else end) + page[stop:]


# --- the command line


def options() -> argparse.ArgumentParser:
    """The four commands and what they take."""
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


def perform(command: argparse.Namespace, root: Path) -> int:
    """Do what was asked; the exit status."""
    if command.command == "execute":
        execute(root, command.notebooks)
    elif command.command == "sync":
        for path in files(root, "notebooks"):
            sync_notebook(root, path.name, command.drop)
    elif command.command == "accept":
        accept(root, command.path, command.cells)
    else:
        notebooks, pages = (len(files(root, folder)) for folder in FOLDERS)
        lines = parity(root)
        print("\n".join(lines) or f"parity: {notebooks} notebooks, {pages} pages, no difference")
        return 1 if lines else 0
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    command = options().parse_args(arguments)
    root = command.root.resolve()
    try:
        return perform(command, root)
    except EditionError as error:
        print(str(error).replace(f"{root}{os.sep}", ""), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
