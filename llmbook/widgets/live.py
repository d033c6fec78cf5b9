"""What explorers share that hold a trained model: a kernel's side of the conversation in which the page loads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import traitlets as t
from torch import nn

from .. import zoo
from .base import Explorer
from .network import pieces, scripts


class LiveExplorer(Explorer):
    """Base of explorers with a shipped model, which the page loads when the reader asks for it.

    The page says ``{"model": name, "piece": i}`` and gets ``{"model", "piece", "total"}`` with the bytes of that piece
    (:mod:`llmbook.widgets.network`); on a page without a kernel ``static/loader.js`` answers instead.
    """

    kind: str  #: the class of model that it can show

    model = t.Unicode(help="the name of a shipped model").tag(sync=True)

    def __init__(self, model: str, **kwargs: Any) -> None:
        super().__init__(model=model, **kwargs)
        self.on_msg(self._answer)

    @t.validate("model")
    def _shipped(self, proposal: Any) -> str:
        fitting = [name for name in zoo.available() if type(loaded(name)[0]).__name__ == self.kind]
        if proposal["value"] not in fitting:
            raise t.TraitError(f"model: expected one of {', '.join(fitting)}, got {proposal['value']!r}")
        return str(proposal["value"])

    def _answer(self, _: Any, content: Any, buffers: Any) -> None:
        try:
            name, i = content["model"], content["piece"]
            parts = pieces(name)
            self.send({"model": name, "piece": i, "total": len(parts)}, [parts[i]])
        except (TypeError, KeyError, ValueError, IndexError) as problem:
            asked = content.get("model") if isinstance(content, dict) else None
            self.send({"model": asked, "error": str(problem)})

    def scripts(self) -> list[str]:
        """The pieces of the model."""
        return scripts(self.model)


class CuttingExplorer(LiveExplorer):
    """Base of live explorers that show the heads of their model, and cut them."""

    off = t.List(t.Tuple(t.Int(), t.Int()), []).tag(sync=True)
    layer = t.Int(0).tag(sync=True)
    head = t.Int(0).tag(sync=True)
    view = t.Enum(["matrix", "lines"], "matrix").tag(sync=True)

    @t.validate("layer", "head")
    def _which(self, proposal: Any) -> int:
        name = proposal["trait"].name
        return _within(name, proposal["value"], 0, self._limit(f"n_{name}s"))

    @t.validate("off")
    def _cut(self, proposal: Any) -> list[tuple[int, int]]:
        for layer, head in proposal["value"]:
            _within("off", layer, 0, self._limit("n_layers"))
            _within("off", head, 0, self._limit("n_heads"))
        return sorted(set(proposal["value"]))

    def _limit(self, name: str) -> int:
        """A number of the model's configuration."""
        self._shipped({"value": self.model})  # in case that both are refused
        return int(getattr(loaded(self.model)[0].config, name))


def _within(name: str, number: int, least: int, limit: int) -> int:
    if isinstance(number, bool) or not least <= number < limit:
        raise t.TraitError(f"{name}: expected whole numbers from {least} to {limit - 1}, got {number!r}")
    return number


class Text(t.Unicode[str, Any]):
    """A trait that holds a text for a model, of at most ``longest`` characters; a lone surrogate becomes U+FFFD."""

    longest = 10_000  #: as in the modules

    def validate(self, obj: Any, value: Any) -> str:
        """Mend ``value``; raises TraitError naming the trait and how long it is."""
        text: str = super().validate(obj, value)
        if len(text) > self.longest:
            raise t.TraitError(f"{self.name}: expected at most {self.longest} characters, got {len(text)}")
        return re.sub("[\ud800-\udfff]", "\ufffd", text)


@cache
def loaded(name: str) -> tuple[Any, Any]:
    """A shipped model in double precision, as the page computes, and its tokenizer."""
    model, tokenizer = zoo.load(name)
    return model.to(torch.float64), tokenizer


@contextmanager
def without(model: nn.Module, off: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Cut heads for a while: what a ``(layer, head)`` of ``off`` would give to W_o is 0."""
    stack: Any = getattr(model, "encoder", model)
    width = stack.config.d_model // stack.config.n_heads

    def cut(head: int, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        kept = torch.ones_like(inputs[0])
        kept[..., head * width : (head + 1) * width] = 0
        return (inputs[0] * kept,)

    hooks = [
        stack.blocks[layer].attention.W_o.register_forward_pre_hook(lambda _, inputs, head=head: cut(head, inputs))
        for layer, head in off
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
