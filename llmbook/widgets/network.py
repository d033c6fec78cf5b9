"""A shipped model as the bytes that a page loads: its weights as they are on disk, its tokenizer, its sizes.

The bytes are a number, the length of what follows (4 bytes, little-endian); the header, JSON under zlib:
``{"kind", "config", "tokenizer", "tensors": [[name, shape], …]}``; and the weights in half precision, one tensor after
the other, under zlib: first the high byte of every number, then the low byte of every number. The high bytes, sign and
exponent, repeat themselves and shrink; the low ones do not. ``static/network.js`` reads it.
"""

from __future__ import annotations

import base64
import json
import zlib
from functools import cache
from typing import Any

import numpy as np
from torch import nn

from .tokenizers import tokenizer_data

PIECE = 360_000
"""Bytes of a piece: a model comes in a dozen, so that a page can show how far it has come."""


def pack(model: nn.Module, tokenizer: Any) -> bytes:
    """A masked or a causal language model with its tokenizer, its weights rounded to half precision.

    Raises:
        TypeError: the model is neither a ``MaskedLM`` nor a ``CausalLM``.
        ValueError: it has something that the page's forward pass does not know.
    """
    kind = type(model).__name__
    if kind not in ("MaskedLM", "CausalLM"):
        raise TypeError(f"model: expected a MaskedLM or a CausalLM, got {kind}")
    config: Any = model.config
    known = {"norm": "pre", "positions": "rotary", "n_types": 0, "embed_norm": False}
    for name, value in known.items():
        if getattr(config, name) != value:
            raise ValueError(f"model: expected {name}={value!r} in its config, got {getattr(config, name)!r}")
    sizes = ("vocab_size", "d_model", "n_heads", "n_layers", "d_ff", "max_len", *known, "activation", "norm_eps")
    tensors = {name: p.detach().cpu().half().numpy() for name, p in model.named_parameters()}
    header = {
        "kind": kind,
        "config": {name: getattr(config, name) for name in sizes},
        "tokenizer": tokenizer_data(tokenizer),
        "tensors": [[name, list(tensor.shape)] for name, tensor in tensors.items()],
    }
    first = zlib.compress(json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode(), 9)
    halves = np.concatenate([tensor.reshape(-1) for tensor in tensors.values()]).astype("<f2").view(np.uint8)
    coder = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)  # numbers do not repeat each other: only their code helps
    weights = coder.compress(halves[1::2].tobytes() + halves[0::2].tobytes()) + coder.flush()
    return len(first).to_bytes(4, "little") + first + weights


@cache
def pieces(name: str) -> tuple[bytes, ...]:
    """The packed bytes of a shipped model, cut.

    Raises:
        ValueError: there is no such model.
    """
    from .. import zoo

    if name not in zoo.available():
        raise ValueError(f"name: expected one of {', '.join(zoo.available())}, got {name!r}")
    packed = pack(*zoo.load(name))
    return tuple(packed[i : i + PIECE] for i in range(0, len(packed), PIECE))


def scripts(name: str) -> list[str]:
    """The same as classic scripts, a piece each, for pages that have no kernel to ask."""
    parts = pieces(name)
    return [
        f'llmExplorers.piece("{name}", {i}, {len(parts)}, "{base64.b64encode(part).decode()}");\n'
        for i, part in enumerate(parts)
    ]
