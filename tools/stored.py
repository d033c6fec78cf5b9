"""How notebooks and pages lie on disk: reading, one normal form, and writing in one step."""

import hashlib
import os
import re
from collections import Counter
from pathlib import Path

import nbformat
from nbformat import NotebookNode

FOLDERS = {"notebooks": "*.ipynb", "book": "*.md"}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
KEPT = ("tags", "en_hash", "mystnb")  # the metadata of a cell that are stored; mystnb: alt text and caption of a figure
WIDGET = "application/vnd.jupyter.widget-view+json"
FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.S | re.M)
EN_HASH = re.compile(r"^en_hash:[ \t]*[\"']?(\w*)[\"']?[ \t]*(?=\r?$)", re.M)


class EditionError(Exception):
    """Something the author has to put right, in one sentence."""


def digest(text: str) -> str:
    """The first 12 hex digits of the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def load(path: Path) -> str:
    """The text of a file, its line ends as they are."""
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise EditionError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from error


def store(path: Path, text: str) -> None:
    """Replace a file in one step, and only if its bytes change."""
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
    """A valid notebook of format 4.5 in which every cell has an id of its own."""
    text = load(path)
    try:
        nb = nbformat.v4.reads(text)
        nb.nbformat_minor = 5
        for number, cell in enumerate(nb.cells):
            cell.setdefault("id", digest(f"{number} {cell.source}"))
        twice = [name for name, count in Counter(cell.id for cell in nb.cells).items() if count > 1]
        if twice:
            raise EditionError(f"{path} has more than one cell with the id {', '.join(twice)}")
        nbformat.validate(nb)
    except (ValueError, KeyError, TypeError, AttributeError, nbformat.ValidationError) as error:
        raise EditionError(f"{path} is not a valid notebook: {str(error).partition(chr(10))[0]}") from error
    return nb


def dumps(nb: NotebookNode) -> str:
    """The text of a notebook as it is stored."""
    return f"{nbformat.v4.writes(nb, ensure_ascii=False)}\n"


def normalise(nb: NotebookNode) -> NotebookNode:
    """Bring a notebook into the one form that is stored (in place)."""
    nb.metadata.pop("widgets", None)
    nb.metadata.update(kernelspec=dict(KERNEL), language_info={"name": "python"})
    number = 0
    for cell in nb.cells:
        kept = {key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code":
            number += 1
            cell.execution_count, cell.outputs = number, normalise_outputs(cell.outputs, number)
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


def files(root: Path, folder: str) -> list[Path]:
    """The notebooks or pages in a folder of an edition."""
    return sorted((root / folder).glob(FOLDERS[folder]))
