"""The sizes and choices of a Transformer, checked before anything is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmbook.checks import check_sizes

_CHOICES = {
    "norm": ("pre", "post"),
    "positions": ("learned", "sinusoidal", "rotary", "none"),
    "activation": ("gelu", "gelu_tanh", "relu"),
}


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes and choices of a Transformer; what is not said here is the same in all of them.

    Args:
        vocab_size: number of token ids.
        d_model: width of every layer's input and output.
        n_heads: attention heads a layer; must divide ``d_model``.
        n_layers: number of blocks.
        d_ff: inner width of the feed-forward sublayer.
        max_len: the longest input, in tokens.
        norm: layer norm before each sublayer (``"pre"``) or after each residual sum (``"post"``).
        positions: ``"learned"`` (a table), ``"sinusoidal"`` (embeddings are then scaled by ``√d_model``, Vaswani et
            al., 2017, section 3.4), ``"rotary"``, or ``"none"``.
        activation: of the feed-forward sublayer: ``"gelu"`` (with the error function), ``"gelu_tanh"``, ``"relu"``.
        dropout: probability with which components of the embeddings and of each sublayer's output become 0.
        n_types: number of token types (segments) that are told apart by an embedding of their own, as in BERT.
        embed_norm: whether the sum of the embeddings passes a layer norm, as in BERT.
        norm_eps: added to the variance in every layer norm.
        init_std: standard deviation of the weights at birth.

    Raises:
        ValueError: a size is not a positive integer, or a choice is unknown.
    """

    vocab_size: int
    d_model: int
    n_heads: int
    n_layers: int
    d_ff: int
    max_len: int
    norm: Literal["pre", "post"] = "pre"
    positions: Literal["learned", "sinusoidal", "rotary", "none"] = "learned"
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    dropout: float = 0.0
    n_types: int = 0
    embed_norm: bool = False
    norm_eps: float = 1e-5
    init_std: float = 0.02

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "d_model", "n_heads", "n_layers", "d_ff", "max_len")
        check_sizes(**{name: getattr(self, name) for name in sizes})
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model: expected a multiple of n_heads={self.n_heads}, got {self.d_model}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a probability below 1, got {self.dropout!r}")
        if not (self.norm_eps >= 0 and self.init_std >= 0):
            raise ValueError(f"norm_eps, init_std: expected 0 or more, got {self.norm_eps} and {self.init_std}")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"d_model: expected an even number with sinusoidal positions, got {self.d_model}")
        if not isinstance(self.n_types, int) or self.n_types < 0:
            raise ValueError(f"n_types: expected 0 or a positive integer, got {self.n_types!r}")
