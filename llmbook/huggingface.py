"""Hugging Face folders of BERT and GPT-2 into our models, number by number.

Read are ``config.json`` and ``model.safetensors``; a folder that has its weights only as a pickle is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from torch import Tensor, nn

from llmbook.checkpoints import CheckpointError, read_tensors
from llmbook.decoder import CausalLM
from llmbook.mlm import MaskedLM
from llmbook.transformer import Encoder, EncoderConfig

State = dict[str, Tensor]
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}


def load_bert(folder: str | Path) -> Encoder:
    """A BERT encoder (Devlin et al., 2019) in evaluation mode: post-norm, token types, normalised embeddings.

    Args:
        folder: holds ``config.json`` with ``"model_type": "bert"`` and ``model.safetensors``. Heads are left behind.

    Raises:
        FileNotFoundError: one of the files is missing.
        CheckpointError: a file is damaged or no safetensors file, or its tensors are not those of the config.
        ValueError: the config describes a model that ours cannot reproduce.
    """
    config, state = _read(folder, "bert", _bert_config)
    return _filled(Encoder(config), _bert_encoder(state, config), folder)


def load_bert_mlm(folder: str | Path) -> MaskedLM:
    """As :func:`load_bert`, with the head that predicts masked tokens.

    Raises:
        CheckpointError: as :func:`load_bert`; and where the folder has no such head, or one that is not tied to the
            embeddings.
    """
    config, state = _read(folder, "bert", _bert_config)
    words = "embeddings.word_embeddings.weight"
    if "cls.predictions.bias" not in state:
        raise CheckpointError(f"{folder}: expected the tensor cls.predictions.bias, the folder has no masked-LM head")
    if not torch.equal(state.get("cls.predictions.decoder.weight", state[words]), state[words]):
        raise CheckpointError(f"{folder}: expected an output matrix tied to the embeddings, got another")
    new = {f"encoder.{name}": value for name, value in _bert_encoder(state, config).items()}
    new |= _layer("transform", state, "cls.predictions.transform.dense")
    new |= _layer("norm", state, "cls.predictions.transform.LayerNorm")
    return _filled(MaskedLM(config), new | {"bias": state["cls.predictions.bias"]}, folder)


def load_gpt2(folder: str | Path) -> CausalLM:
    """A GPT-2 (Radford et al., 2019) in evaluation mode: pre-norm, learned positions, a head tied to the embeddings.

    Args:
        folder: holds ``config.json`` with ``"model_type": "gpt2"`` and ``model.safetensors``.

    Raises:
        FileNotFoundError, CheckpointError, ValueError: as :func:`load_bert`.
    """
    config, state = _read(folder, "gpt2", _gpt2_config)
    new = {"embedding.tokens.weight": state["wte.weight"], "embedding.positions": state["wpe.weight"]}
    new |= _layer("norm", state, "ln_f")
    for i in range(config.n_layers):
        ours, theirs = f"blocks.{i}", f"h.{i}"
        new |= _layer(f"{ours}.attention_norm", state, f"{theirs}.ln_1")
        new |= _layer(f"{ours}.attention.W_qkv", state, f"{theirs}.attn.c_attn", transpose=True)
        new |= _layer(f"{ours}.attention.W_o", state, f"{theirs}.attn.c_proj", transpose=True)
        new |= _layer(f"{ours}.feed_forward_norm", state, f"{theirs}.ln_2")
        new |= _layer(f"{ours}.feed_forward.W_1", state, f"{theirs}.mlp.c_fc", transpose=True)
        new |= _layer(f"{ours}.feed_forward.W_2", state, f"{theirs}.mlp.c_proj", transpose=True)
    return _filled(CausalLM(config), new, folder)


def load_tokenizer(folder: str | Path) -> Tokenizer | None:
    """The tokenizer in ``folder``: ``tokenizer.json``, else BERT's WordPiece with ``vocab.txt``, else ``None``."""
    folder = Path(folder)
    if (folder / "tokenizer.json").exists():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    if not (folder / "vocab.txt").exists():
        return None
    path = folder / "tokenizer_config.json"
    options = read_json(path) if path.exists() else {}
    tokenizer = Tokenizer(WordPiece.from_file(str(folder / "vocab.txt"), unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(
        handle_chinese_chars=options.get("tokenize_chinese_chars", True),
        strip_accents=options.get("strip_accents"),
        lowercase=options.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder()
    special = {token: tokenizer.token_to_id(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
    tokenizer.add_special_tokens([token for token, i in special.items() if i is not None])
    sep, cls = special["[SEP]"], special["[CLS]"]
    if sep is None or cls is None:
        raise CheckpointError(f"{folder / 'vocab.txt'}: expected the tokens [CLS] and [SEP], found {special}")
    tokenizer.post_processor = BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    return tokenizer


def _bert_config(c: dict[str, Any]) -> EncoderConfig:
    _expect(c, "position_embedding_type", "absolute")
    _expect(c, "is_decoder", False)
    return EncoderConfig(
        vocab_size=c["vocab_size"],
        d_model=c["hidden_size"],
        n_heads=c["num_attention_heads"],
        n_layers=c["num_hidden_layers"],
        d_ff=c["intermediate_size"],
        max_len=c["max_position_embeddings"],
        norm="post",
        activation=_activation(c, "hidden_act"),
        dropout=c.get("hidden_dropout_prob", 0.1),
        n_types=c["type_vocab_size"],
        embed_norm=True,
        norm_eps=c["layer_norm_eps"],
    )


def _gpt2_config(c: dict[str, Any]) -> EncoderConfig:
    for name, value in [("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False),
                        ("add_cross_attention", False), ("tie_word_embeddings", True)]:  # fmt: skip
        _expect(c, name, value)
    return EncoderConfig(
        vocab_size=c["vocab_size"],
        d_model=c["n_embd"],
        n_heads=c["n_head"],
        n_layers=c["n_layer"],
        d_ff=c.get("n_inner") or 4 * c["n_embd"],
        max_len=c["n_positions"],
        activation=_activation(c, "activation_function"),
        dropout=c.get("resid_pdrop", 0.1),
        norm_eps=c["layer_norm_epsilon"],
    )


def _expect(config: dict[str, Any], name: str, value: object) -> None:
    if config.get(name, value) != value:
        raise ValueError(f"config.json: expected {name}={value!r}, got {config[name]!r}")


def _activation(config: dict[str, Any], name: str) -> Any:
    if config[name] not in _ACTIVATIONS:
        raise ValueError(f"config.json: expected {name} to be one of {', '.join(_ACTIVATIONS)}, got {config[name]!r}")
    return _ACTIVATIONS[config[name]]


def _bert_encoder(state: State, config: EncoderConfig) -> State:
    new = {
        "embedding.tokens.weight": state["embeddings.word_embeddings.weight"],
        "embedding.positions": state["embeddings.position_embeddings.weight"],
        "embedding.types.weight": state["embeddings.token_type_embeddings.weight"],
    }
    new |= _layer("embedding.norm", state, "embeddings.LayerNorm")
    for i in range(config.n_layers):
        ours, theirs = f"blocks.{i}", f"encoder.layer.{i}"
        for part in ("weight", "bias"):
            names = [f"{theirs}.attention.self.{role}.{part}" for role in ("query", "key", "value")]
            new[f"{ours}.attention.W_qkv.{part}"] = torch.cat([state[name] for name in names])
        new |= _layer(f"{ours}.attention.W_o", state, f"{theirs}.attention.output.dense")
        new |= _layer(f"{ours}.attention_norm", state, f"{theirs}.attention.output.LayerNorm")
        new |= _layer(f"{ours}.feed_forward.W_1", state, f"{theirs}.intermediate.dense")
        new |= _layer(f"{ours}.feed_forward.W_2", state, f"{theirs}.output.dense")
        new |= _layer(f"{ours}.feed_forward_norm", state, f"{theirs}.output.LayerNorm")
    return new


def _layer(ours: str, state: State, theirs: str, *, transpose: bool = False) -> State:
    """Weight and bias of a layer under our name; GPT-2 stores its matrices the other way round."""
    weight = state[f"{theirs}.weight"]
    return {f"{ours}.weight": weight.T if transpose else weight, f"{ours}.bias": state[f"{theirs}.bias"]}


class _Tensors(State):
    """A state whose missing tensors are reported by name and file."""

    def __init__(self, path: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
        super().__init__(tensors)
        self.path = path

    def __missing__(self, name: str) -> Tensor:
        raise CheckpointError(f"{self.path}: expected a tensor {name}, the file has none of that name")


def _read(folder: str | Path, kind: str, parse: Any) -> tuple[EncoderConfig, State]:
    folder = Path(folder)
    config = read_json(folder / "config.json")
    if config.get("model_type") != kind:
        raise ValueError(f"{folder}: expected a config.json with model_type {kind!r}, got {config.get('model_type')!r}")
    try:
        parsed: EncoderConfig = parse(config)
    except KeyError as missing:
        raise ValueError(f"{folder}: expected {missing} in config.json") from None
    path = folder / "model.safetensors"
    if not path.exists():
        pickled = sorted(p.name for p in folder.glob("*.bin"))
        found = f"only {pickled[0]}, a Python pickle that can run code when loaded" if pickled else "none"
        raise FileNotFoundError(f"{folder}: expected model.safetensors, found {found}")
    return parsed, _Tensors(path, ((_modern(name), value.float()) for name, value in read_tensors(path).items()))


def _modern(name: str) -> str:
    """Without the prefix that models with a head have, and with today's names of the layer norms."""
    name = name.removeprefix("bert.").removeprefix("transformer.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it holds no JSON object.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path.parent}: expected a file {path.name}, found none")
    try:
        value = json.loads(path.read_text("utf8"))
    except ValueError as problem:
        raise CheckpointError(f"{path}: expected JSON, got {problem}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _filled(model: Any, state: State, where: str | Path) -> Any:
    fill(model, state, where)
    return model.eval()


def fill(model: nn.Module, state: State, where: str | Path) -> None:
    """Copy ``state`` into the parameters of ``model``, each once, whatever else is tied to it.

    Raises:
        CheckpointError: a name or a shape does not fit; the model is unchanged then.
    """
    parameters = dict(model.named_parameters())
    for missing in parameters.keys() - state.keys():
        raise CheckpointError(f"{where}: expected a tensor {missing}, found none")
    for name in state.keys() - parameters.keys():
        raise CheckpointError(f"{where}: found a tensor {name}, which is none of {type(model).__name__}'s")
    for name, p in parameters.items():
        if state[name].shape != p.shape:
            expected, came = tuple(p.shape), tuple(state[name].shape)
            raise CheckpointError(f"{where}: expected shape {expected} for {name}, got {came}")
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(state[name])
