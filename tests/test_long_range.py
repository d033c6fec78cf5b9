"""The study of chapter 2.3: the task is what it says, the networks are of one size, and the file is the plan's."""

import json
from itertools import product

import long_range
import pytest
import torch
from helpers import assert_close
from long_range import ASK, FILLER, OUT, WIDTHS, Memory, Plan, learn, looked, open_gates, right, rows
from torch import nn

from llmbook.recurrent import Recurrent

STUDY = json.loads(OUT.read_text("utf8"))
PLAN = Plan()


def test_a_row_is_letters_filler_and_questions_at_the_distance():
    ids, letters = rows(7, 5, torch.Generator().manual_seed(0))
    assert ids.shape == (5, 11) and (ids[:, :4] == letters).all() and (letters < 8).all()
    assert (ids[:, 4:7] == FILLER).all() and (ids[:, 7:] == ASK).all()


@pytest.mark.parametrize("kind", WIDTHS)
def test_every_network_scores_eight_letters_at_four_places(kind):
    assert Memory(kind, 12)(torch.zeros(3, 12, dtype=torch.long)).shape == (3, 4, 8)


@pytest.mark.parametrize("distance", PLAN.distances)
def test_the_networks_are_of_about_the_same_size(distance):
    sizes = long_range.parameters(distance + 4)
    assert sizes == STUDY["parameters"][str(distance)]
    assert max(sizes.values()) < 1.4 * min(sizes.values())


def test_torchs_lstm_computes_what_the_book_writes_out():
    torch.manual_seed(0)
    layer, x = long_range.recurrent("open", 40, 20), torch.randn(2, 7, 40)
    assert isinstance(layer, nn.LSTM)
    assert_close(layer(x)[0], Recurrent.from_torch(layer)(x)[0])


def test_open_gates_keep_for_as_long_as_they_should():
    torch.manual_seed(0)
    layer = nn.LSTM(4, 100)
    open_gates(layer, 50)
    i, f, *_ = (layer.bias_ih_l0 + layer.bias_hh_l0).detach().chunk(4)
    steps = 1 / (1 - f.sigmoid())  # a memory that keeps a share s of itself lasts 1 / (1 − s) steps
    assert steps.min() >= 2 and 40 < steps.max() <= 50
    assert_close(i, -f)


def test_attention_that_looks_right_has_all_its_weight_there():
    model, (ids, letters) = Memory("attention", 12), rows(8, 3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.tokens.weight.zero_()
        model.places.weight.zero_()
        model.places.weight[:4, :4] = model.places.weight[8:, :4] = 30 * torch.eye(4)
        w = model.layer.W_qkv.weight.zero_()
        model.layer.W_qkv.bias.zero_()
        w[:40], w[40:80] = torch.eye(40), torch.eye(40)
    weight = looked(model, ids, 8)["weight"]
    assert 0.49 < weight <= 0.5  # a question looks like its letter's place, and like its own
    assert 0 <= right(model, ids, letters) <= 1


def test_attention_learns_a_short_distance():
    result = learn("attention", 4, 0, 3e-3, 75)
    assert result["accuracy"] > 0.95 and result["weight"] > 0.5


def test_the_file_has_every_run_of_the_plan_and_no_other():
    found = [(run["kind"], run["distance"], run["seed"], run["limit"]) for run in STUDY["runs"]]
    planned = list(product(WIDTHS, PLAN.distances, PLAN.seeds, [PLAN.steps]))
    planned += list(product(("rnn", "lstm"), [PLAN.longer_distance], PLAN.longer_seeds, [PLAN.longer]))
    planned += list(product(WIDTHS, PLAN.distances, [PLAN.tuning_seed], [PLAN.steps])) * len(PLAN.lrs)
    assert sorted(found) == sorted(planned)
    assert STUDY["plan"] == json.loads(json.dumps(PLAN.__dict__))


def test_the_learning_rate_is_the_better_of_those_tried():
    for kind, distance in product(WIDTHS, PLAN.distances):
        runs = [run for run in STUDY["runs"] if (run["kind"], run["distance"]) == (kind, distance)]
        tried = [run for run in runs if run["seed"] == PLAN.tuning_seed]
        best = max(tried, key=lambda run: (run["accuracy"], -run["steps"]))
        assert {run["lr"] for run in runs if run["seed"] != PLAN.tuning_seed} == {best["lr"]}
