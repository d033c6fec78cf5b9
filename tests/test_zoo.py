"""Models saved and loaded again; what is refused; nothing is half-written."""

import json
import math
import re

import pytest
import torch
from helpers import ids_of, shake
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn

from llmbook import zoo
from llmbook.checkpoints import CheckpointError, read_tensors
from llmbook.cloze import Masked, Questions, answer, questions
from llmbook.decoder import CausalLM, EncoderDecoder
from llmbook.lm import perplexity
from llmbook.mlm import MaskedLM
from llmbook.pretrain import Recipe, prepare, recipe, rows
from llmbook.transformer import Encoder, EncoderConfig

V = 19
CONFIG = EncoderConfig(
    vocab_size=V, d_model=12, n_heads=3, n_layers=2, d_ff=17, max_len=11, positions="rotary", norm="post"
)
IDS = ids_of(2, 7, vocab_size=V)
KINDS = [Encoder, MaskedLM, CausalLM, EncoderDecoder]

kinds = pytest.mark.parametrize("kind", KINDS)


def model_of(kind=MaskedLM):
    return shake(kind(CONFIG)).eval()


def tokenizer():
    return Tokenizer(WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))


def run(model):
    return model(IDS, IDS) if isinstance(model, EncoderDecoder) else model(IDS)


@kinds
def test_saved_model_is_loaded_as_it_was(kind, tmp_path):
    model = model_of(kind)
    folder = zoo.save(model, tmp_path / "model", tokenizer(), card={"loss": 1.5, "语言": "中文"})
    again, cutter = zoo.load(folder)
    assert type(again) is kind and again.config == CONFIG and not again.training
    assert torch.equal(run(again), run(model))
    assert cutter.encode("b").ids == [1]
    assert zoo.card(folder) == {"loss": 1.5, "语言": "中文"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


@kinds
def test_half_precision_halves_the_file_and_comes_back_as_float32(kind, tmp_path):
    model = model_of(kind)
    full, half = zoo.save(model, tmp_path / "full"), zoo.save(model, tmp_path / "half", dtype=torch.float16)
    again, cutter = zoo.load(str(half))
    assert {p.dtype for p in again.parameters()} == {torch.float32} and cutter is None
    torch.testing.assert_close(run(again), run(model), rtol=0, atol=0.05)
    n = sum(p.numel() for p in model.parameters())
    sizes = [(f / "model.safetensors").stat().st_size for f in (full, half)]
    assert sizes[0] - sizes[1] == pytest.approx(2 * n, abs=500)  # but for the file's head
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_tied_weights_stay_tied(tmp_path):
    again, _ = zoo.load(zoo.save(model_of(EncoderDecoder), tmp_path / "model"))
    assert again.decoder.embedding.tokens is again.encoder.embedding.tokens


def test_card_of_a_folder_without_one_is_empty(tmp_path):
    assert zoo.card(zoo.save(model_of(), tmp_path / "model")) == {}


def test_available_lists_what_is_shipped_and_load_finds_it(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "SHIPPED", tmp_path)
    assert zoo.available() == []
    model = model_of()
    zoo.save(model, tmp_path / "mlm-xx")
    assert zoo.available() == ["mlm-xx"]
    assert torch.equal(run(zoo.load("mlm-xx")[0]), run(model))


def test_every_shipped_model_loads():
    for name in zoo.available():
        model, cutter = zoo.load(name)
        assert isinstance(model, nn.Module) and isinstance(cutter, Tokenizer) and zoo.card(name)


# ---- What is refused


@pytest.mark.parametrize("name", ["mlm-klingon", "/nowhere/at/all"])
def test_unknown_name_is_refused(name, monkeypatch, tmp_path):
    monkeypatch.setattr(zoo, "SHIPPED", tmp_path)
    message = f"name_or_path: expected a shipped model (none is shipped) or a folder, got {name!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        zoo.load(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": "llmbook model 2", "model": "MaskedLM"}, "expected format 'llmbook model 1' and model"),
        ({"format": "llmbook model 1", "model": "Mamba"}, "got {'format': 'llmbook model 1', 'model': 'Mamba'}"),
        ({"model_type": "llama"}, "got {'model_type': 'llama'}"),
        ({"hello": 1}, "got neither"),
        ({"format": "llmbook model 1", "model": "MaskedLM"}, "expected the fields of EncoderConfig, 'config'"),
        ({"format": "llmbook model 1", "model": "MaskedLM", "config": {"width": 3}}, "keyword argument 'width'"),
    ],
)  # fmt: skip
def test_foreign_config_is_refused(content, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=re.escape(message)):
        zoo.load(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path):
    one, other = zoo.save(model_of(CausalLM), tmp_path / "one"), zoo.save(model_of(MaskedLM), tmp_path / "other")
    (one / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"model.safetensors: expected a tensor \S+, found none"):
        zoo.load(one)


def test_weights_with_something_more_are_refused(tmp_path):
    folder = zoo.save(model_of(MaskedLM), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"model": "Encoder"}
    encoder = zoo.save(model_of(Encoder), tmp_path / "encoder")
    tensors = zoo.read_tensors(encoder / "model.safetensors") | {"bias": torch.zeros(V)}
    zoo.write_tensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="found a tensor bias, which is none of Encoder's"):
        zoo.load(folder)


def test_folder_without_weights_is_refused(tmp_path):
    folder = zoo.save(model_of(), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.safetensors"):
        zoo.load(folder)


def test_model_of_another_class_is_not_saved(tmp_path):
    with pytest.raises(
        TypeError, match="model: expected one of Encoder, MaskedLM, CausalLM, EncoderDecoder, got Linear"
    ):
        zoo.save(nn.Linear(2, 2), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(FileExistsError, match="folder: expected a path that does not exist yet, got "):
        zoo.save(model_of(), tmp_path / "model")


def test_failed_save_leaves_nothing(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        zoo.save(model_of(), tmp_path / "model", card={"loss": torch.zeros(1)})
    assert list(tmp_path.iterdir()) == []


def test_model_that_its_config_does_not_describe_is_not_saved(tmp_path):
    message = re.escape("model: expected the parameters of CausalLM(model.config), got others")
    with pytest.raises(ValueError, match=message):
        zoo.save(CausalLM(CONFIG, cross=True), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_weights_are_saved_as_floats(tmp_path):
    with pytest.raises(TypeError, match=r"dtype: expected a floating-point type, got torch.int8"):
        zoo.save(model_of(), tmp_path / "model", dtype=torch.int8)


# ---- The models that come with the book


MASKED, CAUSAL = ["mlm-en", "mlm-zh"], ["gpt-en", "gpt-zh"]
masked, causal = (pytest.mark.parametrize("name", names) for names in (MASKED, CAUSAL))


@pytest.mark.parametrize("name", MASKED + CAUSAL)
def test_a_shipped_model_is_small_in_half_precision_and_made_by_its_recipe(name):
    folder = zoo.SHIPPED / name
    assert name in zoo.available() and sum(path.stat().st_size for path in folder.iterdir()) <= 10e6
    assert {x.dtype for x in read_tensors(folder / "model.safetensors").values()} == {torch.float16}
    assert Recipe(**zoo.card(name)["recipe"]) == recipe(name)


@masked
def test_a_shipped_model_fills_more_gaps_than_counts_on_both_sides(name):
    cloze = zoo.card(name)["cloze"]
    assert cloze["model minus two-sided"][1] > 0  # the lower end of the interval
    assert cloze["unigram"]["top1"][0] < cloze["left"]["top1"][0] < cloze["two-sided"]["top1"][0]
    assert cloze["model"]["loss"][0] < cloze["two-sided"]["loss"][0]


@masked
def test_the_card_of_a_masked_model_can_be_checked(name):
    model, tokenizer = zoo.load(name)
    found = prepare(recipe(name))
    assert found.tokenizer.to_str() == tokenizer.to_str()
    asked = questions(found.test)
    few = Questions(*(x[:400] for x in asked))
    assert len(asked.ids) == zoo.card(name)["cloze"]["questions"]
    top1 = (answer(Masked(model), few).rank == 1).double().mean().item()
    assert top1 == pytest.approx(zoo.card(name)["cloze"]["model"]["top1"][0], abs=0.1)  # a share of 400


@causal
def test_a_shipped_causal_model_predicts_better_than_ngrams(name):
    found = zoo.card(name)["test_perplexity"]
    assert found["model"] < min(found[f"{order}-gram"] for order in (2, 3, 5)) < found["1-gram"]


@causal
def test_the_card_of_a_causal_model_can_be_checked(name):
    model, tokenizer = zoo.load(name)
    settings, card = recipe(name), zoo.card(name)
    found = prepare(settings)
    assert isinstance(model, CausalLM) and found.tokenizer.to_str() == tokenizer.to_str()
    few = rows(settings, found.test)[::4]
    assert perplexity(model, few) == pytest.approx(card["test_perplexity"]["model"], rel=0.1)
    assert math.exp(card["test_loss"]) == pytest.approx(card["test_perplexity"]["model"], rel=1e-3)
