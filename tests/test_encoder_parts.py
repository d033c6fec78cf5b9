"""The study of chapter 3.1 takes out of the encoder what it says, and nothing else."""

import encoder_parts
import pytest
import torch
import torch.nn.functional as F
from encoder_parts import PARTS
from helpers import assert_close, ids_of, normal, shake

from llmbook.capture import capture
from llmbook.mlm import MaskedLM
from llmbook.text import Packed
from llmbook.transformer import EncoderConfig

SIZES = {"d_model": 12, "n_heads": 3, "n_layers": 2, "d_ff": 20, "positions": "rotary"}


def model_without(name):
    sizes, change = PARTS[name]
    torch.manual_seed(0)
    model = shake(MaskedLM(EncoderConfig(vocab_size=11, max_len=7, **{**SIZES, **sizes}))).double()
    if change:
        change(model)
    return model.eval()


@pytest.mark.parametrize("name", PARTS)
def test_asking_at_some_positions_is_asking_everywhere(name):
    model, ids, positions = model_without(name), ids_of(2, 7, vocab_size=11), torch.tensor([[1, 4], [0, 6]])
    everywhere = model(ids)
    assert_close(model(ids, positions), torch.stack([row[at] for row, at in zip(everywhere, positions, strict=True)]))


@pytest.mark.parametrize("name", PARTS)
def test_only_without_attention_a_token_knows_nothing_of_the_others(name):
    model, ids = model_without(name), ids_of(1, 7, vocab_size=11)
    other = ids.clone()
    other[0, 3] = (ids[0, 3] + 1) % 11
    same = torch.allclose(model(ids)[0, 0], model(other)[0, 0], atol=1e-9)
    assert same == (name == "no attention")


@pytest.mark.parametrize("name", PARTS)
def test_only_some_variants_do_not_know_the_order(name):
    model, ids, order = model_without(name), ids_of(1, 7, vocab_size=11), torch.tensor([3, 0, 6, 1, 5, 2, 4])
    same = torch.allclose(model(ids[:, order]), model(ids)[:, order], atol=1e-9)
    assert same == (name in ("no attention", "equal weights", "no positions"))


def test_without_residual_a_sublayer_replaces_its_input():
    block, x = model_without("no residual").encoder.blocks[0], normal(1, 5, 12)
    a = block.attention(block.attention_norm(x))
    assert_close(block(x), block.feed_forward(block.feed_forward_norm(a)))


def test_without_norm_a_block_is_a_sum():
    model = model_without("no norm")
    block, x = model.encoder.blocks[0], normal(1, 5, 12)
    a = x + block.attention(x)
    assert_close(block(x), a + block.feed_forward(a))
    assert not any(isinstance(module, torch.nn.LayerNorm) for module in model.encoder.modules())


def test_without_feed_forward_attention_is_all():
    block, x = model_without("no feed-forward").encoder.blocks[0], normal(1, 5, 12)
    assert_close(block(x), x + block.attention(block.attention_norm(x)))


def test_without_nonlinearity_the_feed_forward_network_is_affine():
    ffn, x, y = model_without("no nonlinearity").encoder.blocks[0].feed_forward, normal(12), normal(12, seed=1)
    assert_close(ffn(x + y) + ffn(torch.zeros_like(x)), ffn(x) + ffn(y))


def test_without_scaling_scores_are_the_dot_products():
    plain, unscaled = (model_without(name).encoder.blocks[0].attention for name in ("everything", "no scaling"))
    x = normal(1, 5, 12)
    weights = {}
    for name, layer in (("plain", plain), ("unscaled", unscaled)):
        with capture(layer) as maps:
            layer(x)
        weights[name] = maps[0]
    assert_close(weights["unscaled"], F.softmax(weights["plain"].log() * plain.d_k**0.5, -1), slack=10)


def test_equal_weights_are_equal():
    model = model_without("equal weights")
    with capture(model) as maps:
        model(ids_of(1, 7, vocab_size=11))
    assert all(torch.allclose(m, torch.full_like(m, 1 / 7)) for m in maps)


def test_copying_is_better_than_frequencies_and_both_are_probabilities():
    study = encoder_parts.Study.__new__(encoder_parts.Study)
    ids = ids_of(64, 40, vocab_size=30, low=5)
    study.rows = study.dev = Packed(ids, torch.zeros_like(ids))
    study.vocab_size = 30
    found = study.baselines()
    assert found["copying"] < found["unigram"]
    assert abs(found["unigram"] - torch.tensor(25.0).log().item()) < 0.05  # 25 tokens, all as frequent
