"""Every stored output is what the code prints: strict nbval, both editions."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
DIGIT = re.compile(r"\d")
EDITIONS = {"en": ROOT / "notebooks", "zh": ROOT / "zh" / "notebooks"}
Run = subprocess.CompletedProcess[str]


def nbval(paths: list[Path], folder: Path) -> Run:
    """Run nbval, with nothing sanitised, as its own process."""
    command = [sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider", "--color=no", *map(str, paths)]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}  # two threads on a busy machine are slower than one, many times
    return subprocess.run(command, cwd=folder, text=True, env=one, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def tail(run: Run) -> str:
    return run.stdout[-6000:]


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[Run]]]:
    """nbval on both editions at once, a core each."""
    with ThreadPoolExecutor() as pool:
        yield {
            edition: pool.submit(nbval, sorted(folder.glob("*.ipynb")), ROOT) for edition, folder in EDITIONS.items()
        }


@pytest.mark.parametrize("edition", EDITIONS)
def test_the_code_prints_what_is_stored(runs: dict[str, Future[Run]], edition: str) -> None:
    assert list(EDITIONS[edition].glob("*.ipynb")), f"{EDITIONS[edition]} holds no notebook"
    run = runs[edition].result()
    assert run.returncode == 0, tail(run)


def numbers(nb: Any) -> Any:
    """The first stored text with a digit in it: the output, or its data, and the key of the text."""
    for cell in nb.cells:
        if cell.cell_type != "code" or "nbval" in f"{cell.source} {cell.metadata}".lower():
            continue
        for output in cell.outputs:
            place, key = (output, "text") if output.output_type == "stream" else (output.get("data", {}), "text/plain")
            if DIGIT.search(place.get(key, "")) and "image/png" not in place:
                return place, key
    return None


def smallest() -> Path | None:
    """The smallest notebook that stores a number."""
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"), key=lambda path: path.stat().st_size)
    return next((path for path in notebooks if numbers(nbformat.read(path, as_version=4))), None)


def test_a_wrong_number_is_noticed(tmp_path: Path) -> None:
    original = smallest()
    assert original, "no notebook stores a number"
    copy = tmp_path / original.name
    shutil.copy(original, copy)
    untouched = nbval([copy], tmp_path)
    assert untouched.returncode == 0, tail(untouched)

    nb = nbformat.read(copy, as_version=4)
    place, key = numbers(nb)
    place[key] = DIGIT.sub(lambda digit: str((int(digit[0]) + 1) % 10), place[key], count=1)
    nbformat.write(nb, copy)
    tampered = nbval([copy], tmp_path)
    assert tampered.returncode == 1 and "Cell outputs differ" in tampered.stdout, tail(tampered)
