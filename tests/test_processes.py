"""Two processes that torchrun starts learn what one learns; and what one process alone makes of it all."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import training_script as script
from torch import nn

import llmbook
from llmbook.checkpoints import load
from llmbook.processes import gather, hold, named, place, processes, scatter, share, sums, wait, whole
from llmbook.train import train

SCRIPT = Path(__file__).with_name("training_script.py")
parallel = pytest.mark.parametrize("parallel", ["ddp", "fsdp"])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes answered, in the folder where they trained."""
    folder = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d",
                "--rdzv-endpoint=localhost:0"]  # fmt: skip
    environment = os.environ | {"LLMBOOK_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, SCRIPT, folder], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The records and the last checkpoint of the same run in one process."""
    folder = tmp_path_factory.mktemp("one")
    records = list(train(script.calm(), script.batches, script.loss, checkpoint=folder, **script.OWN))
    return records, load(folder / "step-00000006")[0]


def without_speed(records):
    return [list(record)[:4] for record in records]


def test_torchrun_gives_each_process_its_place(two):
    assert [answer["place"] for answer in two[1]] == [[0, 2], [1, 2]]
    assert [answer["device"] for answer in two[1]] == ["cpu", "cpu"]


@parallel
def test_all_processes_hand_out_the_same_records(two, parallel):
    first, second = (without_speed(answer[parallel]) for answer in two[1])
    assert first == second


@parallel
def test_two_processes_learn_what_one_learns(two, one, parallel):
    folder, answers = two
    records, tensors = one
    actual, expected = (torch.tensor(without_speed(x)) for x in (answers[0][parallel], records))
    assert actual.shape == (6, 4)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(load(folder / parallel / "step-00000006")[0], tensors, rtol=0, atol=1e-10)


@parallel
def test_two_processes_go_on_exactly_from_a_checkpoint(two, parallel):
    folder, answers = two
    for answer in answers:
        assert without_speed(answer[f"{parallel}-in-two"]) == without_speed(answer[parallel])
    ends = [folder / name / "step-00000006" / "tensors.safetensors" for name in (parallel, f"{parallel}-in-two")]
    assert ends[0].read_bytes() == ends[1].read_bytes()


def test_processes_share_the_rows_and_the_random_numbers_of_the_data_but_not_those_of_the_loss(two):
    first, second = (answer["seen"] for answer in two[1])
    column = [row * script.T % script.V for row in range(5)]
    assert first["rows"] == [column[0::2]] * 6
    assert second["rows"] == [column[1::2]] * 6
    assert first["data"] == second["data"]
    numbers = [x for draws in (first["data"], first["loss"], second["loss"]) for drawn in draws for x in drawn]
    assert len(numbers) == 54 == len(set(numbers))


def test_gradients_are_exchanged_once_a_step(two):
    assert [answer["seen"]["alone"] for answer in two[1]] == [4, 4]  # in 2 of 3 micro-batches, 2 steps


def test_what_goes_wrong_goes_wrong_in_all_processes(two):
    folder, answers = two
    for answer, elsewhere in zip(answers, ("nowhere", "ddp"), strict=True):
        too_few, infinite, different, settings = answer["errors"]
        assert too_few == "ValueError: batches: expected at least 2 rows for 2 processes, got shapes [(1, 7)]"
        assert infinite.startswith("FloatingPointError: step 1: expected a finite loss, got inf")
        message = f"{folder}/{elsewhere}: expected a folder that all 2 processes see, found differences"
        assert different == f"CheckpointError: {message}"
        assert re.match("CheckpointError: .*: of other settings, .*: lr: expected 0.001, found 0.05; ", settings)


def test_a_run_of_two_processes_is_not_resumed_by_one(two):
    message = "of other settings, so the run cannot go on from it: processes: expected 1, found 2"
    with pytest.raises(ValueError, match=message):
        next(train(script.calm(), script.batches, script.loss, checkpoint=two[0] / "ddp", **script.OWN))


# ---- One process


@pytest.fixture
def alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_without_torchrun_nothing_is_joined(alone):
    with processes() as device:
        assert device == llmbook.device()
        assert not dist.is_initialized()
        assert place() == (0, 1)
    assert sums([1.5, 2], torch.device("cpu")) == [1.5, 2]
    wait()


def test_group_that_is_there_is_left_alone(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with processes():
            assert place() == (0, 1)
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()


def test_more_processes_than_devices_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("LLMBOOK_DEVICE", "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    message = "LOCAL_RANK=2: expected a CUDA device for each process, got 2; LLMBOOK_DEVICE=cpu trains without"
    with pytest.raises(ValueError, match=message), processes():
        pass


def test_each_process_has_a_cuda_device_and_nccl(monkeypatch):
    seen = []
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LLMBOOK_DEVICE", "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", seen.append)
    monkeypatch.setattr(dist, "init_process_group", seen.append)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: seen.append("left"))
    with pytest.raises(KeyError), processes() as device:
        assert device == torch.device("cuda:1")
        raise KeyError
    assert seen == [torch.device("cuda:1"), "nccl", "left"]


@parallel
def test_one_process_shares_with_nobody(parallel):
    model = nn.Linear(3, 5)
    assert share(model, parallel) is model
    assert type(model) is nn.Linear
    assert whole(model.weight) is model.weight
    with hold(model, last=False):
        model(torch.ones(3)).sum().backward()
    assert model.weight.grad is not None


def trained():
    """A model and its optimiser after a step."""
    model = script.model()
    optimizer = torch.optim.AdamW(model.parameters())
    script.loss(model, script.batches(0))[0].backward()
    optimizer.step()
    return model, optimizer


def test_everything_is_named_once():
    model, optimizer = trained()
    names = list(named(model))
    assert "embedding.weight" in names and "head.weight" not in names  # tied
    assert "norm.running_mean" in names
    moments = ["exp_avg", "exp_avg_sq", "step"]
    expected = {f"model.{name}" for name in names}
    expected |= {f"optimizer.{m}.{name}" for m in moments for name, _ in model.named_parameters()}
    assert gather(model, optimizer).keys() == expected


def test_gather_copies_and_scatter_puts_back():
    model, optimizer = trained()
    tensors = gather(model, optimizer)
    before = {name: x.clone() for name, x in tensors.items()}
    optimizer.step()
    assert all(torch.equal(tensors[name], before[name]) for name in before)  # a copy, not a view
    other = script.model(seed=1)
    fresh = torch.optim.AdamW(other.parameters())
    scatter(tensors, other, fresh)
    found = gather(other, fresh)
    assert found.keys() == before.keys()
    assert all(torch.equal(found[name], before[name]) for name in before)
    optimizer.step()
    fresh.step()
    assert all(torch.equal(tensors[name], before[name]) for name in before)
    assert other.head.weight is other.embedding.weight
