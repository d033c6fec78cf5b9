"""What enters a Transformer: one vector a token, made of what it is and where it stands."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llmbook.checks import check_ids
from llmbook.config import EncoderConfig
from llmbook.positions import sinusoidal


class Embedding(nn.Module):
    """What enters the first block: token + position (+ type) embeddings, normalised where the model says so."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.types = nn.Embedding(config.n_types, config.d_model) if config.n_types else None
        self.norm = nn.LayerNorm(config.d_model, eps=config.norm_eps) if config.embed_norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        if config.positions == "learned":
            self.positions = nn.Parameter(torch.empty(config.max_len, config.d_model))
        elif config.positions == "sinusoidal":
            self.register_buffer("positions", sinusoidal(config.max_len, config.d_model), persistent=False)

    def forward(self, ids: Tensor, types: Tensor | None = None, start: int = 0) -> Tensor:
        """Ids ``(B, T)``, of which the first stands at position ``start``, to ``(B, T, d_model)``."""
        check_ids(ids, self.config.vocab_size, self.config.max_len, start=start)
        x = self.tokens(ids)
        if self.config.positions == "sinusoidal":
            x = x * self.config.d_model**0.5
        if self.config.positions in ("learned", "sinusoidal"):
            x = x + self.positions[start : start + ids.shape[1]]
        if types is not None:
            self._check_types(types, ids)
        if self.types is not None:
            x = x + self.types(torch.zeros_like(ids) if types is None else types)
        return self.dropout(self.norm(x))

    def _check_types(self, types: Tensor, ids: Tensor) -> None:
        if self.types is None:
            raise ValueError("types: expected none, as the model has n_types=0")
        check_ids(types, self.config.n_types, name="types")
        if types.shape != ids.shape:
            raise ValueError(f"types: expected shape {tuple(ids.shape)} as ids have, got {tuple(types.shape)}")
