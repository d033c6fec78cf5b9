"""The keys and values of positions that were seen: what lets a decoder write one token without reading all again."""

from __future__ import annotations

import torch
from torch import Tensor


class LayerCache:
    """Keys and values ``(B, n_heads, T, d_k)`` of one attention layer, ``None`` as long as nothing was seen."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    @property
    def length(self) -> int:
        """The number of positions seen so far."""
        return 0 if self.keys is None else self.keys.shape[-2]

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new positions; return those of all."""
        if self.keys is not None and self.values is not None:
            k, v = torch.cat((self.keys, k), -2), torch.cat((self.values, v), -2)
        self.keys, self.values = k, v
        return k, v

    def reorder(self, index: Tensor) -> None:
        """Keep the rows ``index`` of the batch, in that order (a row may be kept twice, as beam search does)."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[index], self.values[index]


class KVCache:
    """One :class:`LayerCache` a layer: it grows by one position a token, where the state of an RNN stays as it is.

    A decoder with ``n_layers`` layers of width ``d_model`` holds ``2 · n_layers · d_model`` numbers a token.
    """

    def __init__(self, n_layers: int) -> None:
        self.layers = [LayerCache() for _ in range(n_layers)]

    @property
    def length(self) -> int:
        """The number of positions seen so far."""
        return self.layers[0].length if self.layers else 0

    def reorder(self, index: Tensor) -> None:
        """Keep the rows ``index`` of the batch in every layer."""
        for layer in self.layers:
            layer.reorder(index)
