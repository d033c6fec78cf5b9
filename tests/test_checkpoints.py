"""Checkpoints: what comes back is what went in, whatever happens to the process or the disk; and what is refused."""

import errno
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from llmbook import checkpoints
from llmbook.checkpoints import (
    CheckpointError,
    DamagedError,
    latest,
    load,
    read_tensors,
    require_same,
    save,
    write_tensors,
    write_text,
)

STATE = {"step": 7, "lr": 0.1, "names": ["a", "ß"], "nested": {"none": None, "yes": True}}
TENSORS = {
    "weight": torch.arange(15.0).view(3, 5),
    "turned": torch.arange(14.0, dtype=torch.float64).view(2, 7).T,
    "scalar": torch.tensor(1.5, dtype=torch.bfloat16),
    "nothing": torch.empty(0, 3, dtype=torch.int64),
    "odd values": torch.tensor([torch.nan, torch.inf, -0.0]),
    "mask": torch.tensor([True, False]),
}
quick = settings(deadline=None, derandomize=True, max_examples=40)


def assert_same(actual, expected):
    """Equal names, shapes, dtypes and bits."""
    assert actual.keys() == expected.keys()
    for name, x in expected.items():
        assert (actual[name].shape, actual[name].dtype) == (x.shape, x.dtype), name
        assert actual[name].contiguous().view(-1).view(torch.uint8).equal(x.contiguous().view(-1).view(torch.uint8))


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def save_steps(folder, *steps, **options):
    """A checkpoint for each step, whose only tensor is the number of the step."""
    return [save(folder, step, {"x": torch.tensor(step)}, {"step": step}, **options) for step in steps]


# ---- Round trips


def test_load_returns_what_was_saved(tmp_path):
    path = save(tmp_path / "new" / "folder", 7, TENSORS, STATE)
    tensors, state = load(path)
    assert_same(tensors, TENSORS)
    assert state == STATE


@quick
@given(
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8]),
    shape=st.lists(st.integers(0, 5), max_size=4),
    name=st.text(min_size=1, max_size=9).filter(lambda name: name != "__metadata__"),
    state=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    ),
)
def test_any_tensor_and_any_state_come_back(tmp_path_factory, dtype, shape, name, state):
    tensors = {name: torch.randint(255, shape).to(dtype)}
    loaded, found = load(save(tmp_path_factory.mktemp("any"), 0, tensors, {"state": state}))
    assert_same(loaded, tensors)
    assert found == {"state": state}


def test_files_are_safetensors_json_and_their_digests(tmp_path):
    path = save(tmp_path, 7, TENSORS, STATE)
    assert path == tmp_path / "step-00000007"
    assert names(path) == ["SHA256SUMS", "state.json", "tensors.safetensors"]
    with safe_open(path / "tensors.safetensors", "pt") as file:
        assert set(file.keys()) == set(TENSORS)
    content = json.loads((path / "state.json").read_text())
    assert content == {"format": "llmbook checkpoint", "version": 1, "state": STATE}
    assert len({p.stat().st_mode for p in path.iterdir()}) == 1  # whoever may read one may read all


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="the command sha256sum is not there")
def test_digests_can_be_checked_from_the_command_line(tmp_path):
    path = save(tmp_path, 7, TENSORS, STATE)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=path, check=True, capture_output=True)
    (path / "state.json").write_text("{}")
    assert subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=path, capture_output=True).returncode != 0


def test_equal_tensors_give_equal_bytes(tmp_path):
    backwards = dict(reversed(TENSORS.items()))
    one, other = save(tmp_path / "one", 7, TENSORS, STATE), save(tmp_path / "other", 7, backwards, STATE)
    assert contents(one) == contents(other)


def test_nothing_is_pickled(tmp_path, monkeypatch):
    def fail(*args, **options):
        pytest.fail("pickle was used")

    for module, name in [(pickle, "dump"), (pickle, "dumps"), (pickle, "load"), (pickle, "loads"), (pickle, "Pickler"),
                         (pickle, "Unpickler"), (torch, "save"), (torch, "load")]:  # fmt: skip
        monkeypatch.setattr(module, name, fail)
    assert_same(load(save(tmp_path, 7, TENSORS, STATE))[0], TENSORS)


# ---- Which one is the newest, and which are kept


def test_latest_is_the_highest_step(tmp_path):
    assert latest(tmp_path / "not there") is None
    assert latest(tmp_path) is None
    paths = save_steps(tmp_path, 9, 10, 100, 123456789, keep=9)
    (tmp_path / "step-final").mkdir()
    (tmp_path / "notes.txt").write_text("of another program")
    assert latest(tmp_path) == paths[-1]
    assert load(paths[-1])[1] == {"step": 123456789}


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_older_ones_beyond_keep_are_deleted(tmp_path, keep):
    save_steps(tmp_path, 2, 4, 6, 8, keep=keep)
    assert names(tmp_path) == ["step-00000002", "step-00000004", "step-00000006", "step-00000008"][-keep:]


def test_later_ones_are_not_touched(tmp_path):
    save_steps(tmp_path, 8, 9, keep=9)
    save_steps(tmp_path, 2, 4, keep=1)
    assert names(tmp_path) == ["step-00000004", "step-00000008", "step-00000009"]


def test_same_step_is_replaced(tmp_path):
    save_steps(tmp_path, 6)
    path = save(tmp_path, 6, TENSORS, STATE)
    assert_same(load(path)[0], TENSORS)
    assert names(tmp_path) == ["step-00000006"]


def test_what_killed_runs_left_is_removed(tmp_path):
    for name in (".step-00000002.writing", ".step-00000004.writing", ".step-00000001.removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tensors.safetensors").write_bytes(b"half")
    (tmp_path / ".hidden").write_text("of another program")
    assert latest(tmp_path) is None
    save_steps(tmp_path, 4)
    assert names(tmp_path) == [".hidden", "step-00000004"]


# ---- What can happen to a disk


def everything_that_can_fail(monkeypatch, at):
    """Let the ``at``-th call that changes the disk fail for lack of space; returns the calls that were made."""
    calls = []

    def failing(name, function):
        def call(*args, **options):
            calls.append(name)
            if len(calls) == at + 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*args, **options)

        return call

    for module, name in [(os, "fsync"), (os, "rename"), (os, "replace"), (Path, "write_bytes"),
                         (Path, "write_text"), (Path, "mkdir")]:  # fmt: skip
        monkeypatch.setattr(module, name, failing(name, getattr(module, name)))
    return calls


@pytest.mark.parametrize("keep", [1, 2])
def test_full_disk_leaves_the_earlier_checkpoints_as_they_were(tmp_path, monkeypatch, keep):
    save_steps(tmp_path, 2, 4, keep=2)
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        calls = everything_that_can_fail(patch, at=99)
        save_steps(tmp_path, 6, keep=9)
    shutil.rmtree(tmp_path / "step-00000006")
    renamed = calls.index("rename")
    assert renamed >= 8 and calls[renamed:] == ["rename", "fsync"]
    for at in range(renamed + 1):
        with monkeypatch.context() as patch:
            everything_that_can_fail(patch, at)
            with pytest.raises(OSError, match="No space left"):
                save_steps(tmp_path, 6, keep=keep)
        assert contents(tmp_path) == before
        assert names(tmp_path) == ["step-00000002", "step-00000004"]


def test_all_is_on_the_disk_before_it_gets_its_name_and_that_before_anything_is_deleted(tmp_path, monkeypatch):
    save_steps(tmp_path, 2)
    real, log = {name: getattr(os, name) for name in ("fsync", "rename")}, []

    def fsync(number):
        real["fsync"](number)
        log.append(("fsync", os.readlink(f"/proc/self/fd/{number}")))

    def rename(old, new):
        real["rename"](old, new)
        log.append(("rename", str(old), str(new)))

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("/proc/self/fd is not there")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    save_steps(tmp_path, 4, keep=1)
    draft, path, old = (str(tmp_path / name) for name in (".step-00000004.writing", "step-00000004", "step-00000002"))
    renamed = log.index(("rename", draft, path))
    synced = {entry[1] for entry in log[:renamed]}
    written = {f"{draft}/.tensors.safetensors.writing", f"{draft}/state.json", f"{draft}/SHA256SUMS"}
    assert written <= synced
    assert log[renamed - 1] == ("fsync", draft)
    assert log[renamed + 1 :] == [
        ("fsync", str(tmp_path)),
        ("rename", old, str(tmp_path / ".step-00000002.removed")),
    ]


def spoil(path, how, rng):
    """Damage a file: cut it, flip a bit of it, empty it, fill it with zeros, or remove it."""
    content = bytearray(path.read_bytes())
    if how == "cut":
        del content[rng.integers(len(content)) :]
    elif how == "flip":
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    elif how == "empty":
        content.clear()
    elif how == "zeros":
        content[:] = bytes(len(content))
    elif how == "longer":
        content += b"\n"
    path.unlink() if how == "remove" else path.write_bytes(content)


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "SHA256SUMS"])
@pytest.mark.parametrize("how", ["cut", "flip", "empty", "zeros", "longer", "remove"])
def test_latest_passes_over_what_is_damaged_and_names_it(tmp_path, name, how):
    paths = save_steps(tmp_path, 2, 4, 6, keep=3)
    rng = np.random.default_rng(0)
    spoil(paths[2] / name, how, rng)
    with pytest.raises(DamagedError, match="step-00000006: damaged"):
        load(paths[2])
    with pytest.warns(UserWarning, match=r"step-00000006: damaged.*; the one before it is used"):
        assert latest(tmp_path) == paths[1]
    spoil(paths[1] / name, how, rng)
    with pytest.warns(UserWarning) as warned:
        assert latest(tmp_path) == paths[0]
    assert len(warned) == 2
    spoil(paths[0] / name, how, rng)
    message = "expected a whole checkpoint, found 3, all of them damaged; move them away to start anew"
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match=message):
        latest(tmp_path)


def test_any_bit_that_flips_and_any_cut_is_noticed(tmp_path):
    path = save_steps(tmp_path, 2)[0]
    for file in path.iterdir():
        content = file.read_bytes()
        for i in range(len(content)):
            flipped = bytearray(content)
            flipped[i] ^= 1 << i % 8
            for damaged in (flipped, content[:i]):
                file.write_bytes(damaged)
                with pytest.raises(DamagedError):
                    load(path)
        file.write_bytes(content)
    load(path)


def test_damaged_one_is_replaced_when_its_step_comes_again(tmp_path):
    paths = save_steps(tmp_path, 2, 4)
    (paths[1] / "tensors.safetensors").write_bytes(b"")
    save_steps(tmp_path, 4)
    assert latest(tmp_path) == paths[1]
    assert names(tmp_path) == ["step-00000002", "step-00000004"]


# ---- Single files


@pytest.mark.parametrize("metadata", [None, {"language": "中文"}])
def test_tensors_of_a_file_come_back(tmp_path, metadata):
    write_tensors(tmp_path / "model.safetensors", TENSORS, metadata)
    assert_same(read_tensors(str(tmp_path / "model.safetensors")), TENSORS)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == metadata
    assert names(tmp_path) == ["model.safetensors"]


def test_parameters_that_require_gradients_can_be_written(tmp_path):
    layer = torch.nn.Linear(3, 5)
    write_tensors(tmp_path / "layer", dict(layer.named_parameters()))
    assert_same(read_tensors(tmp_path / "layer"), layer.state_dict())


@pytest.mark.parametrize(
    ("write", "old", "new"), [(write_tensors, TENSORS, {"x": torch.ones(3)}), (write_text, "旧", "新")]
)
def test_failed_write_leaves_the_file_as_it_was(tmp_path, monkeypatch, write, old, new):
    path = tmp_path / "file"
    write(path, old)
    before = contents(tmp_path)
    for at in range(3):  # the bytes, their way to the disk, the name
        with monkeypatch.context() as patch:
            calls = everything_that_can_fail(patch, at)
            with pytest.raises(OSError, match="No space left"):
                write(path, new)
        assert contents(tmp_path) == before
    assert calls == ["write_bytes", "fsync", "replace"]


# ---- What is refused


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def a_safetensors_file_of(dtype, size):
    header = json.dumps({"x": {"dtype": dtype, "shape": [3], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def files(folder):
    """Files that are no safetensors files, and what is said to have been found."""
    write_tensors(folder / "whole", {"x": torch.arange(99.0)})
    whole = (folder / "whole").read_bytes()
    torch.save({"x": Trap(folder / "sprung")}, folder / "zip")
    torch.save({"x": Trap(folder / "sprung")}, folder / "legacy", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(folder / "npz", "w") as file:
        file.writestr("x.npy", "x")
    a_pickle = "what looks like a Python pickle, which can run code when it is loaded"
    a_zip = "what looks like a zip file; torch.save writes one with a Python pickle inside"
    return [
        *((pickle.dumps({"x": Trap(folder / "sprung")}, protocol), a_pickle) for protocol in (2, 3, 4, 5)),
        (pickle.dumps(Trap(folder / "sprung"), 0), "a file that begins with b'c"),
        ((folder / "legacy").read_bytes(), a_pickle),
        ((folder / "zip").read_bytes(), a_zip),
        ((folder / "npz").read_bytes(), a_zip),
        (b"", "an empty file"),
        (whole[:7], "a file that begins with b'@"),
        (whole[:60], "a damaged safetensors file"),
        (whole[:-1], "a damaged safetensors file"),
        (whole + b"\0", "a damaged safetensors file"),
        (a_safetensors_file_of("F32", 11), "a damaged safetensors file"),
        (a_safetensors_file_of("F99", 12), "a damaged safetensors file"),
        (np.random.default_rng(0).bytes(999), "a file that begins with b'"),
        (b"\xff" * 99, "a file that begins with b'\\xff"),
        (b'{"format": "of another program"}', "what looks like JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer, not the file that it"),
    ]


def test_files_that_are_no_safetensors_files_are_refused_by_what_they_look_like(tmp_path):
    for content, found in files(tmp_path):
        (tmp_path / "x").write_bytes(content)
        message = f"{tmp_path / 'x'}: expected a safetensors file, found {found}"
        with pytest.raises(CheckpointError, match=re.escape(message)):
            read_tensors(tmp_path / "x")
    assert not (tmp_path / "sprung").exists()


def test_folder_and_missing_file_are_no_safetensors_files(tmp_path):
    with pytest.raises(CheckpointError, match="expected a safetensors file, found a folder"):
        read_tensors(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_tensors(tmp_path / "nowhere")


def test_headers_at_random_are_refused_or_read(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "x"
    write_tensors(path, {"x": torch.arange(3.0)})
    whole = path.read_bytes()
    for _ in range(300):
        content = bytearray(whole)
        for i in rng.integers(len(whole) - 12, size=rng.integers(1, 4)):
            content[i] = rng.integers(256)
        path.write_bytes(content)
        try:
            read_tensors(path)
        except CheckpointError as error:
            assert str(path) in str(error)


def forged(path, state, tensors=None):
    """A checkpoint with right digests and wrong contents."""
    (path / "state.json").write_text(state)
    if tensors is not None:
        (path / "tensors.safetensors").write_bytes(tensors)
    (path / "SHA256SUMS").write_text(checkpoints._sums(path))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ('{"format": "llmbook checkpoint", "version": 2, "state": {}}',
         "expected an llmbook checkpoint of version 1, found {'format': 'llmbook checkpoint', 'version': 2}"),
        ('{"format": "another", "version": 1, "state": {}}', "of version 1, found {'format': 'another', 'version': 1}"),
        ('{"version": 1}', "state.json: expected the state of an llmbook checkpoint, found something else"),
        ("[1, 2]", "state.json: expected the state of an llmbook checkpoint, found something else"),
        ("3", "state.json: expected the state of an llmbook checkpoint, found something else"),
        ("not json", "state.json: expected the state of an llmbook checkpoint, found something else"),
        ("", "state.json: expected the state of an llmbook checkpoint, found something else"),
    ],
)  # fmt: skip
def test_checkpoint_of_another_format_or_version_is_refused_not_passed_over(tmp_path, state, message):
    paths = save_steps(tmp_path, 2, 4)
    forged(paths[1], state)
    for call in (lambda: load(paths[1]), lambda: latest(tmp_path)):
        with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
            call()
        assert not isinstance(caught.value, DamagedError)


def test_pickle_with_right_digests_is_refused(tmp_path):
    path = save_steps(tmp_path, 2)[0]
    forged(path, (path / "state.json").read_text(), pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(CheckpointError, match="looks like a Python pickle, which can run code when it is loaded"):
        load(path)
    assert not (tmp_path / "sprung").exists()


def test_folders_and_files_of_others_are_refused(tmp_path):
    (tmp_path / "step-00000002").mkdir()
    (tmp_path / "step-00000002" / "pytorch_model.bin").write_bytes(b"")
    message = "expected tensors.safetensors, state.json and SHA256SUMS, found ['pytorch_model.bin']"
    for call in (lambda: load(tmp_path / "step-00000002"), lambda: latest(tmp_path)):
        with pytest.raises(CheckpointError, match=re.escape(message)):
            call()
    (tmp_path / "step-00000004").write_bytes(b"")
    with pytest.raises(CheckpointError, match="step-00000004: expected the folder of a checkpoint, found a file"):
        latest(tmp_path)
    with pytest.raises(CheckpointError, match="step-00000004: expected a folder of checkpoints, found a file"):
        latest(tmp_path / "step-00000004")
    with pytest.raises(CheckpointError, match="nowhere: expected the folder of a checkpoint, found nothing"):
        load(tmp_path / "nowhere")


def test_state_that_json_cannot_hold_writes_nothing(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        save(tmp_path / "new", 2, {}, {"x": {1, 2}})
    assert not (tmp_path / "new").exists()


def test_what_differs_is_listed():
    here, expected, found = Path("here"), {"a": 1, "b": None, "c": 3}, {"a": 1, "b": 2, "d": None}
    require_same(here, "other settings", expected, dict(expected))
    message = (
        "here: of other settings, so the run cannot go on from it: b: expected None, found 2; "
        "c: expected 3, found nothing; d: expected nothing, found None"
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        require_same(here, "other settings", expected, found)
    many = [f"x{i}" for i in range(9)]
    with pytest.raises(CheckpointError, match=r"x4: expected 1, found 2; and 4 more$"):
        require_same(here, "another model", dict.fromkeys(many, 1), dict.fromkeys(many, 2))


@pytest.mark.parametrize(("step", "keep"), [(-1, 2), (3, 0)])
def test_step_and_keep_out_of_range_are_refused(tmp_path, step, keep):
    with pytest.raises(ValueError, match=f"step, keep: expected step >= 0 and keep >= 1, got step={step}, keep={keep}"):
        checkpoints.save(tmp_path, step, {}, {}, keep=keep)


def test_leftover_may_be_a_file(tmp_path):
    (tmp_path / ".step-x").write_text("")
    assert checkpoints.save(tmp_path, 1, {}, {}).is_dir()
