"""The parts together: masking, training, checkpoints, the zoo, capture, fine-tuning and generation, on a toy language.

Its sentences count: ``[CLS] a a+1 a+2 … [SEP]`` modulo 10, so that both neighbours tell every hidden token.
"""

import pytest
import torch
import torch.nn.functional as F

from llmbook import lm, mlm, zoo
from llmbook.capture import capture
from llmbook.decoder import CausalLM
from llmbook.generate import generate
from llmbook.heads import TokenClassifier
from llmbook.mlm import MaskedLM, mask_tokens
from llmbook.train import Batches, train
from llmbook.transformer import EncoderConfig

PAD, CLS, SEP, MASK, DIGITS, T = 0, 1, 2, 3, 10, 9
V = 4 + DIGITS
CONFIG = EncoderConfig(vocab_size=V, d_model=32, n_heads=4, n_layers=2, d_ff=64, max_len=T, init_std=0.1)


def counting(rows=200):
    digits = (torch.arange(rows)[:, None] + torch.arange(T - 2)) % DIGITS + 4
    ends = torch.ones(rows, 1, dtype=torch.int64)
    return torch.cat([ends * CLS, digits, ends * SEP], 1)


def masked(i, data):
    return mask_tokens(data(i), mask_id=MASK, vocab_size=V, special_ids=[PAD, CLS, SEP], p=0.3)


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory):
    """A masked language model, trained in two runs with a checkpoint between them."""
    torch.manual_seed(0)
    model, folder, data = MaskedLM(CONFIG), tmp_path_factory.mktemp("run"), Batches(counting(), 32, seed=0)
    options = {"steps": 300, "lr": 3e-3, "warmup": 20, "checkpoint": folder, "every": 50}
    run = train(model, lambda i: masked(i, data), mlm.training_loss, **options)
    records = [record for record, _ in zip(run, range(120), strict=False)]
    run.close()
    model = MaskedLM(CONFIG)  # another process would start like this
    records = records[:100] + list(train(model, lambda i: masked(i, data), mlm.training_loss, **options))
    assert [record.step for record in records] == list(range(1, 301))
    return model.eval(), [record.loss for record in records]


def test_masked_lm_learns_to_count(masked_lm):
    model, losses = masked_lm
    unigram = torch.tensor(DIGITS).log().item()
    assert sum(losses[:5]) / 5 > 0.8 * unigram
    assert sum(losses[-20:]) / 20 < 0.35 * unigram
    ids = torch.tensor([[CLS, 7, 8, MASK, 10, 11, MASK, 13, SEP]])
    assert model(ids, torch.tensor([[3, 6]])).argmax(-1).tolist() == [[9, 12]]


def test_trained_model_survives_the_zoo_and_shows_where_it_looks(masked_lm, tmp_path):
    model, _ = masked_lm
    again, _ = zoo.load(zoo.save(model, tmp_path / "model"))
    ids = counting(3)
    assert torch.equal(again(ids), model(ids))
    with torch.no_grad(), capture(again) as maps:
        again(ids)
    assert [w.shape for w in maps] == [(3, 4, T, T)] * 2


def test_pre_trained_encoder_is_fine_tuned(masked_lm):
    model, _ = masked_lm
    torch.manual_seed(1)
    before = model.encoder.embedding.tokens.weight.clone()
    tagger = TokenClassifier(model.encoder, 2, dropout=0.0)
    ids = counting()
    odd = torch.where(ids > MASK, ids % 2, -100)

    def loss(model, batch):
        ids, targets = batch
        return F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), reduction="sum"), (targets >= 0).sum()

    data = Batches((ids, odd), 32, seed=1)
    records = list(train(tagger, data, loss, steps=60, lr=1e-3))
    assert records[-1].loss < 0.1 < 0.5 < records[0].loss
    with torch.no_grad():
        model.encoder.embedding.tokens.weight.copy_(before)


def test_causal_lm_learns_to_count_and_goes_on_counting():
    torch.manual_seed(0)
    model = CausalLM(CONFIG)
    losses = [r.loss for r in train(model, Batches(counting(), 32, seed=0), lm.training_loss, steps=150, lr=3e-3)]
    assert 0.28 < losses[-1] < 0.35 < 2.0 < losses[0]  # the first digit cannot be known: ln(10) / 8 a token is left
    assert lm.perplexity(model, counting(10)) == pytest.approx(torch.tensor(losses[-1]).exp().item(), rel=0.3)
    expected = torch.tensor([CLS, 12, 13, 4, 5, 6, 7, 8, SEP])
    assert torch.equal(generate(model, expected[:2], 20, temperature=0, stop_id=SEP), expected)
