"""See the attention weights of every layer and head, without a flag in any model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from llmbook.attention import MultiHeadAttention


class AttentionMaps(list[Tensor]):
    """The weights ``(B, n_heads, T_q, T_k)`` of the layers, in the order in which the model has them.

    :attr:`names` says which layer each belongs to, as ``model.named_modules()`` calls it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []


@contextmanager
def capture(model: nn.Module) -> Iterator[AttentionMaps]:
    """Within the block, each forward pass of ``model`` leaves its attention weights in the list.

    .. code-block:: python

        with capture(model) as maps:
            model(ids)
        maps[layer][row, head]  # (T_q, T_k)

    The weights are those that made the output: under the mask, and part of the graph (call ``detach`` or use
    ``torch.no_grad`` to keep the numbers alone). A second pass replaces what the first left. On leaving the block, by
    an exception too, the model is as it was and takes the fused path again. Do not copy or pickle it inside the block:
    the copy would go on listening.

    Raises:
        TypeError: the model is compiled: what was compiled does not look for hooks.
        ValueError: the model has no :class:`llmbook.attention.MultiHeadAttention`.
    """
    if hasattr(model, "_orig_mod") or any(m._compiled_call_impl is not None for m in model.modules()):
        raise TypeError(
            "model: expected the model itself, got one that torch.compile made; capture what it was made of"
        )
    layers = {name: m for name, m in model.named_modules() if isinstance(m, MultiHeadAttention)}
    if not layers:
        raise ValueError(f"model: expected a model with MultiHeadAttention layers, got {type(model).__name__}")
    maps, seen, order = AttentionMaps(), dict[str, Tensor](), list(layers)

    def keep(name: str, module: nn.Module, args: Any, weights: Tensor) -> None:
        seen[name] = weights
        maps.names = sorted(seen, key=order.index)
        maps[:] = [seen[n] for n in maps.names]

    handles = []
    try:
        for name, layer in layers.items():
            handles.append(layer.weights.register_forward_hook(partial(keep, name)))
        yield maps
    finally:
        for handle in handles:
            handle.remove()
