"""Blocks and encoders against torch's layers with the same weights; their properties; and what they refuse."""

import re

import pytest
import torch
from helpers import assert_close, gradients, ids_of, normal, shake
from torch import nn

from llmbook.cache import LayerCache
from llmbook.transformer import Block, Encoder, EncoderConfig, FeedForward, causal_mask, padding_mask

B, H, T, T_M, D, D_FF, V, LAYERS = 2, 3, 7, 5, 12, 17, 19, 3
SIZES = {"vocab_size": V, "d_model": D, "n_heads": H, "n_layers": LAYERS, "d_ff": D_FF, "max_len": 11}

norms = pytest.mark.parametrize("norm", ["pre", "post"])
all_positions = pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "none"])
MASKS = {
    "none": None,
    "padding": (torch.arange(T) < torch.tensor([T, T - 3])[:, None])[:, None, None],
    "causal": causal_mask(T),
    "heads": (torch.arange(B * H * T * T) % 11 % 3 != 1).view(B, H, T, T) | torch.eye(T, dtype=torch.bool),
    "rows": (torch.arange(B * T * T) % 7 % 3 != 1).view(B, 1, T, T) | torch.eye(T, dtype=torch.bool),
}
masks = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


def config(**options):
    return EncoderConfig(**{**SIZES, **options})


def encoder(**options):
    return shake(Encoder(config(**options)).double()).eval()


def attention_state(layer, name):
    return {f"{name}.W_qkv.weight": layer.in_proj_weight, f"{name}.W_qkv.bias": layer.in_proj_bias,
            f"{name}.W_o.weight": layer.out_proj.weight, f"{name}.W_o.bias": layer.out_proj.bias}  # fmt: skip


def block_like(theirs, norm, activation, cross=False):
    """Our block with the weights of torch's encoder or decoder layer, and the parameters of both in one order."""
    ours = Block(config(norm=norm, activation=activation), cross=cross).double()
    state = attention_state(theirs.self_attn, "attention")
    pairs = {"attention_norm": theirs.norm1, "feed_forward.W_1": theirs.linear1, "feed_forward.W_2": theirs.linear2}
    if cross:
        state |= attention_state(theirs.multihead_attn, "cross")
        pairs |= {"cross_norm": theirs.norm2, "feed_forward_norm": theirs.norm3}
    else:
        pairs |= {"feed_forward_norm": theirs.norm2}
    for name, layer in pairs.items():
        state |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    ours.load_state_dict(state)
    parameters = dict(ours.named_parameters())
    return ours.train(), [parameters[name] for name in state], list(state.values())


def torch_layer(kind, norm, activation):
    layer = kind(D, H, D_FF, dropout=0.0, activation=activation, batch_first=True, norm_first=norm == "pre")
    return shake(layer.double()).train()


# ---- Oracles


@norms
@masks
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_block_matches_torchs_encoder_layer(norm, mask, activation, device):
    theirs = torch_layer(nn.TransformerEncoderLayer, norm, activation).to(device)
    ours, mine, other = block_like(theirs, norm, activation)
    ours.to(device)
    x = normal(B, T, D, device=device)
    mask = mask if mask is None else mask.to(device)
    hidden = None if mask is None else ~mask.expand(B, H, T, T).flatten(0, 1)
    expected, actual = theirs(x, src_mask=hidden), ours(x, mask)
    assert_close(actual, expected)
    assert_close(gradients(actual, [x, *mine]), gradients(expected, [x, *other]), slack=10)


@norms
def test_block_with_memory_matches_torchs_decoder_layer(norm, device):
    theirs = torch_layer(nn.TransformerDecoderLayer, norm, "gelu").to(device)
    ours, mine, other = block_like(theirs, norm, "gelu", cross=True)
    ours.to(device)
    x, memory = normal(B, T, D, device=device), normal(B, T_M, D, device=device)
    real = torch.arange(T_M, device=device) < torch.tensor([[T_M], [2]], device=device)
    causal = causal_mask(T, device=device)
    expected = theirs(x, memory, tgt_mask=~causal, memory_key_padding_mask=~real)
    actual = ours(x, causal, memory=memory, memory_mask=real[:, None, None])
    assert_close(actual, expected)
    assert_close(gradients(actual, [x, memory, *mine]), gradients(expected, [x, memory, *other]), slack=10)


def test_feed_forward_is_two_matrices_and_a_nonlinearity_between():
    layer, x = FeedForward(D, D_FF, activation="relu").double(), normal(B, T, D)
    inner = (x @ layer.W_1.weight.T + layer.W_1.bias).clamp(min=0)
    assert_close(layer(x), inner @ layer.W_2.weight.T + layer.W_2.bias)


def test_encoder_is_embeddings_blocks_and_a_norm():
    model, ids = encoder(), ids_of(B, T, vocab_size=V)
    x = model.embedding.tokens.weight[ids] + model.embedding.positions[:T]
    for block in model.blocks:
        x = block(x)
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    expected = (x - mean) / (variance + 1e-5).sqrt() * model.norm.weight + model.norm.bias
    assert_close(model(ids), expected)


def test_sinusoidal_embeddings_are_scaled_and_types_and_norm_are_added():
    model = encoder(positions="sinusoidal", n_types=2, embed_norm=True, norm="post")
    ids, types = ids_of(B, T, vocab_size=V), ids_of(B, T, vocab_size=2, seed=1)
    e = model.embedding
    x = e.norm(e.tokens.weight[ids] * D**0.5 + e.positions[:T] + e.types.weight[types])
    for block in model.blocks:
        x = block(x)
    assert_close(model(ids, types=types), x)
    assert not torch.allclose(model(ids), x)  # without types: all 0
    assert_close(model(ids), model(ids, types=torch.zeros_like(ids)))


# ---- Properties


@norms
@all_positions
@masks
def test_encoder_at_some_positions_equals_the_encoder_everywhere(norm, positions, mask, device):
    model = encoder(norm=norm, positions=positions).to(device)
    ids, rows = ids_of(B, T, vocab_size=V).to(device), torch.tensor([[0, 6, 3], [5, 5, 1]], device=device)
    mask = mask if mask is None else mask.to(device)
    everywhere = model(ids, mask).gather(1, rows[..., None].expand(-1, -1, D))
    some = model(ids, mask, positions=rows)
    assert_close(some, everywhere)
    parameters = [p for name, p in model.named_parameters() if "embedding" not in name]
    assert_close(gradients(some, parameters), gradients(everywhere, parameters), slack=10)


@norms
@all_positions
def test_padding_does_not_reach_real_tokens(norm, positions):
    model, ids = encoder(norm=norm, positions=positions), ids_of(B, T, vocab_size=V, low=1)
    padded = torch.cat([ids, torch.zeros(B, 4, dtype=torch.int64)], 1)
    assert_close(model(padded, padding_mask(padded, 0))[:, :T], model(ids))


@all_positions
def test_without_positions_the_encoder_cannot_tell_the_order(positions):
    model, ids = encoder(positions=positions), ids_of(B, T, vocab_size=V)
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    assert torch.allclose(model(ids[:, order]), model(ids)[:, order]) is (positions == "none")


@norms
def test_gradients_of_the_encoder_match_finite_differences(norm):
    block = Block(config(norm=norm)).double()
    assert torch.autograd.gradcheck(block, (normal(1, 3, D),), fast_mode=True)


def test_dropout_acts_in_training_alone():
    model, ids = encoder(dropout=0.5), ids_of(B, T, vocab_size=V)
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


def test_weights_at_birth_have_the_stated_spread():
    big = {"d_model": 96, "d_ff": 384, "vocab_size": 500, "n_layers": 2}
    model = Encoder(config(**big))
    block = model.blocks[1]
    assert block.attention.W_qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.feed_forward.W_2.weight.std().item() == pytest.approx(0.02 / 4**0.5, rel=0.05)
    assert model.embedding.tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.embedding.positions.std().item() == pytest.approx(0.02, rel=0.1)
    assert (block.attention.W_o.bias == 0).all()
    post = Encoder(config(norm="post", init_std=0.1, **big))
    assert post.blocks[1].feed_forward.W_2.weight.std().item() == pytest.approx(0.1, rel=0.05)


def test_number_of_parameters_is_the_sum_of_the_parts():
    attention, feed_forward, norm = 4 * D * D + 4 * D, 2 * D * D_FF + D_FF + D, 2 * D
    embeddings = (V + SIZES["max_len"]) * D
    expected = embeddings + LAYERS * (attention + feed_forward + 2 * norm) + norm
    assert sum(p.numel() for p in Encoder(config()).parameters()) == expected


def test_masks_say_who_may_look_where():
    assert causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert causal_mask(2, 4).tolist() == [[True, True, True, False], [True, True, True, True]]
    assert padding_mask(torch.tensor([[4, 0], [0, 3]]), 0).tolist() == [[[[True, False]]], [[[False, True]]]]


# ---- What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_layers": 0}, "n_layers: expected a positive integer, got 0"),
        ({"vocab_size": 7.0}, "vocab_size: expected a positive integer, got 7.0"),
        ({"d_ff": -1}, "d_ff: expected a positive integer, got -1"),
        ({"max_len": None}, "max_len: expected a positive integer, got None"),
        ({"d_model": 13}, "d_model: expected a multiple of n_heads=3, got 13"),
        ({"norm": "middle"}, "norm: expected one of pre, post, got 'middle'"),
        ({"positions": "alibi"}, "positions: expected one of learned, sinusoidal, rotary, none, got 'alibi'"),
        ({"activation": "swish"}, "activation: expected one of gelu, gelu_tanh, relu, got 'swish'"),
        ({"dropout": 1.0}, "dropout: expected a probability below 1, got 1.0"),
        ({"norm_eps": -1.0}, "norm_eps, init_std: expected 0 or more, got -1.0 and 0.02"),
        (
            {"d_model": 15, "positions": "sinusoidal"},
            "d_model: expected an even number with sinusoidal positions, got 15",
        ),
        ({"n_types": -1}, "n_types: expected 0 or a positive integer, got -1"),
    ],
)
def test_config_names_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config(**options)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (torch.zeros(B, T), TypeError, "ids: expected a tensor of integers, got torch.float32 tensor"),
        ([[1, 2]], TypeError, "ids: expected a tensor of integers, got list"),
        (torch.zeros(T, dtype=torch.int64), ValueError, "ids: expected shape (B, T) with B, T >= 1, got (7,)"),
        (torch.zeros(B, 12, dtype=torch.int64), ValueError, "ids: expected at most max_len=11 tokens a row, got 12"),
        (torch.tensor([[3, 19]]), ValueError, "ids: expected token ids from 0 to 18, got ids from 3 to 19"),
        (torch.tensor([[3, -2]]), ValueError, "ids: expected token ids from 0 to 18, got ids from -2 to 3"),
    ],
)
def test_encoder_names_what_is_wrong_with_ids(ids, error, message):
    with pytest.raises(error, match=re.escape(message)):
        Encoder(config())(ids)


def test_types_need_a_model_that_has_them():
    ids = torch.zeros(B, T, dtype=torch.int64)
    with pytest.raises(ValueError, match="types: expected none, as the model has n_types=0"):
        Encoder(config())(ids, types=ids)


def test_memory_goes_with_cross_attention():
    x = torch.zeros(B, T, D)
    with pytest.raises(ValueError, match="memory: expected no tensor in a block with cross=False, got one"):
        Block(config())(x, memory=x)
    with pytest.raises(ValueError, match="memory: expected a tensor in a block with cross=True, got none"):
        Block(config(), cross=True)(x)


def test_mask_of_the_wrong_shape_is_refused():
    with pytest.raises(
        ValueError, match=re.escape("mask: expected a shape that broadcasts to (2, 3, 7, 7), got (2, 7)")
    ):
        Encoder(config())(torch.zeros(B, T, dtype=torch.int64), torch.ones(B, T, dtype=torch.bool))


def test_positions_are_refused_by_name():
    ids = torch.zeros(B, T, dtype=torch.int64)
    with pytest.raises(
        ValueError, match=re.escape("positions: expected shape (B, K) with B=2 as ids have, got (1, 3)")
    ):
        Encoder(config())(ids, positions=torch.zeros(1, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("types", "error", "message"),
    [
        (torch.full((B, T), 2), ValueError, "types: expected token ids from 0 to 1, got ids from 2 to 2"),
        (torch.zeros(B, T), TypeError, "types: expected a tensor of integers, got torch.float32 tensor"),
        (torch.zeros(B, T + 1, dtype=torch.int64), ValueError, "types: expected shape (2, 7) as ids have, got (2, 8)"),
    ],
)
def test_types_must_fit(types, error, message):
    with pytest.raises(error, match=re.escape(message)):
        Encoder(config(n_types=2))(torch.zeros(B, T, dtype=torch.int64), types=types)


@pytest.mark.parametrize("options", [{"causal": True}, {"cache": LayerCache()}], ids=["causal", "cache"])
def test_rows_come_alone(options):
    with pytest.raises(ValueError, match="rows: expected neither causal nor cache beside them"):
        Block(config())(torch.zeros(B, T, D), rows=torch.zeros(B, 1, dtype=torch.int64), **options)


def test_padding_mask_names_what_is_wrong():
    with pytest.raises(ValueError, match=re.escape("ids: expected shape (B, T), got (7,)")):
        padding_mask(torch.zeros(T), 0)
    with pytest.raises(TypeError, match="ids: expected a tensor, got list"):
        padding_mask([[1]], 0)
