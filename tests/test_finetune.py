"""Fine-tuning and what it is compared with: a task that can be learnt is, the same way each time; the study's log."""

import json
import re
from dataclasses import asdict, replace

import finetuning
import pytest
import torch
import torch.nn.functional as F
from finetuning import Log, Plan, digest, interval, summary, work
from helpers import normal
from torch import nn

from llmbook import probe, text, zoo
from llmbook.counting import NaiveBayes, count, neighbourhoods, ngrams, spellings
from llmbook.fetch import FetchError
from llmbook.finetune import LOOKS, Settings, classifier, finetune, tune
from llmbook.mlm import MaskedLM
from llmbook.probe import Frozen, logistic
from llmbook.tasks import IGNORE, Example, Task, evaluate, task
from llmbook.transformer import Encoder, EncoderConfig

TOKENIZER = text.train_characters(["abcdefgh"], 261 + 8)
CONFIG = EncoderConfig(vocab_size=269, d_model=16, n_heads=2, n_layers=1, d_ff=32, max_len=16, init_std=0.2)
QUICK = Settings(lr=1e-2, steps=60)
kinds = pytest.mark.parametrize("kind", ["tokens", "sentence"])


RULES = {
    "row": lambda units, i: "a" in units,  # of a sentence, or of each letter in it
    "letter": lambda units, i: units[i] in "abcd",
    "before": lambda units, i: i > 0 and units[i - 1] == "a",
}


def toy(kind, rule="row", join=1):
    """Rows of letters, of which each, or the whole, keeps a rule or does not; an "h" has no label."""
    generator, examples = torch.Generator().manual_seed(0), []
    for i in range(360):
        length = int(torch.randint(3, 8, (1,), generator=generator))
        units = tuple("abcdefgh"[x] for x in torch.randint(8, (length,), generator=generator).tolist())
        labels = tuple(IGNORE if unit == "h" else int(RULES[rule](units, i)) for i, unit in enumerate(units))
        examples.append(Example(str(i), "".join(units), units, labels if kind == "tokens" else (int("a" in units),)))
    splits = {"train": tuple(examples[:200]), "dev": tuple(examples[200:260]), "test": tuple(examples[260:])}
    return Task("toy", "zh", kind, ("no", "yes"), "accuracy" if kind == "sentence" else "mark F1", splits, join)


def weights(result):
    return result.predict.model.state_dict()


# ---- Fine-tuning


@pytest.mark.parametrize("made", [toy("sentence"), toy("tokens"), toy("tokens", "letter", join=2)],
                         ids=["sentence", "tokens", "joined"])  # fmt: skip
def test_what_can_be_learnt_is_learnt_from_random_weights(made):
    result = finetune(CONFIG, TOKENIZER, made, 150, settings=replace(QUICK, steps=120))
    assert result.dev > 0.9 and evaluate(made, result.predict) > 0.9


@kinds
def test_a_run_is_a_function_of_its_arguments(kind):
    made = toy(kind)
    one = finetune(CONFIG, TOKENIZER, made, 30, seed=1, settings=QUICK)
    torch.rand(7)  # whatever happens in between
    two = finetune(CONFIG, TOKENIZER, made, 30, seed=1, settings=QUICK)
    other = finetune(CONFIG, TOKENIZER, made, 30, seed=2, settings=QUICK)
    assert one.dev == two.dev and one.chosen == two.chosen
    assert all(torch.equal(x, y) for x, y in zip(weights(one).values(), weights(two).values(), strict=True))
    assert not torch.equal(weights(one)["classifier.weight"], weights(other)["classifier.weight"])


def test_a_run_leaves_random_numbers_and_its_start_alone():
    encoder, made = Encoder(CONFIG), toy("sentence")
    before, state = {k: x.clone() for k, x in encoder.state_dict().items()}, torch.get_rng_state()
    finetune(encoder, TOKENIZER, made, 30, settings=QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(x, before[k]) for k, x in encoder.state_dict().items())


@kinds
def test_both_arms_differ_in_the_encoder_alone(kind):
    encoder = Encoder(CONFIG)
    trained, scratch = (classifier(start, toy(kind), seed=5, dropout=0.25) for start in (encoder, CONFIG))
    head = {k for k in scratch.state_dict() if not k.startswith("encoder.")}
    assert head and all(torch.equal(trained.state_dict()[k], scratch.state_dict()[k]) for k in head)
    assert all(torch.equal(x, trained.encoder.state_dict()[k]) for k, x in encoder.state_dict().items())
    assert not torch.equal(scratch.encoder.embedding.tokens.weight, encoder.embedding.tokens.weight)
    for model in (trained, scratch):
        assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.25}


def test_what_is_kept_is_the_first_of_the_best(monkeypatch):
    scores = iter([0.1, 0.5, 0.3, 0.5, *[0.2] * 6])
    monkeypatch.setattr("llmbook.finetune.evaluate", lambda *_: next(scores))
    made = toy("sentence")
    result = finetune(CONFIG, TOKENIZER, made, 30, settings=replace(QUICK, steps=20))
    assert (result.dev, result.chosen) == (0.5, {"step": 4})
    monkeypatch.setattr("llmbook.finetune.evaluate", lambda *_: 0.0)
    first = finetune(CONFIG, TOKENIZER, made, 30, settings=replace(QUICK, steps=20))
    assert first.chosen == {"step": 2} and not torch.equal(
        weights(first)["classifier.weight"], weights(result)["classifier.weight"]
    )


def test_the_score_belongs_to_the_weights_that_are_kept():
    made = toy("tokens")
    result = finetune(CONFIG, TOKENIZER, made, 30, settings=QUICK)
    assert evaluate(made, result.predict, "dev") == result.dev and result.chosen["step"] in range(6, 61, 6)


def test_predictions_ignore_the_labels_and_the_other_rows():
    made = toy("tokens")
    predict = finetune(CONFIG, TOKENIZER, made, 30, settings=QUICK).predict
    rows = made.splits["test"]
    blind = [row._replace(labels=tuple(y if y == IGNORE else 0 for y in row.labels)) for row in rows]
    assert predict(rows) == predict(blind) == [predict([row])[0] for row in rows]


def test_tuning_takes_the_best_mean_and_the_first_of_equals():
    grid = [Settings(lr=lr) for lr in (1e-3, 1e-2, 1e-1)]
    scores = {(1e-3, 7): 0.9, (1e-3, 8): 0.1, (1e-2, 7): 0.75, (1e-2, 8): 0.5, (1e-1, 7): 0.5, (1e-1, 8): 0.75}
    assert tune(lambda s, seed: scores[s.lr, seed], grid, [7, 8]) == grid[1]
    with pytest.raises(ValueError, match="grid, seeds: expected at least one of each, got 3 and 0"):
        tune(lambda s, seed: 0.0, grid, [])


def test_what_finetuning_refuses():
    made = toy("tokens")
    with pytest.raises(TypeError, match=r"start: expected an Encoder \(a MaskedLM has one: .encoder\) .* got MaskedLM"):
        finetune(MaskedLM(CONFIG), TOKENIZER, made, 30)
    with pytest.raises(ValueError, match="n: expected 1 to 200 labelled sentences of toy, got 201"):
        finetune(CONFIG, TOKENIZER, made, 201)
    with pytest.raises(ValueError, match="expected at most max_len=4 tokens a row"):
        finetune(replace(CONFIG, max_len=4), TOKENIZER, made, 30)
    with pytest.raises(ValueError, match=f"steps: expected at least {LOOKS}, one for each look .*, got 9"):
        Settings(steps=9)
    with pytest.raises(ValueError, match="batch_size: expected a positive integer, got 0"):
        Settings(batch_size=0)


# ---- Counting


def test_naive_bayes_is_its_formula():
    model = NaiveBayes([["x", "x", "y"], ["y"], ["z"]], [0, 1, 1], 2, smoothing=0.5)
    expected = torch.tensor([[2.5, 1.5, 0.5], [0.5, 1.5, 1.5]]) / torch.tensor([[4.5], [3.5]])
    torch.testing.assert_close(model.log_p.exp(), expected.double())
    torch.testing.assert_close(model.log_prior.exp(), torch.tensor([1.5, 2.5]) / 4)
    assert model([["x"], ["y"], ["z", "z"], ["never", "seen"]]) == [0, 1, 1, 1]


def test_features_by_hand():
    assert ngrams(["He", "didn't", "—", "go."], 2) == ["he", "didn't", "go", "he didn't", "didn't go"]
    assert spellings(["Go!"]) == ["go", "<go", "go>", "<go>"]
    row = Example("0", "", ("a", "。", "b"), (0, IGNORE, 1))
    assert neighbourhoods(row) == [["0 a", "- ", "+ 。", "-0  a", "0+ a 。"], ["0 b", "- 。", "+ ", "-0 。 b", "0+ b "]]


@kinds
def test_counting_learns_what_can_be_counted(kind):
    made = toy(kind, "before")
    result = count(made, 150, seed=1)
    assert evaluate(made, result.predict) > 0.9 and evaluate(made, result.predict, "dev") == result.dev
    assert count(made, 150, seed=1).chosen == result.chosen


# ---- Frozen encoders


def test_logistic_regression_is_at_its_minimum():
    x, y = normal(60, 5).detach() * 3 + 1, torch.arange(60) % 3
    weight, bias = logistic(x, y, 3, 0.1)
    scale = x.std(0, correction=0)
    inner = (weight * scale).requires_grad_()  # the weights of standardised components, which the penalty is on
    offset = bias.clone().requires_grad_()
    value = F.cross_entropy(x @ (inner / scale).T + offset, y) + 0.05 * inner.square().sum()
    # moving the weights at the mean of x, the bias takes along: the minimum is in (inner, bias + W·mean)
    inner_gradient, offset_gradient = torch.autograd.grad(value, [inner, offset])
    inner_gradient -= offset_gradient[:, None] * (x.mean(0) / scale)
    assert inner_gradient.abs().max() < 1e-4 and offset_gradient.abs().max() < 1e-4
    with pytest.raises(ValueError, match=re.escape("got (60, 5), (59,), 0.1")):
        logistic(x, y[1:], 3, 0.1)


@kinds
def test_frozen_vectors_are_those_of_the_encoder(kind):
    encoder, made = Encoder(CONFIG).eval(), toy(kind)
    frozen, rows = Frozen(encoder, TOKENIZER, made), made.splits["test"]
    found = frozen.vectors(rows)
    with torch.no_grad():
        for row, part in zip(rows, found.split([sum(y != IGNORE for y in r.labels) for r in rows]), strict=True):
            h = encoder(torch.tensor([[1, *text.encode(TOKENIZER, row.source), 2]]))[0]
            asked = [i + 1 for i, y in enumerate(row.labels) if y != IGNORE]
            torch.testing.assert_close(part, h[asked] if kind == "tokens" else h.mean(0, keepdim=True))
    assert torch.equal(frozen.vectors(rows[::-1]).sort(0)[0], found.sort(0)[0])


def test_frozen_vectors_are_learnt_from():
    made = toy("tokens", "letter")
    torch.manual_seed(0)
    result = Frozen(Encoder(CONFIG), TOKENIZER, made).learn(150)
    assert evaluate(made, result.predict) > 0.9 and evaluate(made, result.predict, "dev") == result.dev


def test_minilm_knows_what_sentences_mean():
    try:
        encoder, tokenizer = probe.minilm()
    except FetchError as problem:
        pytest.skip(str(problem))
    sentences = ["A cat sleeps on the sofa.", "The kitten is taking a nap.", "Interest rates rose again."]
    rows = [Example(s, s, tuple(s.split()), (0,)) for s in sentences]
    a, b, c = Frozen(encoder, tokenizer, replace(toy("sentence"), language="en")).vectors(rows)
    assert F.cosine_similarity(a, b, 0) > F.cosine_similarity(a, c, 0) + 0.2


# ---- The study


PLAN = Plan(tasks=("zh-topic",), arms=("pre-trained", "scratch", "frozen", "counts"), seeds=(0, 1),
            tuning_seeds={20: (100,)}, steps={20: 10},
            lrs={"pre-trained": (1e-3, 1e-2), "scratch": (1e-3, 1e-2)})  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model that was never trained."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = text.train_characters(["我你他的是在学校。"], 270)
    model = MaskedLM(replace(CONFIG, vocab_size=tokenizer.get_vocab_size(), max_len=64))
    return {"zh": str(zoo.save(model, folder, tokenizer))}


@pytest.fixture(scope="module")
def done(models, tmp_path_factory):
    """A log with all that is in the plan, and what was reported."""
    path = tmp_path_factory.mktemp("log") / "runs" / "log.jsonl"
    return path, [cell for unit in PLAN.units() for cell in work(PLAN, unit, models, path)]


def test_every_cell_is_run_and_seeds_for_tuning_are_others(done):
    path, reported = done
    assert sorted((c["arm"], c["seed"]) for c in reported) == sorted((arm, i) for arm in PLAN.arms for i in (0, 1))
    cells = Log(path).read()
    tuning = [c for c in cells if c["purpose"] == "tuning"]
    assert len(cells) == 8 + 2 + 4 == len(tuning) + 8
    assert not {c["seed"] for c in tuning} & set(Plan().seeds) and all("test" not in c for c in tuning)
    assert {c["settings"]["steps"] for c in tuning if c["arm"] == "scratch"} == {10, 30}


def test_the_best_settings_are_reported(done):
    for arm in ("pre-trained", "scratch"):
        cells = [c for c in Log(done[0]).read() if c["arm"] == arm]
        best = max((c for c in cells if c["purpose"] == "tuning"), key=lambda c: c["dev"])
        assert [c["settings"] for c in cells if c["purpose"] == "report"] == [best["settings"]] * 2


def test_what_is_done_is_not_done_again(done, models, monkeypatch):
    path, reported = done
    before = path.read_text()
    for name in ("finetune", "count"):
        monkeypatch.setattr(finetuning, name, None)
    assert [cell for unit in PLAN.units() for cell in work(PLAN, unit, models, path)] == reported
    assert path.read_text() == before


def test_a_torn_line_is_run_again(done, tmp_path):
    lines = done[0].read_text().splitlines()
    path = tmp_path / "torn.jsonl"
    path.write_text("\n".join(lines)[:-9])
    log = Log(path)
    lost = json.loads(lines[-1])
    assert Log.key(lost) not in log.cells
    log.get({k: lost[k] for k in lost if k not in ("dev", "test", "chosen", "seconds")}, lambda: {"dev": 0.5})
    assert Log(path).cells[Log.key(lost)]["dev"] == 0.5 and len(Log(path).cells) == len(Log(done[0]).cells)


def test_other_weights_are_another_start_but_not_for_the_arm_that_starts_from_none(models):
    model, tokenizer = finetuning.load(models["zh"])
    other = MaskedLM(model.config)
    assert digest(model, tokenizer, weights=False) == digest(other, tokenizer, weights=False)
    assert digest(model, tokenizer, weights=True) != digest(other, tokenizer, weights=True)
    assert digest(model, tokenizer, weights=False) != digest(model, TOKENIZER, weights=False)


def test_the_summary_has_every_score_and_the_paired_difference(done):
    path, reported = done
    found = json.loads(json.dumps(summary(PLAN, reported, Log(path))))["tasks"]["zh-topic"]
    assert list(found["arms"]) == list(PLAN.arms) and found["sentences"]["dev"] == 200
    ours, scratch = (found["arms"][arm]["20"] for arm in ("pre-trained", "scratch"))
    assert ours["scores"] == [c["test"] for c in reported if c["arm"] == "pre-trained"]
    assert found["pre-trained minus scratch"]["20"]["scores"] == pytest.approx(
        [a - b for a, b in zip(ours["scores"], scratch["scores"], strict=True)]
    )


def test_the_interval_is_students():
    found = interval([0.1, 0.2, 0.3, 0.4, 0.5])
    half = 2.776 * (0.025**0.5) / 5**0.5
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((0.3, 0.3 - half, 0.3 + half), abs=1e-4)
    with pytest.raises(ValueError, match="scores: expected 2 to 10, got 1"):
        interval([0.5])


def test_the_whole_plan_is_large_enough_and_leaves_out_what_cannot_be():
    plan = Plan()
    units = plan.units()
    assert len(plan.seeds) >= 5 and len(units) == 4 * 4 * 2 + 4 + 4 + 2
    assert all(set(plan.seeds).isdisjoint(seeds) for seeds in plan.tuning_seeds.values())
    assert {name for name, arm, _ in units if arm == "minilm"} == {"en-punctuation", "en-topic"}
    for n in plan.steps:
        assert set(plan.grid("pre-trained", n)) < set(plan.grid("scratch", n))


def test_a_wrong_model_is_refused_before_anything_is_run(tmp_path, models):
    with pytest.raises(ValueError, match="name_or_path: expected a shipped model"):
        finetuning.run(PLAN, {"zh": "mlm-nowhere"}, tmp_path / "log.jsonl", 1)
    zoo.save(Encoder(CONFIG), tmp_path / "encoder")
    with pytest.raises(ValueError, match="expected a MaskedLM with a tokenizer, got Encoder"):
        finetuning.run(PLAN, {"zh": str(tmp_path / "encoder")}, tmp_path / "log.jsonl", 1)


def test_the_command_fills_the_log(tmp_path, done, models):
    log = tmp_path / "log.jsonl"
    log.write_text(done[0].read_text())
    reported = finetuning.run(PLAN, models, log, 1)
    assert sorted(map(Log.key, reported)) == sorted(map(Log.key, done[1]))
    assert json.loads(json.dumps(summary(PLAN, reported, Log(log))))["tasks"].keys() == {"zh-topic"}


def test_the_shipped_study_is_of_the_whole_plan_and_can_be_checked():
    study = json.loads(finetuning.OUT.read_text("utf8"))
    assert study["plan"] == json.loads(json.dumps(asdict(Plan())))
    for name, found in study["tasks"].items():
        assert set(found["arms"]) == set(finetuning.ARMS) - ({"minilm"} if name.startswith("zh") else set())
        for by_n in found["arms"].values():
            assert list(by_n) == ["30", "100", "300", "1000"]
            for cell in by_n.values():
                assert len(cell["scores"]) >= 5
                assert interval(cell["scores"]).items() <= cell.items()
    made = task("zh-topic")
    again = evaluate(made, count(made, 100, seed=3).predict)
    assert again == pytest.approx(study["tasks"]["zh-topic"]["arms"]["counts"]["100"]["scores"][3], abs=1e-5)
