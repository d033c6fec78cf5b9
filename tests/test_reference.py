"""The oracle itself, against arithmetic by hand and plain Python loops."""

import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import normal, shake

from llmbook import reference
from llmbook.reference import attention, softmax
from llmbook.transformer import Block, EncoderConfig

B, H, T_Q, T_K, D_K, D_V = 2, 3, 5, 7, 11, 13


def qkv():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(B, H, *shape)) for shape in ((T_Q, D_K), (T_K, D_K), (T_K, D_V)))


def some_mask():
    mask = np.random.default_rng(1).random((B, 1, T_Q, T_K)) < 0.5
    mask[0, 0, 0] = False
    return mask


def loop_attention(q, k, v, mask):
    """The definition, number by number."""
    output, weights = np.zeros((B, H, T_Q, D_V)), np.zeros((B, H, T_Q, T_K))
    for b, h, i in product(range(B), range(H), range(T_Q)):
        allowed = [j for j in range(T_K) if mask is None or mask[b, 0, i, j]]
        e = {j: math.exp(sum(q[b, h, i, c] * k[b, h, j, c] for c in range(D_K)) / math.sqrt(D_K)) for j in allowed}
        for j in allowed:
            weights[b, h, i, j] = e[j] / sum(e.values())
            output[b, h, i] += weights[b, h, i, j] * v[b, h, j]
    return output, weights


@pytest.mark.parametrize("mask", [None, some_mask()], ids=["no mask", "mask"])
def test_attention_follows_its_definition(mask):
    q, k, v = qkv()
    for actual, expected in zip(attention(q, k, v, mask), loop_attention(q, k, v, mask), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)


def test_two_keys_by_hand():
    output, weights = attention([[1, 0]], [[1, 0], [0, 1]], [[0], [1]])
    near = 1 / (1 + math.exp(-1 / math.sqrt(2)))
    np.testing.assert_allclose(weights, [[near, 1 - near]], rtol=1e-15)
    np.testing.assert_allclose(output, [[1 - near]], rtol=1e-15)


def test_query_that_may_attend_nowhere_gives_zeros():
    output, weights = attention(*qkv(), some_mask())
    assert (weights[0, :, 0] == 0).all()
    assert (output[0, :, 0] == 0).all()
    assert np.isfinite(output).all()


def test_forbidden_weights_are_zero_and_rows_sum_to_one():
    mask = some_mask()
    _, weights = attention(*qkv(), mask)
    assert (weights[~np.broadcast_to(mask, weights.shape)] == 0).all()
    np.testing.assert_allclose(weights.sum(-1), np.broadcast_to(mask.any(-1), (B, H, T_Q)), atol=1e-15)


@pytest.mark.parametrize("mask", [True, np.ones(T_K, bool), np.ones((T_Q, 1), bool)], ids=["0-D", "1-D", "column"])
def test_mask_broadcasts(mask):
    q, k, v = qkv()
    np.testing.assert_array_equal(attention(q, k, v, mask)[0], attention(q, k, v)[0])


def test_inputs_stay_as_they_were():
    inputs = [*qkv(), some_mask()]
    before = [x.copy() for x in inputs]
    attention(*inputs)
    for x, y in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(x, y)


def test_softmax_by_hand():
    np.testing.assert_allclose(softmax(np.log([[1, 2, 5], [3, 3, 3]])), [[1 / 8, 2 / 8, 5 / 8], [1 / 3] * 3])


def test_softmax_does_not_see_a_constant():
    scores = np.array([0.3, -1.2, 2.0])
    np.testing.assert_allclose(softmax(scores + 5), softmax(scores), rtol=1e-14)


def test_softmax_of_huge_scores_stays_finite():
    np.testing.assert_array_equal(softmax([1e4, -1e4, 1e4]), [0.5, 0, 0.5])


# ---- What stands around attention in a Transformer, against torch


def array(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def same(actual, expected):
    np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=1e-12)


def test_layer_norm_gelu_and_feed_forward_are_torchs():
    x, gain, bias, w_1, b_1, w_2, b_2 = (
        array(*s, seed=i) for i, s in enumerate([(2, 3, 5), (5,), (5,), (5, 7), (7,), (7, 5), (5,)])
    )
    t = [torch.from_numpy(a) for a in (x, gain, bias, w_1, b_1, w_2, b_2)]
    same(reference.layer_norm(x, gain, bias), F.layer_norm(t[0], (5,), t[1], t[2]))
    same(reference.layer_norm(x, gain, bias, eps=0.1), F.layer_norm(t[0], (5,), t[1], t[2], eps=0.1))
    same(reference.gelu(x), F.gelu(t[0]))
    same(reference.feed_forward(x, w_1, b_1, w_2, b_2), F.gelu(t[0] @ t[3] + t[4]) @ t[5] + t[6])


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_block_of_numpy_is_the_block_of_the_book(norm, activation):
    config = EncoderConfig(11, d_model=6, n_heads=2, n_layers=1, d_ff=7, max_len=5, norm=norm, activation=activation)
    block, x, maps = shake(Block(config)).double(), normal(4, 6), []
    block.attention.weights.register_forward_hook(lambda layer, inputs, weights: maps.append(weights[0].detach()))
    weights = {name: p.numpy() for name, p in block.state_dict().items()}
    steps = reference.block(x.detach(), weights, n_heads=2, norm=norm, activation=activation)
    same(list(steps.values())[-1][0], block(x[None])[0].detach())
    same(np.stack(steps["weights"]), maps[0])
    same(
        np.concatenate(steps["qkv"], -1),
        block.attention.W_qkv(x if norm == "post" else block.attention_norm(x)).detach(),
    )
    around = ["attention_norm", "feed_forward_norm"]
    assert [name for name in steps if name in around] == around
    assert (list(steps)[-1] == "feed_forward_norm") == (norm == "post")


def test_block_without_residual_and_norm():
    block, x = (
        shake(Block(EncoderConfig(11, d_model=6, n_heads=3, n_layers=1, d_ff=7, max_len=5))).double(),
        normal(4, 6),
    )
    weights = {name: p.numpy() for name, p in block.state_dict().items()}
    plain = reference.block(x.detach(), weights, n_heads=3, norm="none", residual=False)
    same(list(plain.values())[-1][0], block.feed_forward(block.attention(x[None]))[0].detach())
    assert list(plain) == ["x", "qkv", "scores", "weights", "heads", "project", "hidden", "contract"]
    a, z = block.attention(x[None])[0] + x, reference.block(x.detach(), weights, n_heads=3, norm="none")
    same(z["attention_sum"][0], a.detach())
    same(z["feed_forward_sum"][0], (a + block.feed_forward(a)).detach())


def test_cross_entropy_is_torchs_and_0_without_targets():
    logits, targets = array(2, 3, 5), np.array([[1, -100, 4], [0, 0, -100]])
    expected = F.cross_entropy(torch.from_numpy(logits).flatten(0, 1), torch.from_numpy(targets).flatten())
    assert reference.cross_entropy(logits, targets) == pytest.approx(expected.item(), abs=1e-12)
    assert reference.cross_entropy(logits, np.full((2, 3), -100)) == 0
