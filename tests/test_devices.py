"""Every model on another device where there is none: tensors on torch's ``meta`` device have shapes but no numbers.

They catch a tensor that is made on the CPU and meets one of the model's, and a value that the host would wait for.
"""

import pytest
import torch

from llmbook.capture import capture
from llmbook.decoder import CausalLM, EncoderDecoder
from llmbook.heads import SequenceClassifier, SpanExtractor, TokenClassifier
from llmbook.masks import padding_mask
from llmbook.mlm import MaskedLM, mlm_loss
from llmbook.nnlm import NNLM
from llmbook.recurrent import RecurrentLM
from llmbook.transformer import Encoder, EncoderConfig

V, B, T = 19, 2, 7
META = torch.device("meta")

all_positions = pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "none"])


def config(**options):
    return EncoderConfig(vocab_size=V, d_model=12, n_heads=3, n_layers=2, d_ff=17, max_len=11, **options)


def ids_there(length=T):
    return torch.empty(B, length, dtype=torch.int64, device=META)


@all_positions
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_encoder_and_masked_lm(positions, norm):
    ids, rows = ids_there(), ids_there(3)
    mask = padding_mask(ids, 0)
    options = {"positions": positions, "norm": norm, "n_types": 2, "embed_norm": True}
    assert Encoder(config(**options)).to(META)(ids, mask).device.type == "meta"
    model = MaskedLM(config(**options)).to(META)
    logits = model(ids, rows, mask)
    assert (logits.device.type, logits.shape) == ("meta", (B, 3, V))
    assert mlm_loss(logits, rows).device.type == "meta"
    with capture(model) as maps:
        model(ids, rows, mask)
    assert {w.device.type for w in maps} == {"meta"}


@all_positions
def test_decoders_with_and_without_a_cache(positions):
    ids = ids_there()
    model = CausalLM(config(positions=positions)).to(META)
    cache = model.new_cache()
    for logits in (model(ids), model(ids, padding_mask(ids, 0)), model(ids_there(4), cache=cache),
                   model(ids_there(3), cache=cache), model(ids_there(1), cache=cache)):  # fmt: skip
        assert logits.device.type == "meta"
    pair = EncoderDecoder(config(positions=positions)).to(META)
    assert pair(ids, ids_there(5), padding_mask(ids, 0)).shape == (B, 5, V)
    assert pair.given(ids)(ids_there(5)).device.type == "meta"


@pytest.mark.parametrize(
    "head", [lambda e: SequenceClassifier(e, 2), lambda e: SequenceClassifier(e, 2, pool="mean"),
             lambda e: TokenClassifier(e, 5), SpanExtractor], ids=["first", "mean", "token", "span"],
)  # fmt: skip
def test_heads(head):
    model, ids = head(Encoder(config())).to(META), ids_there()
    assert model(ids, padding_mask(ids, 0)).device.type == "meta"


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_recurrent_models(cell):
    model = RecurrentLM(V, 12, n_layers=2, cell=cell).to(META)
    cache = model.new_cache()
    assert model(ids_there()).device.type == model(ids_there(1), cache=cache).device.type == "meta"
    assert NNLM(V, context=3, d_model=6, d_hidden=8).to(META)(ids_there()).device.type == "meta"
