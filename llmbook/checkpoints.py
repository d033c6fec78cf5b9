"""Training state to disk and back: safetensors and json, written atomically; knows no model.

A checkpoint is a folder::

    runs/step-00000100/tensors.safetensors    every tensor by its name
                       state.json             everything else
                       SHA256SUMS             the digests of both, as ``sha256sum -c`` reads them

It is written under a hidden name, forced to the disk and then renamed, so that there is always either a whole
checkpoint or none, whenever the process is killed. What the disk does to it later, the digests show. Nothing here
reads or writes pickle, which can run code when it is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

FORMAT, VERSION = "llmbook checkpoint", 1
TENSORS, STATE, SUMS = "tensors.safetensors", "state.json", "SHA256SUMS"
_KINDS = (  # how files begin that are often taken for safetensors
    (rb"", "an empty file"),
    (rb".{8}\{.*", "a damaged safetensors file"),
    (rb"\x80[\x02-\x05].*", "what looks like a Python pickle, which can run code when it is loaded"),
    (rb"PK\x03\x04.*", "what looks like a zip file; torch.save writes one with a Python pickle inside"),
    (rb"version https://git-lfs.*", "a Git LFS pointer, not the file that it stands for"),
    (rb"\s*[{\[].*", "what looks like JSON"),
)


class CheckpointError(ValueError):
    """A file or folder that is not what it should be; the message says what was expected and what was found."""


class DamagedError(CheckpointError):
    """A checkpoint that was cut short or changed after it was written."""


def save(
    folder: str | Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, keep: int = 2
) -> Path:
    """Write the checkpoint ``folder/step-{step:08}``; only one process may write to a folder.

    A checkpoint of the same step is replaced. Older ones beyond the newest ``keep`` are deleted once the new one
    is on the disk, and so is what killed runs have left half written. Later ones are not touched.

    Args:
        folder: where the checkpoints of one run live; made if need be.
        step: the step that the checkpoint is of, ≥ 0.
        tensors: contiguous or not, on any device, of any shape; no two may share memory.
        state: whatever json can hold.
        keep: how many checkpoints are kept, this one included, ≥ 1.

    Returns:
        The path of the checkpoint.

    Raises:
        TypeError: json cannot hold ``state``.
        ValueError: ``step`` is negative, or ``keep`` is not positive.
        OSError: the disk is full, or the like; all earlier checkpoints are as they were.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step, keep: expected step >= 0 and keep >= 1, got {step=}, {keep=}")
    folder = Path(folder)
    text = json.dumps({"format": FORMAT, "version": VERSION, "state": state}, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    path, draft = folder / f"step-{step:08}", folder / f".step-{step:08}.writing"
    draft.mkdir()
    try:
        write_tensors(draft / TENSORS, tensors)
        (draft / STATE).write_text(text)
        (draft / SUMS).write_text(_sums(draft))
        for name in (STATE, SUMS, ""):
            _to_disk(draft / name)
        if path.exists():
            _remove(path)
        os.rename(draft, path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _to_disk(folder)
    for old in [p for p in _steps(folder) if _step(p) <= step][:-keep]:
        _remove(old)
    return path


def load(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint.

    Args:
        path: what :func:`save` or :func:`latest` returned.

    Returns:
        ``(tensors, state)`` as they were given to :func:`save`: the tensors on the CPU, tuples in the state as lists.

    Raises:
        DamagedError: the checkpoint was cut short or changed.
        CheckpointError: it is no checkpoint, or one of another version.
    """
    path = Path(path)
    state = _verify(path)
    return read_tensors(path / TENSORS), state


def latest(folder: str | Path) -> Path | None:
    """The newest whole checkpoint of a folder, or None if there is none at all.

    A damaged checkpoint is passed over with a warning that names it.

    Raises:
        DamagedError: there are checkpoints, and all are damaged.
        CheckpointError: the newest that is not damaged is no checkpoint, or one of another version.
    """
    paths = _steps(Path(folder))
    for path in reversed(paths):
        try:
            _verify(path)
        except DamagedError as error:
            warnings.warn(f"{error}; the one before it is used", stacklevel=2)
        else:
            return path
    if paths:
        raise DamagedError(f"{folder}: expected a whole checkpoint, found {len(paths)}, all of them damaged; "
                           "move them away to start anew")  # fmt: skip
    return None


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of any safetensors file, by name, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is no safetensors file, or one that was cut short; the message says what it looks like.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: expected a safetensors file, found a folder")
    try:
        return load_file(path)
    except SafetensorError as error:
        with path.open("rb") as file:
            start = file.read(64)
        found = (kind for pattern, kind in _KINDS if re.fullmatch(pattern, start, re.DOTALL))
        kind = next(found, f"a file that begins with {start[:8]!r}")
        raise CheckpointError(f"{path}: expected a safetensors file, found {kind} ({error})") from None


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file at once: after a failure, whatever stood at ``path`` is as it was.

    Args:
        path: the file, in a folder that exists.
        tensors: contiguous or not, on any device, of any shape; no two may share memory.
        metadata: notes for the head of the file.
    """
    _write(Path(path), to_bytes({name: x.detach().cpu().contiguous() for name, x in tensors.items()}, metadata))


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8) at once, as :func:`write_tensors` does.

    Args:
        path: the file, in a folder that exists.
        text: what is to be in it.
    """
    _write(Path(path), text.encode())


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.writing")
    try:
        draft.write_bytes(content)
        _to_disk(draft)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _to_disk(path.parent)


def kinds(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of each tensor whose name begins with ``prefix``, by the rest of its name."""
    named = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
    return {name: (tuple(x.shape), x.dtype) for name, x in named.items()}


def require_same(path: Path, other: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise a :class:`CheckpointError` that says what differs, if ``expected`` and ``found`` are not equal."""
    names = [k for k in {**expected, **found} if k not in expected or k not in found or expected[k] != found[k]]
    if names:
        listed = [f"{k}: expected {expected.get(k, 'nothing')}, found {found.get(k, 'nothing')}" for k in names[:5]]
        more = [f"and {len(names) - 5} more"] if len(names) > 5 else []
        raise CheckpointError(f"{path}: of {other}, so the run cannot go on from it: {'; '.join(listed + more)}")


def _verify(path: Path) -> dict[str, Any]:
    """The state of a checkpoint, once its files are found to be those that were written."""
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise CheckpointError(f"{path}: expected the folder of a checkpoint, found {found}")
    names = {p.name for p in path.iterdir()}
    missing = {TENSORS, STATE, SUMS} - names
    if len(missing) == 3:
        raise CheckpointError(f"{path}: expected {TENSORS}, {STATE} and {SUMS}, found {sorted(names)}")
    if missing:
        raise DamagedError(f"{path}: damaged, lacks {' and '.join(sorted(missing))}")
    if (path / SUMS).read_bytes() != _sums(path).encode():
        raise DamagedError(f"{path}: damaged, its files do not match {SUMS}")
    try:
        content = json.loads((path / STATE).read_bytes())
        written = {name: content[name] for name in ("format", "version")}
    except (ValueError, TypeError, KeyError):
        raise CheckpointError(f"{path / STATE}: expected the state of an {FORMAT}, found something else") from None
    if written != {"format": FORMAT, "version": VERSION}:
        raise CheckpointError(f"{path}: expected an {FORMAT} of version {VERSION}, found {written}")
    return content["state"]


def _steps(folder: Path) -> list[Path]:
    """The checkpoints of a folder, from old to new."""
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: expected a folder of checkpoints, found a file")
    return sorted((p for p in folder.glob("step-*") if re.fullmatch(r"step-\d{8,}", p.name)), key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _remove(path: Path) -> None:
    """Delete a checkpoint, hidden first: half of one is never seen."""
    hidden = path.with_name(f".{path.name}.removed")
    os.rename(path, hidden)
    shutil.rmtree(hidden)


def _sums(path: Path) -> str:
    """The digests of the two files of a checkpoint, a line each, as the command ``sha256sum`` writes them."""
    lines = []
    for name in (TENSORS, STATE):
        with (path / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def _to_disk(path: Path) -> None:
    """Return only when the disk has the file, or the folder's list of names."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
