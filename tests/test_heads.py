"""Fine-tuning heads: what they compute, that padding does not reach them, and that they learn."""

import re

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close, ids_of, shake
from torch import nn

from llmbook.heads import SequenceClassifier, SpanExtractor, TokenClassifier
from llmbook.mlm import MaskedLM
from llmbook.transformer import Encoder, EncoderConfig, padding_mask

B, T, D, V, C = 2, 7, 12, 19, 5
CONFIG = EncoderConfig(vocab_size=V, d_model=D, n_heads=3, n_layers=2, d_ff=17, max_len=11, norm="post", n_types=2)
IDS = ids_of(B, T, vocab_size=V, low=1)
PADDED = torch.cat([IDS, torch.zeros(B, 3, dtype=torch.int64)], 1)


def encoder():
    return shake(Encoder(CONFIG).double())


HEADS = {
    "first": lambda: SequenceClassifier(encoder(), C),
    "mean": lambda: SequenceClassifier(encoder(), C, pool="mean"),
    "token": lambda: TokenClassifier(encoder(), C),
    "span": lambda: SpanExtractor(encoder()),
}
heads = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)


def test_first_token_is_pooled_as_in_bert():
    model = shake(HEADS["first"]()).eval()
    expected = model.classifier(torch.tanh(model.pooler(model.encoder(IDS)[:, 0])))
    assert_close(model(IDS), expected)


def test_mean_is_over_real_tokens():
    model = shake(HEADS["mean"]()).eval()
    mask = padding_mask(PADDED, 0)
    expected = model.classifier(torch.tanh(model.pooler(model.encoder(IDS).mean(1))))
    assert_close(model(PADDED, mask), expected)
    assert_close(model(IDS), expected)


def test_tokens_and_ends_are_linear_in_the_vectors():
    tokens, span = (shake(HEADS[name]()).eval() for name in ("token", "span"))
    assert_close(tokens(IDS), tokens.classifier(tokens.encoder(IDS)))
    assert_close(span(IDS), span.ends(span.encoder(IDS)).mT)


@heads
def test_padding_does_not_reach_the_head(head):
    model = shake(head()).eval()
    logits, padded = model(IDS), model(PADDED, padding_mask(PADDED, 0))
    padded = padded if padded.ndim == 2 else padded[..., :T] if padded.shape[1] == 2 else padded[:, :T]
    assert_close(padded, logits)


@heads
def test_types_reach_the_encoder(head):
    model, types = shake(head()).eval(), ids_of(B, T, vocab_size=2, seed=4)
    assert not torch.allclose(model(IDS, types=types), model(IDS))


@heads
def test_head_and_encoder_learn_together(head):
    torch.manual_seed(0)
    model = head().train()
    before = model.encoder.embedding.tokens.weight.clone()
    shape = model(IDS).shape
    n_classes = shape[-1] if shape[1:] != (2, T) else T
    targets = ids_of(*(shape[:-1]), vocab_size=n_classes, seed=5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(model(IDS).flatten(0, -2), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert not torch.equal(before, model.encoder.embedding.tokens.weight)


def test_dropout_acts_on_the_head_in_training_alone():
    model = HEADS["first"]()
    assert not torch.equal(model.train()(IDS), model(IDS))
    assert torch.equal(model.eval()(IDS), model(IDS))


# ---- Spans


def test_best_span_is_that_of_a_loop_over_all_spans():
    logits = torch.randn(50, 2, T, generator=torch.Generator().manual_seed(0))
    for max_len in (1, 3, 99):
        starts, ends = SpanExtractor.best(logits, max_len=max_len)
        for row, start, end in zip(logits, starts, ends, strict=True):
            spans = [(i, j) for i in range(T) for j in range(i, min(i + max_len, T))]
            assert (start, end) == max(spans, key=lambda s: row[0, s[0]] + row[1, s[1]])


def test_answer_lies_where_it_may():
    model = shake(HEADS["span"]()).eval()
    allowed = torch.arange(T).expand(B, -1) >= 4
    logits = model(IDS, allowed=allowed)
    assert (logits[..., :4] == -torch.inf).all()
    starts, ends = model.best(logits)
    assert ((starts >= 4) & (ends >= starts)).all()


# ---- What is refused


@pytest.mark.parametrize("n_classes", [0, -1, 2.0, None])
@pytest.mark.parametrize("kind", [SequenceClassifier, TokenClassifier])
def test_number_of_classes_must_be_positive(kind, n_classes):
    with pytest.raises(ValueError, match=re.escape(f"n_classes: expected a positive integer, got {n_classes!r}")):
        kind(encoder(), n_classes)


def test_pooling_must_be_known():
    with pytest.raises(ValueError, match="pool: expected 'first' or 'mean', got 'max'"):
        SequenceClassifier(encoder(), C, pool="max")


def test_mean_needs_a_padding_mask():
    message = re.escape("mask: expected a padding mask of shape (2, 1, 1, 7), got (7, 7)")
    with pytest.raises(ValueError, match=message):
        HEADS["mean"]()(IDS, torch.ones(T, T, dtype=torch.bool))


def test_span_length_must_be_positive():
    with pytest.raises(ValueError, match="max_len: expected a positive integer, got 0"):
        SpanExtractor.best(torch.zeros(1, 2, 3), max_len=0)


@heads
def test_head_has_the_dtype_and_device_of_its_encoder(head, device):
    model = head()
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert isinstance(model.to(device)(IDS.to(device)), torch.Tensor) and isinstance(model, nn.Module)


@pytest.mark.parametrize("make", [lambda m: SequenceClassifier(m, 2), lambda m: TokenClassifier(m, 2), SpanExtractor])
def test_head_needs_an_encoder(make):
    with pytest.raises(TypeError, match=re.escape("encoder: expected an Encoder, got MaskedLM (a MaskedLM has one")):
        make(MaskedLM(CONFIG))
