"""Masking: rates, what is never touched, whole words; the head at masked positions against the dense head; the loss."""

import re

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close, gradients, ids_of, normal, shake
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook.mlm import MaskedLM, mask_tokens, mlm_loss
from llmbook.transformer import EncoderConfig, padding_mask

PAD, CLS, SEP, MASK, V = 0, 1, 2, 3, 23
SPECIAL = [PAD, CLS, SEP, MASK]
B, T, K, D = 2, 11, 5, 12
SIZES = {"vocab_size": V, "d_model": D, "n_heads": 3, "n_layers": 3, "d_ff": 17, "max_len": 13}

norms = pytest.mark.parametrize("norm", ["pre", "post"])
quick = settings(deadline=None, derandomize=True, max_examples=60)


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def corrupt(ids, *, seed=0, vocab_size=V, **options):
    options = {"mask_id": MASK, "special_ids": SPECIAL, "generator": seeded(seed)} | options
    return mask_tokens(ids, vocab_size=vocab_size, **options)


def sentences(rows, length, *, vocab_size=V, seed=0):
    """[CLS] words [SEP] [PAD]…, of different lengths."""
    ids = ids_of(rows, length, vocab_size=vocab_size, low=4, seed=seed)
    ids[:, 0] = CLS
    for b in range(rows):
        end = length - 1 - b % (length // 2)
        ids[b, end], ids[b, end + 1 :] = SEP, PAD
    return ids


def chosen_of(ids, positions, targets):
    """Booleans ``(B, T)``: where something is to be predicted."""
    chosen = torch.zeros(ids.shape, dtype=torch.int64)
    return chosen.scatter_add(1, positions, (targets != -100).long()) > 0


# ---- Masking


def test_rates_are_those_of_bert():
    size = 30_000
    ids = ids_of(200, 2000, vocab_size=size, low=4)
    inputs, positions, targets = corrupt(ids, vocab_size=size)
    chosen = chosen_of(ids, positions, targets)
    n, m = ids.numel(), int(chosen.sum())
    assert_rate(m, n, 0.15)
    now, was = inputs[chosen], ids[chosen]
    assert_rate(int((now == MASK).sum()), m, 0.8)
    assert_rate(int(((now != MASK) & (now != was)).sum()), m, 0.1 * (1 - 1 / (size - 4)))
    assert_rate(int((now == was).sum()), m, 0.1 * (1 + 1 / (size - 4)))


def assert_rate(hits, n, p):
    """Within 4.5 standard deviations of a binomial: a right rate fails once in 150,000 draws, and the draw is fixed."""
    assert abs(hits / n - p) < 4.5 * (p * (1 - p) / n) ** 0.5


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_every_token_of_a_short_row_is_chosen_at_the_stated_rate(length):
    ids = ids_of(20_000, length, vocab_size=V, low=4)
    _, positions, targets = corrupt(ids)
    for hits in chosen_of(ids, positions, targets).sum(0):
        assert_rate(int(hits), len(ids), 0.15)


def test_random_tokens_are_uniform_over_the_ordinary_ones():
    ids = torch.full((100, 3000), 7)
    inputs, _, _ = corrupt(ids, p=1.0)
    counts = inputs[(inputs != MASK) & (inputs != 7)].bincount(minlength=V)
    expected = counts.sum() / (V - len(SPECIAL) - 1)
    others = [i for i in range(4, V) if i != 7]
    assert counts[SPECIAL].sum() == 0
    assert ((counts[others] - expected).abs() < 4.5 * expected**0.5).all()


@st.composite
def batches(draw):
    rows, length = draw(st.integers(1, 5)), draw(st.integers(1, 17))
    ids = ids_of(rows, length, vocab_size=V, seed=draw(st.integers(0, 999)))
    return ids, draw(st.sampled_from([0.0, 0.05, 0.15, 0.5, 1.0])), draw(st.integers(0, 999))


@quick
@given(batches())
def test_only_chosen_ordinary_tokens_change_and_targets_are_what_they_were(batch):
    ids, p, seed = batch
    before = ids.clone()
    inputs, positions, targets = corrupt(ids, p=p, seed=seed)
    chosen = chosen_of(ids, positions, targets)
    assert torch.equal(ids, before)
    assert torch.equal(inputs[~chosen], ids[~chosen])
    assert not torch.isin(ids[chosen], torch.tensor(SPECIAL)).any()
    assert torch.equal(targets[targets != -100], ids.gather(1, positions)[targets != -100])
    assert ((positions == 0) | (targets != -100)).all()
    counts = (targets != -100).sum(1)
    free = (~torch.isin(ids, torch.tensor(SPECIAL))).sum(1)
    assert ((counts >= (p * free).floor()) & (counts <= (p * free).ceil())).all()
    assert positions.shape == targets.shape == (len(ids), int(counts.max()))
    for row, n in zip(positions, counts, strict=True):
        assert row[:n].tolist() == sorted(set(row[:n].tolist()))


@quick
@given(batches())
def test_same_seed_same_masks_other_seed_other_masks(batch):
    ids, p, seed = batch
    assert all(
        torch.equal(x, y) for x, y in zip(corrupt(ids, p=p, seed=seed), corrupt(ids, p=p, seed=seed), strict=True)
    )


def test_other_seed_gives_other_masks():
    ids = ids_of(8, 50, vocab_size=V, low=4)
    assert not torch.equal(corrupt(ids, seed=1)[0], corrupt(ids, seed=2)[0])


def test_masking_works_where_the_ids_are(device):
    ids = ids_of(8, 50, vocab_size=V, low=4).to(device)
    for where in {"cpu", device.type}:
        results = corrupt(ids, generator=seeded(5, where))
        assert all(x.device.type == device.type for x in results)
    expected = corrupt(ids.cpu(), generator=seeded(5))
    assert all(torch.equal(x.cpu(), y) for x, y in zip(corrupt(ids, generator=seeded(5)), expected, strict=True))


def test_without_a_generator_the_global_seed_decides():
    ids = ids_of(8, 50, vocab_size=V, low=4)
    torch.manual_seed(3)
    first = corrupt(ids, generator=None)[0]
    torch.manual_seed(3)
    assert torch.equal(corrupt(ids, generator=None)[0], first)


WORDS = torch.tensor([[-1, 0, 0, 0, 1, 2, 2, 3, -1, -1, -1]])


def test_whole_words_are_chosen_with_all_their_tokens():
    ids = torch.tensor([[CLS, 5, 6, 7, 8, 9, 10, 11, SEP, PAD, PAD]]).expand(5000, -1)
    words = WORDS.expand(5000, -1)
    _, positions, targets = corrupt(ids, words=words)
    chosen = chosen_of(ids, positions, targets)
    for word in range(4):
        tokens = chosen[:, WORDS[0] == word]
        assert (tokens.all(1) == tokens.any(1)).all()
        assert_rate(int(tokens[:, 0].sum()), 5000, 0.15)
    assert not chosen[:, WORDS[0] == -1].any()


def test_token_of_no_word_is_never_chosen():
    _, positions, targets = corrupt(torch.tensor([[5, 6, 7]]), p=1.0, words=torch.tensor([[-1, 0, 0]]))
    assert (positions.tolist(), targets.tolist()) == ([[1, 2]], [[6, 7]])


def test_mask_itself_is_special_whether_listed_or_not():
    ids = torch.full((50, 400), 7)
    ids[:, 0] = MASK
    inputs, positions, targets = corrupt(ids, p=1.0, special_ids=[PAD])
    assert not chosen_of(ids, positions, targets)[:, 0].any()
    assert_rate(int((inputs[:, 1:] == MASK).sum()), inputs[:, 1:].numel(), 0.8)


def test_special_token_inside_a_word_is_never_chosen():
    ids = torch.tensor([[5, SEP, 6, 7]])
    _, positions, targets = corrupt(ids, p=1.0, words=torch.tensor([[0, 0, 0, 1]]))
    assert (positions.tolist(), targets.tolist()) == ([[0, 2, 3]], [[5, 6, 7]])


@pytest.mark.parametrize(
    ("ids", "options", "error", "message"),
    [
        (torch.zeros(2, 3), {}, TypeError, "ids: expected a tensor of int64, got torch.float32"),
        ([[1]], {}, TypeError, "ids: expected a tensor of int64, got list"),
        (torch.tensor([4, 5]), {}, ValueError, "ids: expected shape (B, T), got (2,)"),
        (torch.tensor([[4, V]]), {}, ValueError, "ids: expected 0 to 22, got 4 to 23"),
        (torch.tensor([[4]]), {"p": 1.5}, ValueError, "p: expected a probability between 0 and 1, got 1.5"),
        (torch.tensor([[4]]), {"p": float("nan")}, ValueError, "p: expected a probability between 0 and 1, got nan"),
        (torch.tensor([[4]]), {"mask_id": V}, ValueError, "mask_id: expected 0 to 22 (vocab_size=23), got 23"),
        (torch.tensor([[4]]), {"special_ids": [-1]}, ValueError, "special_ids: expected 0 to 22 (vocab_size=23)"),
        (torch.tensor([[4]]), {"special_ids": range(V)}, ValueError, "special_ids: expected some of the 23 ids to be"),
        (torch.tensor([[4]]), {"words": torch.tensor([0])}, ValueError, "words: expected shape (1, 1) as ids"),
    ],
)  # fmt: skip
def test_masking_names_what_is_wrong(ids, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        corrupt(ids, **options)


# ---- The model


def model_of(norm="pre", **options):
    return shake(MaskedLM(EncoderConfig(norm=norm, **{**SIZES, **options})).double()).eval()


@norms
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_head_at_masked_positions_equals_the_dense_head(norm, positions, device):
    model = model_of(norm, positions=positions).to(device)
    ids = sentences(4, T)
    inputs, where, targets = (x.to(device) for x in corrupt(ids, p=0.4))
    mask = padding_mask(ids, PAD).to(device)
    sparse = mlm_loss(model(inputs, where, mask), targets)
    dense = dense_loss(model(inputs, mask=mask), where, targets)
    assert_close(sparse, dense)
    parameters = list(model.parameters())
    assert_close(gradients(sparse, parameters), gradients(dense, parameters), slack=10)


def test_sparse_loss_equals_the_dense_loss_in_single_precision(device):
    model = MaskedLM(EncoderConfig(**SIZES)).to(device)
    inputs, where, targets = (x.to(device) for x in corrupt(sentences(4, T), p=0.4))
    sparse, dense = mlm_loss(model(inputs, where), targets), dense_loss(model(inputs), where, targets)
    parameters = list(model.parameters())
    for x, y in zip([sparse, *gradients(sparse, parameters)], [dense, *gradients(dense, parameters)], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-6)


def dense_loss(logits, where, targets):
    """torch's cross-entropy over all positions, most of them ignored."""
    labels = torch.full(logits.shape[:2], -100, device=logits.device)
    rows, columns = (targets != -100).nonzero(as_tuple=True)
    labels[rows, where[rows, columns]] = targets[rows, columns]
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def test_head_is_tied_to_the_embeddings_and_has_a_bias():
    model = model_of()
    model.encoder.embedding.tokens.weight.data[7] = 0
    assert torch.equal(model(sentences(B, T))[..., 7], model.bias[7].expand(B, T))
    assert sum(p.shape == (V, D) for p in model.parameters()) == 1


def test_shapes_with_and_without_positions():
    model, ids = model_of(), sentences(B, T)
    assert model(ids).shape == (B, T, V)
    assert model(ids, torch.zeros(B, K, dtype=torch.int64)).shape == (B, K, V)


# ---- The loss


def test_loss_of_one_token_by_hand():
    logits = torch.tensor([[[2.0, 0.0, -1.0]]], dtype=torch.float64)
    expected = -(torch.tensor(2.0).double().exp() / torch.tensor([2.0, 0.0, -1.0]).double().exp().sum()).log()
    assert_close(mlm_loss(logits, torch.tensor([[0]])), expected)


def test_loss_is_the_mean_over_the_targets_and_its_gradient_is_p_minus_y():
    logits, targets = normal(B, K, V), torch.tensor([[4, -100, 9, 22, 0], [-100, 8, -100, -100, 8]])
    real = targets != -100
    p = logits.softmax(-1)
    loss = mlm_loss(logits, targets)
    assert_close(loss, -p[real].gather(1, targets[real][:, None]).log().mean())
    expected = (p - F.one_hot(targets.clamp(min=0), V)) * real[..., None] / real.sum()
    assert_close(torch.autograd.grad(loss, logits)[0], expected)
    assert_close(mlm_loss(logits, targets, reduction="sum"), loss * real.sum())


@pytest.mark.parametrize("k", [0, K])
def test_batch_with_nothing_masked_gives_0_and_no_nan(k):
    model, ids = model_of(), sentences(B, T)
    positions = torch.zeros(B, k, dtype=torch.int64)
    loss = mlm_loss(model(ids, positions), torch.full((B, k), -100))
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or (p.grad == 0).all() for p in model.parameters())


def test_text_of_special_tokens_alone_trains_nothing():
    ids = torch.tensor([[CLS, SEP, PAD]])
    inputs, positions, targets = corrupt(ids, p=1.0)
    assert torch.equal(inputs, ids)
    assert positions.shape == (1, 0)
    assert mlm_loss(model_of()(inputs, positions), targets) == 0


def test_loss_names_what_is_wrong():
    with pytest.raises(
        ValueError, match=re.escape("targets: expected shape (2, 5) as the logits (2, 5, 23) have, got (2, 11)")
    ):
        mlm_loss(torch.zeros(B, K, V), torch.zeros(B, T, dtype=torch.int64))
    with pytest.raises(ValueError, match="reduction: expected 'mean' or 'sum', got 'none'"):
        mlm_loss(torch.zeros(B, K, V), torch.zeros(B, K, dtype=torch.int64), reduction="none")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_long_losses_do_not_overflow_half_precision(dtype):
    targets = ids_of(8, 900, vocab_size=8000)
    loss = mlm_loss(torch.zeros(8, 900, 8000, dtype=dtype), targets.int())
    assert loss.item() == pytest.approx(torch.tensor(8000.0).log().item(), rel=1e-4)


def test_special_ids_may_come_in_any_form():
    ids = sentences(50, T)
    expected = corrupt(ids)
    for special in ((i for i in SPECIAL), torch.tensor(SPECIAL), set(SPECIAL)):
        assert all(torch.equal(x, y) for x, y in zip(corrupt(ids, special_ids=special), expected, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"special_ids": [PAD, None]}, "special_ids: expected an integer, got None"),
        ({"mask_id": "[MASK]"}, "mask_id: expected an integer, got '[MASK]'"),
        ({"words": [[0]]}, "words: expected a tensor of int64, got list"),
    ],
)
def test_masking_names_what_is_of_the_wrong_type(options, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        corrupt(torch.tensor([[4]]), **options)


def test_words_are_numbered_within_the_row():
    with pytest.raises(ValueError, match="words: expected -1 to T - 1 = 1, got 2"):
        corrupt(torch.tensor([[4, 5]]), words=torch.tensor([[0, 2]]))


def test_positions_of_one_row_do_not_serve_a_batch():
    model, ids = model_of(), sentences(B, T)
    with pytest.raises(ValueError, match="positions: expected shape"):
        model(ids, torch.zeros(1, 3, dtype=torch.int64))
