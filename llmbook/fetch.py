"""Packages from the Python package index, by name and pinned hash, as archives: nothing of them is installed or run."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


class FetchError(RuntimeError):
    """A package could not be had; the cache is as it was."""


def cache_folder() -> Path:
    """Where fetched packages stay: ``LLMBOOK_CACHE``, else ``llmbook`` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmbook"
    return Path(os.environ.get("LLMBOOK_CACHE") or default)


def package(name: str, version: str, sha256: str) -> Path:
    """The wheel of a package, from the cache, or else from the index that pip is set up to use.

    Its dependencies are not fetched. What was fetched once needs no network again.

    Args:
        name: as pip knows it.
        version: the exact version.
        sha256: of the wheel, hexadecimal.

    Returns:
        The path of the wheel, a zip archive.

    Raises:
        FetchError: the index cannot be reached or lacks the package, or what came is not what was pinned.
    """
    folder = cache_folder()
    kept = folder / f"{name}-{version}-{sha256[:12]}.whl"
    if kept.exists() and _digest(kept) == sha256:
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--only-binary", ":all:", "--dest", scratch, f"{name}=={version}"]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True)
        found = list(Path(scratch).glob("*.whl"))
        if result.returncode or len(found) != 1:
            reason = (result.stderr.strip().splitlines() or ["pip fetched nothing"])[-1]
            raise FetchError(f"{name} {version}: pip could not fetch it ({reason}); is a package index reachable?")
        if _digest(found[0]) != sha256:
            raise FetchError(f"{name} {version}: expected a file with SHA-256 {sha256}, got {_digest(found[0])}")
        shutil.move(found[0], kept)
    return kept


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
