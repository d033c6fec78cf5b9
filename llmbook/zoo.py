"""Trained models by name or folder: ours, and Hugging Face's BERT and GPT-2.

A folder of ours holds ``config.json`` (what to build), ``model.safetensors`` (the weights, often in half precision),
``tokenizer.json``, and ``card.json`` (how it was made and how good it is). None of it can run code.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from llmbook.checkpoints import CheckpointError, read_tensors, write_tensors
from llmbook.config import EncoderConfig
from llmbook.decoder import CausalLM, EncoderDecoder
from llmbook.huggingface import fill, load_bert, load_bert_mlm, load_gpt2, load_tokenizer, read_json
from llmbook.mlm import MaskedLM
from llmbook.transformer import Encoder

__all__ = ["available", "card", "load", "load_bert", "load_bert_mlm", "load_gpt2", "load_tokenizer", "save"]

SHIPPED = Path(__file__).parent / "models"
FORMAT = "llmbook model 1"
_CLASSES: dict[str, type[Any]] = {c.__name__: c for c in (Encoder, MaskedLM, CausalLM, EncoderDecoder)}
_LOADERS = {"bert": load_bert, "gpt2": load_gpt2}


def available() -> list[str]:
    """The names of the models that come with the book."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def load(name_or_path: str | Path) -> tuple[nn.Module, Tokenizer | None]:
    """A model in evaluation mode, and its tokenizer (``None`` where the folder has none).

    Args:
        name_or_path: one of :func:`available`, or a folder: one that :func:`save` wrote, or Hugging Face's of a BERT
            (its encoder) or a GPT-2.

    Raises:
        ValueError: neither a known name nor a folder, or a kind of model that is not known.
        FileNotFoundError: the folder lacks a file.
        CheckpointError: a file is damaged, foreign, or of another model.
    """
    folder = _folder(name_or_path)
    config = read_json(folder / "config.json")
    if config.get("model_type") in _LOADERS:
        return _LOADERS[config["model_type"]](folder), load_tokenizer(folder)
    if config.get("format") != FORMAT or config.get("model") not in _CLASSES:
        known = f"format {FORMAT!r} and model {' | '.join(_CLASSES)}, or model_type {' | '.join(_LOADERS)}"
        found = {key: config[key] for key in ("format", "model", "model_type") if key in config}
        raise CheckpointError(f"{folder / 'config.json'}: expected {known}, got {found or 'neither'}")
    try:
        parsed = EncoderConfig(**config["config"])
    except (TypeError, KeyError) as problem:
        raise CheckpointError(f"{folder / 'config.json'}: expected the fields of EncoderConfig, {problem}") from None
    model: nn.Module = _CLASSES[config["model"]](parsed)
    fill(model, read_tensors(folder / "model.safetensors"), folder / "model.safetensors")
    return model.eval(), load_tokenizer(folder)


def card(name_or_path: str | Path) -> dict[str, Any]:
    """What is known of a model: data, tokens, steps, time, machine, losses, accuracies; ``{}`` without a card."""
    path = _folder(name_or_path) / "card.json"
    return read_json(path) if path.exists() else {}


def save(
    model: nn.Module,
    folder: str | Path,
    tokenizer: Tokenizer | None = None,
    *,
    card: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a model so that :func:`load` finds it. The folder appears whole or not at all.

    Args:
        model: an ``Encoder``, ``MaskedLM``, ``CausalLM`` or ``EncoderDecoder``.
        folder: must not exist yet.
        tokenizer: goes with it.
        card: anything that JSON can hold.
        dtype: of the weights on disk, for example ``torch.float16``; the model's own unless given.

    Raises:
        TypeError: the model is of another class; ``dtype`` is no floating-point type.
        ValueError: the model was changed, so that its config no longer describes it.
        FileExistsError: ``folder`` exists.
    """
    folder = Path(folder)
    if type(model).__name__ not in _CLASSES:
        raise TypeError(f"model: expected one of {', '.join(_CLASSES)}, got {type(model).__name__}")
    if dtype is not None and not dtype.is_floating_point:
        raise TypeError(f"dtype: expected a floating-point type, got {dtype}")
    if [n for n, _ in model.named_parameters()] != [n for n, _ in type(model)(model.config).named_parameters()]:
        raise ValueError(f"model: expected the parameters of {type(model).__name__}(model.config), got others")
    if folder.exists():
        raise FileExistsError(f"folder: expected a path that does not exist yet, got {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder.parent))
    try:
        weights = {name: p.detach().to("cpu", dtype).contiguous() for name, p in model.named_parameters()}
        write_tensors(new / "model.safetensors", weights)
        config = {"format": FORMAT, "model": type(model).__name__, "config": dataclasses.asdict(model.config)}  # type: ignore[call-overload]
        _write_json(new / "config.json", config)
        if card is not None:
            _write_json(new / "card.json", card)
        if tokenizer is not None:
            tokenizer.save(str(new / "tokenizer.json"))
        new.chmod(0o755)
        os.rename(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return folder


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf8")


def _folder(name_or_path: str | Path) -> Path:
    if isinstance(name_or_path, str) and name_or_path in available():
        return SHIPPED / name_or_path
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    names = ", ".join(available()) or "none is shipped"
    raise ValueError(f"name_or_path: expected a shipped model ({names}) or a folder, got {str(name_or_path)!r}")
