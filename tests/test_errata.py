"""Each entry of the errata: the right result is computed, and both editions of the page must say it."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from llmbook import reference
from llmbook.attention import MultiHeadAttention, attention_weights
from llmbook.decoder import CausalLM
from llmbook.mlm import MaskedLM, mask_tokens, mlm_loss
from llmbook.nnlm import NNLM
from llmbook.recurrent import RecurrentLM
from llmbook.transformer import Encoder, EncoderConfig

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
    assert sorted(named) == sorted(name for name in globals() if re.match(r"test_e\d", name))


# ---- Section 1


def right(page, entry):
    """What the line "Right" of an entry says."""
    part = page.read_text("utf8").split(f"\n### {entry} ")[1]
    return re.search(r"^- \*\*(?:Right|正确)\*\*[:：](.*)$", part, re.M).group(1)


def year(key):
    """The year of a work in the bibliography."""
    part = (ROOT / "book" / "references.bib").read_text("utf8").split(f"{{{key},\n")[1]
    return re.search(r"year = \{(\d{4})\}", part).group(1)


def test_e1_1_year_of_the_transformer():
    assert year("vaswani2017") == "2017" != year("radford2018") == "2018"
    for page in PAGES:
        assert right(page, "E1-1").strip().startswith("2017")


def transformer_parameters(
    n_layers, d_model, vocab_size, *, max_len=0, d_attention=None, d_kv=None, ff=8, relative=False
):
    """The weight matrices of a decoder: embeddings, and in each layer attention and feed-forward."""
    d_attention = d_attention or d_model
    attention = 2 * d_model * (d_attention + (d_kv or d_attention)) + relative * d_model * d_attention
    return (vocab_size + max_len) * d_model + n_layers * (attention + ff * d_model**2)


NAMED = {  # sizes of layers as the papers give them
    "GPT-3": transformer_parameters(96, 12288, 50257, max_len=2048),
    "PaLM": transformer_parameters(
        118, 18432, 256_000, d_attention=48 * 256, d_kv=256, ff=12
    ),  # SwiGLU: three matrices
    "Chinchilla": transformer_parameters(80, 8192, 32_000, relative=True),
}


def test_e1_2_parameters_of_the_models_it_names():
    assert all(n < 1e12 for n in NAMED.values())
    for page, unit in zip(PAGES, (1e9, 1e8), strict=True):
        said = [int(n) * unit for n in re.findall(r"\d+", right(page, "E1-2"))]
        assert said == pytest.approx(list(NAMED.values()), rel=0.01)


def test_e1_3_chinchilla_is_smaller_and_costs_the_same():
    assert NAMED["Chinchilla"] == min(NAMED.values())
    (n_gopher, d_gopher), (n, d) = (280e9, 300e9), (70e9, 1.4e12)
    assert n_gopher / n == 4 and d / d_gopher > 4
    assert 6 * n * d == pytest.approx(6 * n_gopher * d_gopher, rel=0.2)


# ---- Section 2


def test_e2_2_1_the_first_neural_language_model_has_a_window():
    assert year("hochreiter1997") < year("bengio2003") < year("mikolov2010") < year("cho2014")
    for page in PAGES:
        assert re.findall(r"\d{4}", right(page, "E2.2-1")) == ["2003", "2010", "1997", "2014"]
    torch.manual_seed(0)
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    other = torch.tensor([[9, 2, 3, 4, 5]])  # the first token differs
    window, recurrent = NNLM(11, 3, 4, 6), RecurrentLM(11, 4)
    assert torch.equal(window(ids)[0, -1], window(other)[0, -1])
    assert not torch.equal(recurrent(ids)[0, -1], recurrent(other)[0, -1])


# ---- Section 3


CONFIG = EncoderConfig(vocab_size=11, d_model=8, n_heads=2, n_layers=2, d_ff=16, max_len=8, init_std=0.5)


def test_e3_1_an_encoder_sees_the_next_token_and_a_decoder_does_not():
    torch.manual_seed(0)
    ids, other = torch.tensor([[4, 5, 6, 7]]), torch.tensor([[4, 5, 6, 9]])
    encoder, decoder = MaskedLM(CONFIG).eval(), CausalLM(CONFIG).eval()
    assert not torch.allclose(encoder(ids)[0, 2], encoder(other)[0, 2])
    assert torch.allclose(decoder(ids)[0, 2], decoder(other)[0, 2])


def test_e3_1_1_weights_are_not_the_output():
    output, weights = reference.attention([Q], K, V)
    assert np.isclose(weights.sum(), 1) and not np.isclose(output.sum(), 1)
    assert np.allclose(reference.softmax(Q @ K.T / 2**0.5), weights)
    assert np.allclose(weights @ V, output)


def test_e3_1_2_heads_are_mixed_by_a_projection():
    torch.manual_seed(0)
    layer, x = MultiHeadAttention(8, 2), torch.randn(1, 3, 8)
    before = layer(x)
    with torch.no_grad():
        layer.W_qkv.weight[16:20] += 1.0  # the values of the first head
    changed = (layer(x) - before).abs().amax((0, 1))
    assert (changed > 1e-3).all()  # its change reaches all eight components
    with torch.no_grad():
        layer.W_o.weight.copy_(torch.eye(8))
        concatenated = layer(x)
        layer.W_qkv.weight[16:20] += 1.0
    changed = (layer(x) - concatenated).abs().amax((0, 1))
    assert (changed[:4] > 1e-3).all() and (changed[4:] < 1e-6).all()


def test_e3_1_3_two_linear_layers_are_one():
    rng = np.random.default_rng(0)
    W_1, b_1, W_2, b_2 = (rng.normal(size=size) for size in ((6, 3), 6, (3, 6), 3))
    x = rng.normal(size=3)
    assert np.allclose(W_2 @ (W_1 @ x + b_1) + b_2, W_2 @ W_1 @ x + (W_2 @ b_1 + b_2))
    assert not np.allclose(W_2 @ np.maximum(W_1 @ x + b_1, 0) + b_2, W_2 @ W_1 @ x + (W_2 @ b_1 + b_2))


def test_e3_1_4_without_positions_the_encoder_cannot_tell_the_order():
    torch.manual_seed(0)
    ids, order = torch.tensor([[4, 5, 6, 7, 8]]), torch.tensor([2, 0, 4, 1, 3])
    for positions, blind in (("none", True), ("learned", False), ("rotary", False)):
        encoder = Encoder(replace(CONFIG, positions=positions)).eval()
        assert torch.allclose(encoder(ids)[:, order], encoder(ids[:, order]), atol=1e-5) is blind


def test_e3_1_5_one_character_is_lost():
    whole = "层归一化操作"
    for page in PAGES:
        said = re.search(r"层归一.+?操作", page.read_text("utf8")).group()
        at = whole.index("化")
        first, rest = whole.encode()[: 3 * at + 2], whole.encode()[3 * at + 2 :]
        assert said == first.decode(errors="replace") + rest.decode(errors="replace")


def test_e3_1_6_pretraining_trains_the_encoder():
    torch.manual_seed(0)
    model = MaskedLM(CONFIG)
    mlm_loss(model(torch.tensor([[4, 3, 6]])), torch.tensor([[-100, 5, -100]])).backward()
    trained = [p.grad.abs().max() for name, p in model.encoder.blocks.named_parameters() if "W_" in name]
    assert len(trained) > 8 and min(trained) > 0


def draw():
    """Ten thousand tokens, masked as BERT does."""
    ids = torch.randint(10, 1000, (100, 100), generator=torch.Generator().manual_seed(0))
    return ids, *mask_tokens(
        ids, mask_id=3, vocab_size=1000, special_ids=range(10), generator=torch.Generator().manual_seed(1)
    )


def test_e3_2_1_most_tokens_stay():
    ids, inputs, _, targets = draw()
    chosen = (targets != -100).sum() / ids.numel()
    assert chosen == pytest.approx(0.15, abs=0.01)
    assert (inputs == ids).double().mean() > 0.85
    for page in PAGES:
        assert re.findall(r"\d+", right(page, "E3.2-1")) == ["15", "85"]


def test_e3_2_2_eighty_ten_ten():
    _, inputs, positions, targets = draw()
    asked = targets != -100
    now = inputs.gather(1, positions)[asked]
    became = {80: now == 3, 10: (now != 3) & (now != targets[asked])}
    for percent, those in became.items():
        assert those.double().mean() * 100 == pytest.approx(percent, abs=4)
    assert (now == targets[asked]).double().mean() * 100 == pytest.approx(10, abs=4)
    for page in PAGES:
        assert re.findall(r"\d+", right(page, "E3.2-2")) == ["80", "10", "10"]


def test_e3_2_3_the_loss_falls_where_the_probability_grows():
    logits = torch.zeros(1, 1, 5)
    losses = []
    for score in (0.0, 1.0, 2.0):
        logits[0, 0, 2] = score
        losses.append(mlm_loss(logits, torch.tensor([[2]])).item())
    assert losses[0] > losses[1] > losses[2] > 0


# ---- Section 4


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


def test_e4_2_1_two_projections_are_one():
    rng = np.random.default_rng(0)
    X, A, W = rng.normal(size=(4, 6)), rng.normal(size=(6, 6)), rng.normal(size=(6, 2))
    assert np.allclose((X @ A) @ W, X @ (A @ W))


def test_e4_2_2_parameters_do_not_depend_on_the_number_of_heads():
    sizes = {n_heads: sum(p.numel() for p in MultiHeadAttention(16, n_heads).parameters()) for n_heads in (1, 2, 4, 8)}
    assert len(set(sizes.values())) == 1
    assert all(MultiHeadAttention(16, n_heads).d_k == 16 // n_heads for n_heads in sizes)


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


def test_e4_3_2_the_loss_is_over_masked_positions_alone():
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 7, requires_grad=True)
    targets = torch.tensor([[-100, 5, -100, 2]])
    loss = mlm_loss(logits, targets)
    log_p = logits.log_softmax(-1)[0]
    assert torch.allclose(loss, -(log_p[1, 5] + log_p[3, 2]) / 2)
    loss.backward()
    assert (logits.grad[0, [0, 2]] == 0).all() and (logits.grad[0, [1, 3]] != 0).any()
