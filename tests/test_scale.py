"""Parameters and compute: by the formula, by torch, and by the papers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from llmbook.decoder import CausalLM, EncoderDecoder
from llmbook.scale import PUBLISHED, Shape, compute_optimal, training_flops
from llmbook.transformer import Encoder, EncoderConfig

CONFIG = EncoderConfig(vocab_size=97, d_model=24, n_heads=3, n_layers=2, d_ff=52, max_len=13)
SHAPE = Shape(2, 24, 52, 97, 3, max_len=13)
BIB = (Path(__file__).parents[1] / "book" / "references.bib").read_text("utf8")


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_parameters_are_those_that_torch_counts():
    assert SHAPE.parameters() == count(CausalLM(CONFIG))
    assert replace(SHAPE, max_len=0).parameters() == count(Encoder(replace(CONFIG, positions="rotary")))
    bert = replace(CONFIG, norm="post", n_types=2, embed_norm=True)
    assert replace(SHAPE, n_types=2).parameters() == count(Encoder(bert))


def test_an_encoder_and_decoder_share_what_they_share():
    model = EncoderDecoder(replace(CONFIG, positions="sinusoidal"))
    counted = replace(SHAPE, cross=True, max_len=0).parameters()
    assert counted == pytest.approx(count(model), rel=0.05)


def test_variants_by_hand():
    plain = Shape(1, 8, 16, 10, 4, biases=False)
    assert plain.parts() == {"embeddings": 80, "attention": 256, "feed-forward": 256, "norms": 24, "output": 0}
    assert replace(plain, gated=True).parts()["feed-forward"] == 384
    assert replace(plain, n_kv_heads=1).parts()["attention"] == 2 * 64 + 2 * 8 * 2
    assert replace(plain, d_head=5).parts()["attention"] == 4 * 8 * 20
    assert replace(plain, relative=True).parts()["attention"] == 256 + 64
    assert replace(plain, tied=False, pooler=True).parts()["output"] == 80 + 72


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda m: m.name)
def test_published_totals_are_met_within_two_per_cent(model):
    allowed = 0.03 if model.name == "Transformer base" else 0.02  # "about 37000" tokens
    assert model.shape.parameters() == pytest.approx(model.parameters, rel=allowed)
    assert f"{{{model.source[0]}," in BIB


def test_known_models_are_met_to_the_last_parameter():
    by_name = {m.name: m.shape.parameters() for m in PUBLISHED}
    assert by_name["BERT base"] == 109_482_240  # as their published checkpoints have
    assert by_name["GPT-2"] == 1_557_611_200


def test_published_compute_is_six_n_d():
    for model in PUBLISHED:
        if model.tokens and model.flops and model.name != "Gopher":  # where more was counted
            assert training_flops(model.parameters, model.tokens) == pytest.approx(model.flops, rel=0.03)


def test_training_flops_are_those_that_torch_counts():
    model = CausalLM(replace(CONFIG, d_model=48, d_ff=192, max_len=8, vocab_size=500))
    ids = torch.zeros(4, 8, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(ids).sum().backward()
    assert training_flops(count(model), ids.numel()) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_compute_optimal_spends_the_compute_twenty_to_one():
    n, d = compute_optimal(5.76e23)
    assert training_flops(n, d) == pytest.approx(5.76e23) and d / n == pytest.approx(20)
    assert n == pytest.approx(70e9, rel=0.02)  # Chinchilla
    with pytest.raises(ValueError, match="flops: expected a positive number, got 0"):
        compute_optimal(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"n_layers": 0}, "n_layers: expected"),
     ({"d_model": 25}, "d_model: expected a multiple of n_heads=3, or d_head, got 25")],
)  # fmt: skip
def test_what_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SHAPE, **change)
