"""Every layer's weights in one pass, under the mask that made the output, and nothing left behind."""

import pytest
import torch
from helpers import assert_close, ids_of, shake
from torch import nn

from llmbook.attention import MultiHeadAttention
from llmbook.capture import capture
from llmbook.decoder import CausalLM, EncoderDecoder
from llmbook.heads import SequenceClassifier
from llmbook.mlm import MaskedLM
from llmbook.transformer import Encoder, EncoderConfig, padding_mask

B, H, T, LAYERS, V = 2, 3, 7, 4, 19
CONFIG = EncoderConfig(vocab_size=V, d_model=12, n_heads=H, n_layers=LAYERS, d_ff=17, max_len=11)
IDS = ids_of(B, T, vocab_size=V, low=1)
PADDED = torch.cat([IDS[:, :4], torch.zeros(B, 3, dtype=torch.int64)], 1)


def model_of(kind):
    return shake(kind(CONFIG).double()).eval()


def hooks(model):
    return [m for m in model.modules() if m._forward_hooks]


@pytest.mark.parametrize("kind", [Encoder, MaskedLM, CausalLM])
def test_every_layer_and_head_is_seen_and_the_output_is_the_same(kind):
    model = model_of(kind)
    quiet = model(IDS)
    with capture(model) as maps:
        assert_close(model(IDS), quiet)
    assert [w.shape for w in maps] == [(B, H, T, T)] * LAYERS
    assert all((w.sum(-1) - 1).abs().max() < 1e-12 for w in maps)
    assert [name.split("blocks.")[1] for name in maps.names] == [f"{i}.attention" for i in range(LAYERS)]
    assert hooks(model) == []


def test_weights_are_those_under_the_mask():
    model = model_of(Encoder)
    with capture(model) as maps:
        model(PADDED, padding_mask(PADDED, 0))
    assert all((w[..., 4:] == 0).all() and (w[..., :4] > 0).all() for w in maps)


def test_causal_weights_are_lower_triangles():
    model = model_of(CausalLM)
    with capture(model) as maps:
        model(IDS)
    assert all(torch.equal(w, w.tril()) for w in maps)


def test_weights_of_the_last_block_at_some_positions():
    model = model_of(MaskedLM)
    with capture(model) as everywhere:
        model(IDS)
    rows = torch.tensor([[1, 4], [6, 0]])
    with capture(model) as some:
        model(IDS, rows)
    assert [w.shape[-2] for w in some] == [T, T, T, 2]
    assert_close(some[-1], everywhere[-1].gather(2, rows[:, None, :, None].expand(-1, H, -1, T)))


def test_second_pass_replaces_the_first():
    model = model_of(Encoder)
    with capture(model) as maps:
        model(IDS)
        first = list(maps)
        model(IDS[:, :5])
    assert [w.shape[-1] for w in maps] == [5] * LAYERS
    assert [w.shape[-1] for w in first] == [T] * LAYERS


def test_cached_step_shows_one_query_over_all_keys():
    model = model_of(CausalLM)
    cache = model.new_cache()
    model(IDS[:, :6], cache=cache)
    with capture(model) as maps:
        model(IDS[:, 6:], cache=cache)
    assert [w.shape for w in maps] == [(B, H, 1, T)] * LAYERS


def test_encoder_decoder_shows_all_three_kinds():
    model = model_of(EncoderDecoder)
    with capture(model) as maps:
        model(IDS[:, :5], IDS)
    shapes = dict(zip(maps.names, (tuple(w.shape[-2:]) for w in maps), strict=True))
    assert len(maps) == 3 * LAYERS
    assert maps.names == [name for name, m in model.named_modules() if isinstance(m, MultiHeadAttention)]
    assert maps.names[0] == "encoder.blocks.0.attention"
    assert shapes["encoder.blocks.0.attention"] == (5, 5)
    assert shapes["decoder.blocks.0.attention"] == (T, T)
    assert shapes["decoder.blocks.0.cross"] == (T, 5)


def test_part_of_a_model_can_be_watched():
    model = SequenceClassifier(model_of(Encoder), 2).double()
    with capture(model.encoder.blocks[1]) as maps:
        model(IDS)
    assert len(maps) == 1


def test_two_captures_inside_each_other_do_not_disturb_each_other():
    model = model_of(Encoder)
    with capture(model) as outer:
        with capture(model) as inner:
            model(IDS)
        model(IDS[:, :5])
    assert (inner[0].shape[-1], outer[0].shape[-1]) == (T, 5)
    assert hooks(model) == []


def test_hooks_are_gone_after_an_exception():
    model = model_of(Encoder)
    with pytest.raises(ZeroDivisionError), capture(model):
        raise ZeroDivisionError
    assert hooks(model) == []


def test_hooks_are_gone_when_one_cannot_be_placed(monkeypatch):
    model = model_of(Encoder)
    monkeypatch.setattr(model.blocks[2].attention.weights, "register_forward_hook", lambda hook: 1 / 0)
    with pytest.raises(ZeroDivisionError), capture(model):
        pass
    assert hooks(model) == []


def test_weights_are_part_of_the_graph():
    model = model_of(Encoder)
    with capture(model) as maps:
        model(IDS)
    assert torch.autograd.grad(maps[0].square().sum(), model.embedding.tokens.weight)[0].abs().sum() > 0
    with torch.no_grad(), capture(model) as maps:
        model(IDS)
    assert not maps[0].requires_grad


def test_single_layer_can_be_watched():
    layer = MultiHeadAttention(12, 3)
    with capture(layer) as maps:
        layer(torch.zeros(1, 5, 12))
    assert (len(maps), maps.names) == (1, [""])


def test_model_without_attention_is_refused():
    with pytest.raises(ValueError, match="model: expected a model with MultiHeadAttention layers, got Linear"), \
            capture(nn.Linear(2, 2)):  # fmt: skip
        pass


@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_model_is_refused(in_place):
    model = model_of(Encoder)
    if in_place:
        model.blocks[1].compile()
    with pytest.raises(TypeError, match=r"model: expected the model itself, got one that torch.compile made"), \
            capture(model if in_place else torch.compile(model)):  # fmt: skip
        pass
