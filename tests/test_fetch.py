"""Packages as archives: kept once fetched, refused when they are not what was pinned, the cache never half-written."""

import hashlib
import subprocess
import types

import pytest

from llmbook import fetch

WHEEL = b"not really a wheel"
SHA = hashlib.sha256(WHEEL).hexdigest()


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """A pip of the test's own: counts its calls, writes what it is told to, or fails with a message."""
    state = types.SimpleNamespace(calls=[], content=WHEEL, error="")
    monkeypatch.setenv("LLMBOOK_CACHE", str(tmp_path / "cache"))

    def run(command, **options):
        state.calls.append(command)
        if state.error:
            return types.SimpleNamespace(returncode=1, stderr=state.error)
        folder = command[command.index("--dest") + 1]
        (fetch.Path(folder) / "thing-1.0-py3-none-any.whl").write_bytes(state.content)
        return types.SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return state


def kept():
    folder = fetch.cache_folder()
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_package_is_fetched_once_without_its_dependencies(pip):
    first, second = (fetch.package("thing", "1.0", SHA) for _ in range(2))
    assert first == second and first.read_bytes() == WHEEL
    (command,) = pip.calls
    assert {"--no-deps", "--only-binary", "thing==1.0"} <= set(command)
    assert kept() == [first.name]


def test_damaged_cache_is_fetched_anew(pip):
    fetch.package("thing", "1.0", SHA).write_bytes(WHEEL[:5])
    assert fetch.package("thing", "1.0", SHA).read_bytes() == WHEEL
    assert len(pip.calls) == 2


def test_other_content_is_refused_and_not_kept(pip):
    pip.content = b"something else"
    with pytest.raises(fetch.FetchError, match=f"thing 1.0: expected a file with SHA-256 {SHA}, got "):
        fetch.package("thing", "1.0", SHA)
    assert kept() == []


def test_no_network_ends_in_one_sentence(pip):
    pip.error = "WARNING: retrying\nERROR: No matching distribution found for thing==1.0\n"
    message = (
        r"thing 1.0: pip could not fetch it \(ERROR: No matching distribution found for thing==1.0\); is a package"
    )
    with pytest.raises(fetch.FetchError, match=message):
        fetch.package("thing", "1.0", SHA)
    assert kept() == []


def test_cache_is_the_users_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("LLMBOOK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch.cache_folder() == tmp_path / "llmbook"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert fetch.cache_folder() == fetch.Path.home() / ".cache" / "llmbook"
