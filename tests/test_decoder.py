"""Causal models and encoder–decoders: the future stays hidden, and the cache changes nothing."""

import re

import pytest
import torch
from helpers import assert_close, gradients, ids_of, shake

from llmbook.cache import KVCache, LayerCache
from llmbook.decoder import CausalLM, EncoderDecoder
from llmbook.transformer import EncoderConfig, padding_mask

B, T, T_S, D, V, LAYERS = 2, 7, 5, 12, 19, 3
SIZES = {"vocab_size": V, "d_model": D, "n_heads": 3, "n_layers": LAYERS, "d_ff": 17, "max_len": 11}

norms = pytest.mark.parametrize("norm", ["pre", "post"])
all_positions = pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "none"])


def gpt(**options):
    return shake(CausalLM(EncoderConfig(**{**SIZES, **options})).double()).eval()


def translator(**options):
    return shake(EncoderDecoder(EncoderConfig(**{**SIZES, **options})).double()).eval()


IDS = ids_of(B, T, vocab_size=V)
SOURCE = torch.tensor([[3, 5, 1, 9, 4], [8, 2, 7, 0, 0]])  # 0 is padding


@norms
@all_positions
def test_no_logit_depends_on_a_later_token(norm, positions, device):
    model, ids = gpt(norm=norm, positions=positions).to(device), IDS.to(device)
    before = model(ids)
    for t in range(1, T):
        changed = ids.clone()
        changed[:, t:] = (changed[:, t:] + 1) % V
        after = model(changed)
        assert_close(after[:, :t], before[:, :t])
        assert (after[:, t] - before[:, t]).abs().max() > 1e-3


@norms
@all_positions
@pytest.mark.parametrize("steps", [[1] * T, [3, 1, 3], [T]], ids=str)
def test_cache_changes_nothing(norm, positions, steps, device):
    model, ids = gpt(norm=norm, positions=positions).to(device), IDS.to(device)
    cache = model.new_cache()
    parts = [model(part, cache=cache) for part in ids.split(steps, dim=1)]
    assert_close(torch.cat(parts, 1), model(ids))
    assert cache.length == T


def test_mask_hides_more_than_the_future():
    model = gpt(positions="none")
    padded = torch.cat([torch.zeros(B, 3, dtype=torch.int64), IDS.clamp(min=1)], 1)
    logits = model(padded, padding_mask(padded, 0))
    assert_close(logits[:, 3:], model(IDS.clamp(min=1)))


def test_head_is_tied_to_the_embeddings():
    model = gpt()
    model.embedding.tokens.weight.data[5] = 0
    assert (model(IDS)[..., 5] == 0).all()
    assert sum(p.shape == (V, D) for p in model.parameters()) == 1


def test_cached_rows_can_be_reordered():
    model, cache, order = gpt(), None, torch.tensor([1, 1, 0])
    cache = model.new_cache()
    model(IDS[:, :4], cache=cache)
    cache.reorder(order)
    assert_close(model(IDS[order, 4:], cache=cache), model(IDS[order])[:, 4:])


def test_cache_holds_keys_and_values_of_every_layer():
    model = gpt()
    cache = model.new_cache()
    assert (cache.length, len(cache.layers)) == (0, LAYERS)
    model(IDS, cache=cache)
    held = sum(x.numel() for layer in cache.layers for x in (layer.keys, layer.values))
    assert held == 2 * LAYERS * D * B * T


def test_empty_cache_can_be_reordered():
    layer, cache = LayerCache(), KVCache(0)
    layer.reorder(torch.tensor([0]))
    assert (layer.length, cache.length) == (0, 0)


def test_text_longer_than_the_model_is_refused_with_a_cache_too():
    model = gpt()
    cache = model.new_cache()
    model(IDS, cache=cache)
    with pytest.raises(ValueError, match="ids: expected at most max_len=11 tokens a row, got 14"):
        model(IDS, cache=cache)


# ---- Encoder and decoder


@norms
@all_positions
def test_target_reads_the_source_but_not_its_own_future(norm, positions):
    model = translator(norm=norm, positions=positions)
    logits = model(SOURCE, IDS)
    other = SOURCE.clone()
    other[:, -1] = 6
    assert ((model(other, IDS) - logits).abs().amax(-1) > 1e-4).all()
    later = IDS.clone()
    later[:, 4:] = 6
    assert_close(model(SOURCE, later)[:, :4], logits[:, :4])


def test_padding_of_the_source_does_not_reach_the_target():
    model = translator()
    logits = model(SOURCE, IDS, padding_mask(SOURCE, 0))
    assert_close(logits[1:], model(SOURCE[1:, :3], IDS[1:]))
    assert_close(logits[:1], model(SOURCE[:1], IDS[:1]))


def test_source_and_target_share_their_embeddings():
    model = translator()
    assert sum(p.shape == (V, D) for p in model.parameters()) == 1
    grad = gradients(model(SOURCE, IDS), [model.encoder.embedding.tokens.weight])[0]
    assert (grad != 0).any()


@all_positions
def test_fixed_source_leaves_a_language_model_of_the_target(positions):
    model, mask = translator(positions=positions).train(), padding_mask(SOURCE, 0)
    lm = model.given(SOURCE, mask)
    assert model.encoder.training
    expected = model(SOURCE, IDS, mask)
    assert_close(lm(IDS), expected)
    cache = lm.new_cache()
    assert_close(torch.cat([lm(part, cache=cache) for part in IDS.split(2, dim=1)], 1), expected)
    assert (lm.vocab_size, lm.max_len) == (V, 11)
    one = model.given(SOURCE[:1])
    assert_close(one(IDS), model(SOURCE[:1].expand(B, -1), IDS))  # one source for a whole beam


def test_fixed_source_leaves_the_modes_of_the_model_alone():
    model = translator().train()
    model.encoder.blocks[1].eval()
    model.given(SOURCE)
    assert model.encoder.training and not model.encoder.blocks[1].training


def test_several_sources_need_as_many_rows():
    with pytest.raises(ValueError, match="ids: expected B=2 rows, one a source, got 1"):
        translator().given(SOURCE)(IDS[:1])


def test_source_moves_with_its_model():
    lm = translator().given(SOURCE).float()
    assert lm(IDS).dtype == torch.float32


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.zeros(T, T), TypeError, "mask: expected a boolean tensor (True = may attend), got torch.float32 tensor"),
        (
            torch.ones(B, T, dtype=torch.bool),
            ValueError,
            "expected a shape that broadcasts to (2, 3, 7, 7), got (2, 7)",
        ),
    ],
)
def test_mask_of_the_wrong_kind_is_refused(mask, error, message):
    with pytest.raises(error, match=re.escape(message)):
        gpt()(IDS, mask)
