"""Each entry of the errata: the right result is computed, and both editions of the page must say it."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from llmbook import reference
from llmbook.attention import attention_weights
from llmbook.mlm import MaskedLM
from llmbook.transformer import EncoderConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "book" / "errata.md", ROOT / "zh" / "book" / "errata.md"]

Q, K, V = np.array([0.1, 0.2]), np.array([[0.3, 0.4], [0.5, 0.6]]), np.array([[1.0, 1.1], [2.0, 2.1]])
PRINTED_SCORES, PRINTED_SCALED = np.array([0.23, 0.35]), np.array([0.163, 0.248])
PRINTED_WEIGHTS, PRINTED_OUTPUT = np.array([0.397, 0.603]), np.array([1.597, 1.703])


@cache
def entries(page):
    """The entries of a page: name -> (the numbers of its line "Right", the name of its test)."""
    found = {}
    for part in re.split(r"^### ", page.read_text("utf8"), flags=re.M)[1:]:
        right = re.search(r"^- \*\*(?:Right|正确)\*\*[:：](.*)$", part, re.M).group(1)
        test = re.search(r"^- \*\*(?:Test|测试)\*\*[:：]\s*`(\w+)`$", part, re.M).group(1)
        found[part.split()[0]] = (re.findall(r"\d+\.\d+", right), test)
    return found


def assert_right(entry, *numbers):
    """Both pages give ``numbers``, in this order, as the right ones of ``entry``; the last digits are rounded."""
    for page in PAGES:
        printed = entries(page)[entry][0]
        assert len(printed) == len(numbers), (page, printed)
        for text, number in zip(printed, numbers, strict=True):
            assert text == f"{number:.{len(text.split('.')[1])}f}", (page, entry)


@pytest.mark.parametrize("page", PAGES, ids=["en", "zh"])
def test_every_entry_names_a_test_of_this_file_and_every_test_has_its_entry(page):
    named = [test for _, test in entries(page).values()]
    assert sorted(named) == sorted(name for name in globals() if name.startswith("test_e4"))


def test_e4_1_1_dot_products():
    assert not np.allclose(Q @ K.T, PRINTED_SCORES, atol=0.05)
    assert_right("E4.1-1", *(Q @ K.T))


def test_e4_1_2_scaled_scores():
    assert f"{0.35 / 2**0.5:.3f}" != "0.248"
    assert_right("E4.1-2", 0.35, 0.35 / 2**0.5, *(Q @ K.T / 2**0.5))


def test_e4_1_3_softmax():
    its_own = reference.softmax(PRINTED_SCALED)
    assert not np.allclose(its_own, PRINTED_WEIGHTS, atol=0.05)
    assert f"{np.log(PRINTED_WEIGHTS[1] / PRINTED_WEIGHTS[0]):.3f}" == "0.418"
    assert_right("E4.1-3", *its_own, *reference.attention([Q], K, V)[1][0])


def test_e4_1_4_weighted_sum():
    its_own = PRINTED_WEIGHTS @ V
    assert not np.allclose(its_own, PRINTED_OUTPUT, atol=1e-3)
    assert np.isclose(its_own[1], PRINTED_OUTPUT[1], atol=1e-3)  # the second component is right
    assert_right("E4.1-4", its_own[0], *reference.attention([Q], K, V)[0][0])


def test_e4_1_5_d_k_is_a_dimension():
    q, k = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    d_k = k.shape[-1]
    assert torch.allclose(attention_weights(q, k), (q @ k.T / d_k**0.5).softmax(-1))
    assert not torch.allclose(attention_weights(q, k), (q @ k.T / d_k).softmax(-1))


def test_e4_1_6_keys_are_rows():
    keys_as_rows = np.ones((3, 2))  # three keys of length two
    assert (Q @ keys_as_rows.T).shape == (3,)
    with pytest.raises(ValueError):
        Q @ keys_as_rows  # its transpose, the keys as columns, does not fit


def test_e4_3_1_prediction_sees_the_corrupted_sequence():
    torch.manual_seed(0)
    model = MaskedLM(EncoderConfig(vocab_size=11, d_model=8, n_heads=2, n_layers=2, d_ff=16, max_len=5)).eval()
    mask_id, here, there = 3, 1, 3  # two masked positions

    def prediction(x, *masked):
        corrupted = x.clone()
        corrupted[0, list(masked)] = mask_id
        return model(corrupted)[0, here]

    x, other = torch.tensor([[4, 5, 6, 7, 8]]), torch.tensor([[4, 5, 6, 9, 8]])  # they differ `there` alone
    assert torch.equal(prediction(x, here, there), prediction(other, here, there))
    assert not torch.allclose(prediction(x, here), prediction(other, here))  # what the document's formula would see
    assert not torch.allclose(prediction(x, here), prediction(x, here, there))
