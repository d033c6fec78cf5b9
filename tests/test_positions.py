"""Sinusoidal and rotary positions against complex numbers, and what they promise."""

import re

import numpy as np
import pytest
import torch
from helpers import assert_close, normal

from llmbook.attention import MultiHeadAttention
from llmbook.positions import frequencies, rotate, sinusoidal

B, H, T, D = 2, 3, 7, 10


def test_sinusoids_are_those_of_the_paper():
    table = sinusoidal(T, D)
    for t in range(T):
        for i in range(D // 2):
            angle = t / 10_000 ** (2 * i / D)
            assert table[t, 2 * i].item() == pytest.approx(np.sin(angle), abs=1e-6)
            assert table[t, 2 * i + 1].item() == pytest.approx(np.cos(angle), abs=1e-6)


def test_shift_of_sinusoids_is_one_rotation_for_all_positions():
    pairs = sinusoidal(50, D).double().unflatten(-1, (-1, 2))
    z = torch.complex(pairs[..., 1], pairs[..., 0])  # e^{i t ω}
    turn = torch.exp(5j * frequencies(D))
    torch.testing.assert_close(z[5:], z[:-5] * turn, rtol=0, atol=1e-6)


def test_rotation_is_a_product_of_complex_numbers(device):
    x, at = normal(B, H, T, D, device=device), torch.tensor([0, 1, 5, 3, 90, 7, 2], device=device)
    z = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    turn = torch.exp(1j * at[:, None].cpu() * torch.tensor([10_000 ** (-2 * i / D) for i in range(D // 2)])).to(device)
    assert_close(rotate(x, at), torch.view_as_real(z * turn).flatten(-2), slack=1e6)


def test_rotation_keeps_lengths():
    x = normal(H, T, D)
    assert_close(rotate(x, torch.arange(T)).norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("shift", [1, 13, 1000])
def test_scores_depend_on_the_distance_alone(shift):
    q, k, at = normal(T, D), normal(T, D, seed=1), torch.arange(T)
    scores = rotate(q, at) @ rotate(k, at).T
    assert_close(rotate(q, at + shift) @ rotate(k, at + shift).T, scores, slack=1e2)
    assert (rotate(q, at + shift) @ rotate(k, at).T - scores).abs().max() > 0.1


def test_positions_may_differ_within_the_batch():
    x, at = normal(B, H, T, D), torch.stack([torch.arange(T), torch.arange(T).flip(0)])
    assert_close(rotate(x, at), torch.stack([rotate(x[b], at[b]) for b in range(B)]))


def test_rotary_layer_sees_distances_not_places():
    layer = MultiHeadAttention(12, 3, rotary=True).double()
    x = normal(B, T, 12)
    assert_close(layer(x, at=torch.arange(T) + 40), layer(x), slack=10)
    assert (layer(x, at=torch.arange(T) * 2) - layer(x)).abs().max() > 1e-4


def test_rotary_layer_reads_context_at_its_places():
    layer = MultiHeadAttention(12, 3, rotary=True).double()
    x, rows = normal(B, T, 12), torch.tensor([[4, 1], [0, 6]])
    asked = x.gather(1, rows[..., None].expand(-1, -1, 12))
    assert_close(layer(asked, x, at=rows), layer(x).gather(1, rows[..., None].expand(-1, -1, 12)))


def test_half_precision_positions_are_rounded_only_at_the_end():
    x = normal(T, D, dtype=torch.bfloat16)
    exact = rotate(x.double(), torch.arange(T) + 500)
    torch.testing.assert_close(rotate(x, torch.arange(T) + 500).double(), exact, rtol=0, atol=0.05)


@pytest.mark.parametrize("d", [0, 3, -2])
def test_components_must_come_in_pairs(d):
    with pytest.raises(ValueError, match=f"d: expected a positive even number of components, got {d}"):
        frequencies(d)


@pytest.mark.parametrize("shape", [(6,), (B, 3), (1, B, T), ()], ids=str)
def test_positions_must_fit_the_rows(shape):
    message = re.escape(f"at: expected one position for each of the 7 rows, got shape {shape}")
    with pytest.raises(ValueError, match=message):
        rotate(normal(B, H, T, D), torch.zeros(shape, dtype=torch.int64))


def test_rotary_needs_an_even_head():
    with pytest.raises(ValueError, match="rotary: expected an even d_k = d_model / n_heads, got 5"):
        MultiHeadAttention(15, 3, rotary=True)
