"""Training: steps by hand, sums over micro-batches, exact resumption after any kind of death, what is refused."""

import json
import math
import os
import pickle
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import training_script as script
from helpers import no_cuda
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmbook.checkpoints import CheckpointError, latest, load, save
from llmbook.train import Batches, Record, learning_rate, train

quick = settings(deadline=None, derandomize=True, max_examples=40)


# ---- Toys: a linear model, and data in which every micro-batch has another number of targets


IN, OUT, ROWS = 3, 5, 7


def linear(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Linear(IN, OUT).to(dtype)


def points(i):
    """Inputs, outputs and which of the outputs count: ``(7, 3)``, ``(7, 5)`` and ``(7, 5)``."""
    rng = np.random.default_rng(i)
    x, y = rng.normal(size=(ROWS, IN)), rng.normal(size=(ROWS, OUT))
    return tuple(map(torch.from_numpy, (x, y, rng.random((ROWS, OUT)) < (i % 4 + 1) / 5)))


def squares(model, batch):
    x, y, counts = batch
    return ((model(x) - y) ** 2)[counts].sum(), counts.sum()


def run(model=None, batches=points, loss=squares, **options):
    """The model and its records."""
    model = model or linear()
    return model, list(train(model, batches, loss, **{"steps": 5, "lr": 0.1, **options}))


def weights(model):
    return {name: x.detach().clone() for name, x in model.state_dict().items()}


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name, x in expected.items():
        assert torch.equal(actual[name], x), name


def without_speed(records):
    return [record[:4] for record in records]


# ---- A step


def by_hand(steps, lr, warmup, min_lr, weight_decay, betas, clip, accumulate):
    """The run of :func:`linear` on :func:`points` in numpy, from the papers."""
    model = linear()
    theta = {name: x.detach().numpy().copy() for name, x in model.named_parameters()}
    m, v = ({name: np.zeros_like(x) for name, x in theta.items()} for _ in range(2))
    records = []
    for s in range(1, steps + 1):
        total, count, g = 0.0, 0, {name: 0.0 for name in theta}
        for i in range((s - 1) * accumulate, s * accumulate):
            x, y, counts = (z.numpy() for z in points(i))
            error = np.where(counts, x @ theta["weight"].T + theta["bias"] - y, 0.0)
            total, count = total + (error**2).sum(), count + counts.sum()
            g = {"weight": g["weight"] + 2 * error.T @ x, "bias": g["bias"] + 2 * error.sum(0)}
        g = {name: x / count for name, x in g.items()}
        norm = math.sqrt(sum((x**2).sum() for x in g.values()))
        shrink = 1.0 if clip is None else min(1.0, clip / (norm + 1e-6))
        done = (s - 1 - warmup) / (steps - warmup)
        rate = lr * s / warmup if s <= warmup else min_lr + (lr - min_lr) * (1 + math.cos(math.pi * done)) / 2
        for name in theta:
            gradient, decay = g[name] * shrink, weight_decay * (name == "weight")
            m[name] = betas[0] * m[name] + (1 - betas[0]) * gradient
            v[name] = betas[1] * v[name] + (1 - betas[1]) * gradient**2
            m_hat, v_hat = m[name] / (1 - betas[0] ** s), v[name] / (1 - betas[1] ** s)
            theta[name] = theta[name] - rate * (m_hat / (np.sqrt(v_hat) + 1e-8) + decay * theta[name])
        records.append((s, total / count, rate, norm))
    return theta, records


@pytest.mark.parametrize("clip", [None, 0.5, 1e6])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_steps_are_those_of_the_papers(clip, accumulate, device):
    options = {"steps": 7, "lr": 0.1, "warmup": 2, "min_lr": 0.01, "weight_decay": 0.3, "betas": (0.8, 0.95),
               "clip": clip, "accumulate": accumulate}  # fmt: skip
    theta, expected = by_hand(**options)
    model, records = run(device=device, **options)
    np.testing.assert_allclose(without_speed(records), expected, rtol=1e-12, atol=1e-12)
    for name, x in model.named_parameters():
        assert x.device.type == device.type
        np.testing.assert_allclose(x.detach().cpu().numpy(), theta[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=str)
def test_micro_batches_together_equal_one_big_batch(dtype, tolerance):
    def typed(i):
        x, y, counts = points(i)
        return x.to(dtype), y.to(dtype), counts

    def big(i):
        return tuple(torch.cat(parts) for parts in zip(*(typed(4 * i + k) for k in range(4)), strict=True))

    assert len({typed(k)[2].sum().item() for k in range(4)}) == 4
    one, expected = run(linear(dtype=dtype), big, lr=0.02)
    four, records = run(linear(dtype=dtype), typed, lr=0.02, accumulate=4)
    np.testing.assert_allclose(without_speed(records), without_speed(expected), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(weights(four), weights(one), rtol=0, atol=tolerance)

    def mean(model, batch):  # what must not be done
        total, count = squares(model, batch)
        return total / count, 1

    assert abs(run(linear(dtype=dtype), typed, mean, accumulate=4)[1][0].loss - expected[0].loss) > 1e-3


def test_records_tell_the_loss_before_the_update():
    model = linear()
    total, count = squares(model, points(0))
    expected = (total / count).item()
    _, records = run(model)
    assert records[0].loss == pytest.approx(expected, rel=1e-12)
    assert [record.step for record in records] == [1, 2, 3, 4, 5]
    assert all(isinstance(record, Record) and record.tokens_per_second > 0 for record in records)
    assert all(type(x) is float for record in records for x in record[1:])


def test_speed_counts_the_first_tensor_of_all_micro_batches(monkeypatch):
    now = iter(range(0, 100, 2))
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    _, records = run(accumulate=3)
    assert {record.tokens_per_second for record in records} == {3 * ROWS * IN / 2}


def test_loss_falls():
    losses = [record.loss for record in run(batches=lambda i: points(0), steps=60, min_lr=0.01)[1]]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("whole", [True, False])
def test_counts_may_be_tensors_or_integers(whole):
    def loss(model, batch):
        total, count = squares(model, batch)
        return total, int(count) if whole else count

    assert without_speed(run(loss=loss)[1]) == without_speed(run()[1])


class Named(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor
    counts: torch.Tensor


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        (list, tuple),
        (lambda batch: Named(*batch), lambda batch: (batch.x, batch.y, batch.counts)),
        (lambda batch: dict(zip("xyc", batch, strict=True)), lambda batch: (batch["x"], batch["y"], batch["c"])),
        (lambda batch: torch.cat(batch, 1), lambda batch: (batch[:, :3], batch[:, 3:8], batch[:, 8:].bool())),
    ],
    ids=["list", "named tuple", "dict", "tensor"],
)
def test_batches_may_be_packed_in_any_way(pack, unpack, device):
    def loss(model, batch):
        return squares(model, unpack(batch))

    assert without_speed(run(batches=lambda i: pack(points(i)), loss=loss, device=device)[1]) == without_speed(
        run(device=device)[1]
    )


def test_frozen_parameters_stay():
    model = nn.Sequential(linear(), nn.Linear(OUT, OUT, dtype=torch.float64))
    model[1].requires_grad_(False)
    before = weights(model)
    run(model)
    after = weights(model)
    assert {name for name in before if torch.equal(before[name], after[name])} == {"1.weight", "1.bias"}


def test_parameter_that_the_loss_does_not_need_stays():
    model = linear()
    model.spare = nn.Parameter(torch.ones(3, 3, dtype=torch.float64))
    run(model, weight_decay=0.5)
    assert (model.spare == 1).all()


def test_gradients_that_the_caller_left_do_not_count():
    model = linear()
    squares(model, points(3))[0].backward()
    _, records = run(model)
    assert without_speed(records) == without_speed(run()[1])
    assert all(p.grad is None for p in model.parameters())


def test_caller_may_have_switched_gradients_off():
    with torch.no_grad():
        records = run()[1]
        assert not torch.is_grad_enabled()
    assert without_speed(records) == without_speed(run()[1])


# ---- Steps without targets, and steps that go wrong


def no_targets(i):
    x, y, counts = points(i)
    return x, y, counts & (i not in (2, 3))


def test_step_without_targets_changes_nothing():
    model, before = linear(), []
    records = []
    for record in train(model, no_targets, squares, steps=3, lr=0.1, accumulate=2):
        records.append(record)
        before.append(weights(model))
    assert (records[1].step, records[1].loss, records[1].grad_norm) == (2, 0.0, 0.0)
    assert_equal(before[1], before[0])
    assert not torch.equal(before[2]["weight"], before[1]["weight"])
    assert all(math.isfinite(x) for record in records for x in record)


def test_micro_batch_without_targets_adds_nothing():
    def some(i):
        return no_targets(2 if i % 2 else i)

    _, records = run(batches=some, accumulate=2)
    _, expected = run(batches=lambda i: no_targets(2 * i), accumulate=1, steps=5)
    assert records[0][:2] == expected[0][:2]


def test_run_whose_steps_all_lack_targets_can_be_resumed(tmp_path):
    def none(i):
        return no_targets(2)

    list(run(batches=none, checkpoint=tmp_path, steps=2))
    model = linear(seed=1)
    assert list(train(model, none, squares, steps=2, lr=0.1, checkpoint=tmp_path)) == []
    assert_equal(weights(model), weights(linear()))


def wrong_at(step, how):
    """A loss that fails in one step of one micro-batch each."""
    calls = iter(range(1, 100))

    def loss(model, batch):
        total, count = squares(model, batch)
        if next(calls) == step:
            total = {
                "nan": total * math.nan,
                "inf": total + math.inf,
                "-inf": total - math.inf,
                "slope": total + (model.weight.sum() * 0).sqrt(),  # √0, whose slope is 0 · ∞
                "large": total + model.weight.sum() * 1e200,  # finite, but not the square of its slope
            }[how]
        return total, count

    return loss


@pytest.mark.parametrize(
    ("how", "what"),
    [("nan", "loss, got nan"), ("inf", "loss, got inf"), ("-inf", "loss, got -inf"),
     ("slope", "gradient norm, got nan"), ("large", "gradient norm, got inf")],
)  # fmt: skip
def test_step_that_is_not_finite_stops_before_the_update(how, what):
    model, records = linear(), []
    with pytest.raises(FloatingPointError) as caught:
        for record in train(model, points, wrong_at(3, how), steps=5, lr=0.1):
            records.append(record)
            before = weights(model)
    assert re.match(f"step 3: expected a finite {what}; the weights are as before", str(caught.value))
    assert str(caught.value).endswith("the last checkpoint: there is none")
    assert len(records) == 2
    assert_equal(weights(model), before)
    assert all(p.grad is None for p in model.parameters())


def test_error_names_the_last_checkpoint(tmp_path):
    with pytest.raises(FloatingPointError, match=f"the last checkpoint: {tmp_path}/step-00000004$"):
        run(loss=wrong_at(6, "nan"), steps=7, checkpoint=tmp_path, every=2)
    with pytest.raises(FloatingPointError, match=f"step 5: .*the last checkpoint: {tmp_path}/step-00000004$"):
        run(loss=wrong_at(1, "nan"), steps=7, checkpoint=tmp_path, every=2)


# ---- The learning rate


@quick
@given(steps=st.integers(1, 50), warmup=st.integers(0, 50), low=st.floats(0, 1))
def test_learning_rate_is_torchs_cosine_after_the_warm_up(steps, warmup, low):
    warmup = min(warmup, steps)
    rates = [learning_rate(s, steps=steps, lr=2.0, warmup=warmup, min_lr=low) for s in range(1, steps + 1)]
    assert rates[:warmup] == pytest.approx([2.0 * (k + 1) / warmup for k in range(warmup)])
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps - warmup, 1), eta_min=low)
    for rate in rates[warmup:]:
        assert rate == pytest.approx(cosine.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        cosine.step()


def test_corners_of_the_learning_rate():
    def rate(step, **options):
        return learning_rate(step, **{"steps": 10, "lr": 0.5, "warmup": 4, "min_lr": 0.1, **options})

    assert rate(1) == 0.125
    assert rate(4) == rate(5) == 0.5
    assert rate(8) == pytest.approx(0.3)  # half way from 5 to 11
    assert rate(10) > 0.1
    assert rate(11) == rate(99) == 0.1
    assert rate(1, warmup=0) == 0.5
    assert rate(1, steps=1, warmup=0) == rate(1, steps=1, warmup=1) == 0.5
    assert rate(10, warmup=10) == 0.5


def test_records_tell_the_learning_rate():
    _, records = run(warmup=2, min_lr=0.05)
    assert [r.lr for r in records] == [learning_rate(s, steps=5, lr=0.1, warmup=2, min_lr=0.05) for s in range(1, 6)]


# ---- Modes and random numbers


def test_model_trains_in_training_mode_and_keeps_the_callers_in_between():
    model = nn.Sequential(linear(), nn.Dropout(0.1), nn.Dropout(0.1))
    model[1].eval()
    seen = []

    def loss(call, batch):
        seen.append([m.training for m in model.modules()])
        return squares(call, batch)

    for _ in train(model, points, loss, steps=3):
        assert [m.training for m in model.modules()] == [True, True, False, True]
    assert seen == [[True] * 4] * 3


def test_mode_is_restored_after_an_error():
    model = linear().eval()

    def loss(model, batch):
        assert model.training
        raise KeyError

    with pytest.raises(KeyError):
        run(model, loss=loss)
    assert not model.training


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_run_and_caller_do_not_disturb_each_others_random_numbers():
    model, other = script.model(), script.model()
    expected = without_speed(train(model, script.batches, script.loss, steps=5))
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    undisturbed = [draw() for _ in range(6)]
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    records, drawn = [], [draw()]
    for record in train(other, script.batches, script.loss, steps=5):
        other.eval()(torch.zeros(2, script.T).long())
        records.append(record)
        drawn.append(draw())
    assert without_speed(records) == expected
    assert drawn == undisturbed
    assert_equal(weights(other), weights(model))


def test_seed_decides_the_random_numbers_of_data_and_loss():
    def drawn(seed):
        seen = []

        def loss(model, batch):
            seen.append((*batch, *draw()))
            return squares(model, points(0))

        run(batches=lambda i: [torch.tensor(draw())], loss=loss, steps=2, seed=seed)
        return [x for batch, *numbers in seen for x in (*batch.tolist(), *numbers)]

    assert drawn(0) == drawn(0)
    assert not set(drawn(0)) & set(drawn(1))


def test_each_micro_batch_has_random_numbers_of_its_own():
    seen = []

    def loss(model, batch):
        seen.append((*batch, *draw()))
        return squares(model, points(0))

    run(batches=lambda i: [torch.tensor(draw())], loss=loss, steps=3, accumulate=2)
    numbers = [x for batch, *drawn in seen for x in (*batch.tolist(), *drawn)]
    assert len(numbers) == 36 == len(set(numbers))


def test_run_that_is_closed_leaves_a_model_that_works():
    model = script.model().eval()
    records = train(model, script.batches, script.loss, steps=5)
    next(records)
    records.close()
    assert list(records) == []
    assert not model.training
    assert model(torch.zeros(2, script.T).long()).isfinite().all()


# ---- bfloat16, compilation, devices, progress


def test_bf16_computes_the_loss_in_bfloat16_and_keeps_weights_in_float32(device):
    seen = []

    def loss(model, batch):
        seen.append(model(batch[0]).dtype)
        return script.loss(model, batch)

    model, other = (script.model(dropout=0.0) for _ in range(2))
    losses = [record.loss for record in train(model, script.batches, loss, steps=3, bf16=True, device=device)]
    expected = [record.loss for record in train(other, script.batches, script.loss, steps=3, device=device)]
    assert seen == [torch.bfloat16] * 3
    assert {x.dtype for x in model.parameters()} == {torch.float32}
    assert losses != expected
    assert losses == pytest.approx(expected, rel=0.02)


def test_compile_gives_the_loss_a_compiled_model(monkeypatch):
    class Compiled(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return self.inner(x)

    seen = []
    monkeypatch.setattr(torch, "compile", Compiled)

    def loss(model, batch):
        seen.append(type(model))
        return squares(model, batch)

    model, records = run(loss=loss, compile=True)
    assert seen == [Compiled] * 5
    assert without_speed(records) == without_speed(run()[1])
    assert list(weights(model)) == ["weight", "bias"]


@no_cuda
def test_compiled_training_equals_the_other():
    expected = [record[:4] for record in train(script.calm().cuda(), script.batches, script.loss, steps=3)]
    records = [record[:4] for record in train(script.calm().cuda(), script.batches, script.loss, steps=3, compile=True)]
    np.testing.assert_allclose(records, expected, rtol=1e-6)


def test_device_is_that_of_the_model_unless_given(device):
    seen = set()

    def loss(model, batch):
        seen.update(x.device.type for x in batch)
        return squares(model, batch)

    run(linear().to(device), loss=loss)
    run(linear(), loss=loss, device=device)
    run(linear(), loss=loss, device=str(device))
    assert seen == {device.type}


def test_nothing_is_printed(capfd, tmp_path):
    run(checkpoint=tmp_path, every=2)
    assert capfd.readouterr() == ("", "")


def test_progress_shows_steps_loss_and_learning_rate(capsys, tmp_path):
    _, records = run(progress=True, checkpoint=tmp_path)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "5/5" in shown.err
    assert f"loss={records[-1].loss:.4f}, lr={records[-1].lr:.2e}" in shown.err


# ---- Checkpoints


FAST = {"steps": 8, "every": 2, "accumulate": 2, "lr": 0.05, "warmup": 3, "keep": 3}


def restless(folder, stop=None, model=None, **options):
    """The records of a run with dropout; only ``stop`` steps of it if so asked."""
    records = train(model or script.model(), script.batches, script.loss, checkpoint=folder, **{**FAST, **options})
    return [script.line(record) for _, record in zip(range(stop or 99), records, strict=False)]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run to the end: its records, and the files of its last checkpoint."""
    folder = tmp_path_factory.mktemp("unbroken")
    return restless(folder), last_files(folder)


def last_files(folder):
    return {p.name: p.read_bytes() for p in latest(folder).iterdir()}


def steps(folder):
    return sorted(int(p.name[5:]) for p in Path(folder).glob("step-*"))


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 6, 7])
def test_resumed_run_is_the_unbroken_one(tmp_path, unbroken, stop):
    records, files = unbroken
    assert restless(tmp_path, stop) == records[:stop]
    saved = stop - stop % 2
    assert restless(tmp_path, model=script.model(seed=5 if saved else 0)) == records[saved:]
    assert last_files(tmp_path) == files


def test_checkpoints_are_written_where_they_should(tmp_path):
    for _, record in zip(range(7), train(linear(), points, squares, steps=7, checkpoint=tmp_path, every=3, keep=9)):  # noqa: B905
        assert steps(tmp_path) == [s for s in (3, 6, 7) if s <= record.step]
    other = tmp_path / "only the last"
    run(checkpoint=str(other))
    assert steps(other) == [5]
    run(checkpoint=tmp_path / "two", every=1)
    assert steps(tmp_path / "two") == [4, 5]


def test_complete_run_yields_nothing_and_gives_the_final_weights(tmp_path):
    model, _ = run(checkpoint=tmp_path)
    other = linear(seed=1)
    assert list(train(other, points, squares, steps=5, lr=0.1, checkpoint=tmp_path)) == []
    assert_equal(weights(other), weights(model))


def test_checkpoint_holds_what_training_changes_and_where_it_is(tmp_path):
    model = script.model()
    restless(tmp_path, model=model, seed=4)
    tensors, state = load(latest(tmp_path))
    names = [name for name, _ in model.named_parameters()]
    assert {f"optimizer.{m}.{name}" for m in ("exp_avg", "exp_avg_sq", "step") for name in names} < tensors.keys()
    assert all(torch.equal(tensors[f"model.{name}"], x) for name, x in model.named_parameters())
    assert torch.equal(tensors["model.norm.running_var"], model.norm.running_var)
    assert "model.head.weight" not in tensors  # the embedding, once
    assert (state["step"], state["next_batch"], state["settings"]["seed"]) == (8, 16, 4)
    assert state["torch"] == torch.__version__


def test_training_pickles_nothing(tmp_path, monkeypatch):
    for module, name in [(pickle, "dumps"), (pickle, "loads"), (pickle, "dump"), (pickle, "load"), (torch, "save"),
                         (torch, "load")]:  # fmt: skip
        monkeypatch.setattr(module, name, lambda *args, **options: pytest.fail("pickle was used"))
    restless(tmp_path, stop=4)
    restless(tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.suffix in (".json", ".safetensors") or path.name == "SHA256SUMS"


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "SHA256SUMS"])
@pytest.mark.parametrize("how", ["cut", "flip", "remove"])
def test_damaged_checkpoint_costs_two_steps_and_nothing_else(tmp_path, unbroken, name, how):
    restless(tmp_path, stop=6)
    path = tmp_path / "step-00000006" / name
    content = bytearray(path.read_bytes())
    if how == "flip":
        content[len(content) // 2] ^= 4
    path.write_bytes(content[: len(content) // 2] if how == "cut" else content)
    if how == "remove":
        path.unlink()
    with pytest.warns(UserWarning, match="step-00000006: damaged"):
        assert restless(tmp_path, model=script.model(seed=5)) == unbroken[0][4:]
    assert last_files(tmp_path) == unbroken[1]
    assert steps(tmp_path) == [4, 6, 8]
    load(tmp_path / "step-00000006")


def test_run_does_not_begin_anew_when_all_checkpoints_are_damaged(tmp_path):
    restless(tmp_path, stop=2)
    (tmp_path / "step-00000002" / "state.json").unlink()
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match="all of them damaged; move them away"):
        restless(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lr": 0.06}, "lr: expected 0.06, found 0.05"),
        ({"steps": 9}, "steps: expected 9, found 8"),
        ({"min_lr": 0.01}, "min_lr: expected 0.01, found 0.0"),
        ({"warmup": 1}, "warmup: expected 1, found 3"),
        ({"weight_decay": 0.0}, "weight_decay: expected 0.0, found 0.01"),
        ({"betas": (0.9, 0.98)}, "betas: expected [0.9, 0.98], found [0.9, 0.999]"),
        ({"clip": None}, "clip: expected None, found 1.0"),
        ({"accumulate": 1, "seed": 1}, "accumulate: expected 1, found 2; seed: expected 1, found 0"),
        ({"bf16": True}, "bf16: expected True, found False"),
        ({"parallel": "fsdp"}, "parallel: expected fsdp, found ddp"),
    ],
)
def test_run_with_other_settings_is_not_resumed(tmp_path, changed, message):
    restless(tmp_path, stop=2)
    message = f"{tmp_path}/step-00000002: of other settings, so the run cannot go on from it: {message}"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        restless(tmp_path, **changed)
    restless(tmp_path, keep=1, every=3, progress=False)  # these may differ


def of_another_width():
    model = linear()
    model.weight, model.bias = nn.Parameter(torch.zeros(7, IN).double()), nn.Parameter(torch.zeros(7).double())
    return model


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (of_another_width, "weight: expected ((7, 3), torch.float64), found ((5, 3), torch.float64); bias: expected"),
        (
            lambda: linear(dtype=torch.float32),
            "weight: expected ((5, 3), torch.float32), found ((5, 3), torch.float64)",
        ),
        (lambda: nn.Linear(IN, OUT, bias=False).double(), "bias: expected nothing, found ((5,), torch.float64)"),
        (
            lambda: nn.Sequential(linear()),
            "0.weight: expected ((5, 3), torch.float64), found nothing; 0.bias: expected",
        ),
    ],
    ids=["shape", "dtype", "missing", "names"],
)
def test_another_model_is_not_resumed_and_not_touched(tmp_path, other, message):
    run(checkpoint=tmp_path)
    model = other()
    before = weights(model)
    message = f"{tmp_path}/step-00000005: of another model, so the run cannot go on from it: {message}"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        run(model, checkpoint=tmp_path)
    assert_equal(weights(model), before)


def test_checkpoint_of_another_program_is_refused(tmp_path):
    save(tmp_path, 3, {"x": torch.ones(3)}, {})
    with pytest.raises(CheckpointError, match=r"of other settings.*: steps: expected 5, found nothing.* and 8 more"):
        run(checkpoint=tmp_path)


def test_full_disk_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, unbroken, monkeypatch):
    restless(tmp_path, stop=5)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            restless(tmp_path)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-00000002", "step-00000004"]
    assert restless(tmp_path) == unbroken[0][4:]
    assert last_files(tmp_path) == unbroken[1]


# ---- Killed


class Server:
    """Processes that train, forked from one that has imported torch."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, script.__file__], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)  # fmt: skip

    def __call__(self, *jobs, kill_after=None):
        """The exit codes of the jobs, which are killed after so many seconds; −9 of those that did not end before."""
        print(json.dumps({"jobs": jobs, "kill_after": kill_after}), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def server():
    server = Server()
    with server.process:
        yield server
        server.process.stdin.close()


def logged(folder, rank=0):
    return (Path(folder) / f"log{rank}").read_text().splitlines()


@pytest.fixture
def memory(tmp_path):
    """A folder in memory if there can be one: nothing waits for a disk there."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else tmp_path) as folder:
        yield Path(folder)


def test_every_point_of_saving_survives_a_kill(server, memory, unbroken):
    records, files = unbroken
    restless(memory / "start", stop=6, keep=1)
    seen, codes, n = set(), [-9], 0
    while codes[-1] == -9:
        folders = [memory / str(n + k) for k in range(10)]
        for folder in folders:
            shutil.copytree(memory / "start", folder)
        codes = server(*({"folder": str(f), "kill_at_line": n + k, **FAST, "keep": 1} for k, f in enumerate(folders)))
        n += codes.count(-9)
        assert codes == sorted(codes)  # all are killed, or the first of them are and the others end
        for folder in folders:
            seen.add(tuple(steps(folder)))
            rest = restless(folder, keep=1, model=script.model(seed=5))
            assert rest in (records[6:], [])
            assert last_files(folder) == files
            assert logged(folder) in (records[6:], records[6:7])
    assert n > 40
    assert seen == {(6,), (6, 8), (8,)}


def test_half_written_file_survives(server, tmp_path, unbroken):
    for _ in range(2):
        assert server({"folder": str(tmp_path), "kill_while_writing": True, **FAST}) == [-9]
        assert steps(tmp_path) == []
    assert server({"folder": str(tmp_path), **FAST}) == [0]
    assert last_files(tmp_path) == unbroken[1]
    assert logged(tmp_path) == [*unbroken[0][:1] * 2, *unbroken[0]]
    assert [p.name for p in tmp_path.glob(".*")] == []


LONG = {**FAST, "steps": 40}


def test_killed_at_any_moment_a_run_ends_as_the_unbroken_one(server, tmp_path):
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    began = time.perf_counter()
    assert server({"folder": whole, **LONG}) == [0]
    took = time.perf_counter() - began
    rng, codes = np.random.default_rng(0), [-9]
    for _ in range(20):
        codes = server({"folder": broken, **LONG}, kill_after=took * rng.uniform(0.05, 0.4))
        if codes == [0]:
            break
        assert codes == [-9]
    assert codes == [0] or server({"folder": broken, **LONG}) == [0]
    assert last_files(broken) == last_files(whole)
    assert set(logged(broken)) <= set(logged(whole))


def pair(folder, port, **options):
    """The same job for two processes."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LLMBOOK_DEVICE": "cpu"}
    places = [shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    return [{"folder": str(folder), "environment": place, **options} for place in places]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_that_are_killed_end_as_two_that_are_not(server, tmp_path, parallel):
    options = {**LONG, "steps": 16, "parallel": parallel}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    began = time.perf_counter()
    assert server(*pair(whole, free_port(), **options)) == [0, 0]
    took = time.perf_counter() - began
    for share in (0.5, 0.7):
        codes = server(*pair(broken, free_port(), **options), kill_after=took * share)
        assert set(codes) <= {0, -9}
    assert server(*pair(broken, free_port(), **options)) == [0, 0]
    assert last_files(broken) == last_files(whole)
    for rank in (0, 1):
        assert set(logged(broken, rank)) <= set(logged(whole, rank))


# ---- What is refused


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"lr": 0.0}, "lr: expected a positive number, got 0.0"),
        ({"lr": math.nan}, "lr: expected a positive number, got nan"),
        ({"lr": math.inf}, "lr: expected a positive number, got inf"),
        ({"min_lr": -0.1}, "min_lr: expected a number between 0 and lr=0.1, got -0.1"),
        ({"min_lr": 0.2}, "min_lr: expected a number between 0 and lr=0.1, got 0.2"),
        ({"warmup": -1}, "warmup: expected a number between 0 and steps=5, got -1"),
        ({"warmup": 6}, "warmup: expected a number between 0 and steps=5, got 6"),
        ({"weight_decay": -0.1}, "weight_decay: expected a number that is not negative, got -0.1"),
        ({"betas": (0.9, 1.0)}, "betas: expected two numbers in [0, 1), got [0.9, 1.0]"),
        ({"betas": (0.9,)}, "betas: expected two numbers in [0, 1), got [0.9]"),
        ({"clip": 0.0}, "clip: expected a positive number or None, got 0.0"),
        ({"accumulate": 0}, "accumulate: expected at least 1, got 0"),
        ({"seed": -1}, "seed: expected a number that is not negative, got -1"),
        ({"parallel": "dp"}, "parallel: expected 'ddp' or 'fsdp', got 'dp'"),
        ({"every": 3}, "every: expected at least 1 and a folder to write to, got every=3, checkpoint=None"),
        ({"every": 0, "checkpoint": "x"}, "every: expected at least 1 and a folder to write to, got every=0"),
        ({"keep": 0, "checkpoint": "x"}, "keep: expected at least 1, got 0"),
        ({"model": linear().requires_grad_(False)}, "model: expected a parameter that requires a gradient, found none"),
        ({"model": nn.Dropout()}, "model: expected a parameter that requires a gradient, found none"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_what_is_out_of_range_is_refused_at_once(wrong, message):
    options = {"model": linear(), "batches": points, "loss": squares, "steps": 5, "lr": 0.1, **wrong}
    with pytest.raises(ValueError, match=re.escape(message)):
        train(**options)  # no record was asked for


@pytest.mark.parametrize(
    ("result", "kind"),
    [(lambda t, n: t / n, "Tensor"), (lambda t, n: (t, n, 3), "tuple"), (lambda t, n: (t.item(), n), "tuple"),
     (lambda t, n: (t.expand(3), n), "tuple"), (lambda t, n: None, "NoneType")],
    ids=["mean", "three", "float", "vector", "None"],
)  # fmt: skip
def test_loss_must_be_a_total_and_a_count(result, kind):
    message = f"loss: expected (total, count), a tensor without axes and a number, got {kind}"
    with pytest.raises(TypeError, match=re.escape(message)):
        run(loss=lambda model, batch: result(*squares(model, batch)))


def test_batch_must_be_made_of_tensors():
    with pytest.raises(TypeError, match="batch: expected a tensor, or a tuple, list or dict of tensors, got ndarray"):
        run(batches=lambda i: points(i)[0].numpy())


def test_batches_of_rows_are_data():
    ids = torch.arange(35).view(7, 5) % script.V
    padded = torch.nn.functional.pad(ids, (0, 2))
    records = train(script.calm(), Batches((padded, padded), 3), script.loss, steps=4)
    assert [record.step for record in records] == [1, 2, 3, 4]


def test_batches_are_a_function():
    with pytest.raises(TypeError, match="batches: expected a function of a number, such as Batches, got Tensor"):
        train(torch.nn.Linear(2, 2), torch.zeros(3), None, steps=1)


def test_steps_are_counted_from_1():
    with pytest.raises(ValueError, match="step: expected at least 1, got 0"):
        learning_rate(0, steps=5, lr=1.0)
