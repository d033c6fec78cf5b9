"""One example of every explorer, for the tests that hold for all of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from helpers import shake

from llmbook import widgets
from llmbook.transformer import Block, EncoderConfig
from llmbook.widgets.base import Explorer

TOKENS = ["[CLS]", "the", "cat", "drank", "the", "milk", "[SEP]"]


class Example(NamedTuple):
    """How an explorer is made, a change that Python may make to it, and arguments that show another side of it."""

    make: Callable[..., Explorer]
    change: dict[str, Any]
    other: dict[str, Any]


def example(name: str) -> Example:
    """The example of the explorer of that name."""
    if name not in EXAMPLES:
        pytest.fail(f"tests/examples.py: expected an example of {name} in EXAMPLES, found none")
    return EXAMPLES[name]


def block(**kwargs: Any) -> Explorer:
    torch.manual_seed(0)
    one = shake(Block(EncoderConfig(vocab_size=9, d_model=8, n_heads=2, n_layers=1, d_ff=12, max_len=12)))
    x = torch.randn(7, 8, generator=torch.Generator().manual_seed(0))
    return widgets.BlockExplorer(one, x, TOKENS, **kwargs)


def heads(**kwargs: Any) -> Explorer:
    scores = torch.randn(3, 2, 7, 7, generator=torch.Generator().manual_seed(0))
    return widgets.HeadsExplorer((2 * scores).softmax(-1), TOKENS, **kwargs)


def loss(**kwargs: Any) -> Explorer:
    return widgets.LossExplorer(["cat", "dog", "hat", "mat"], [2.0, 1.0, 0.0, 0.0], target=1, **kwargs)


def masking(**kwargs: Any) -> Explorer:
    return widgets.MaskingExplorer(TOKENS, ["dog", "hat", "tea"], **kwargs)


def ngram(**kwargs: Any) -> Explorer:
    text = "the cat sat on the mat . the dog sat on the log . the cat saw the dog . the dog ran to the mat ."
    return widgets.NgramExplorer(text.split(), **kwargs)


def softmax(**kwargs: Any) -> Explorer:
    return widgets.SoftmaxExplorer([1.3, 1.0, 0.0, -0.1, -0.6, -1.7], **kwargs)


EXAMPLES = {
    "AttentionExplorer": Example(widgets.AttentionExplorer, {"temperature": 2.0}, {"mask": [False, True]}),
    "BPEExplorer": Example(widgets.BPEExplorer, {"step": 7}, {"step": 10, "text": "字节 lowest 👍"}),
    "BlockExplorer": Example(block, {"step": 5}, {"norm": "post", "step": 3, "token": 2, "times": 2}),
    "FillExplorer": Example(widgets.FillExplorer, {"head": 3}, {"off": [(0, 1)], "view": "lines", "query": 2}),
    "GradientExplorer": Example(widgets.GradientExplorer, {"length": 20}, {"linear": True, "w": 1.2}),
    "HeadsExplorer": Example(heads, {"head": 1}, {"view": "lines", "compare": (1, 1), "query": 2}),
    "JourneyExplorer": Example(widgets.JourneyExplorer, {"stage": "1.qkv"}, {"stage": "4.weights", "token": 3}),
    "LossExplorer": Example(loss, {"rate": 2.0}, {"steps": 12}),
    "MaskingExplorer": Example(masking, {"draws": 30}, {"p": 1.0, "quota": True}),
    "NgramExplorer": Example(ngram, {"order": 2}, {"order": 1, "smoothing": "kneser-ney"}),
    "PositionsExplorer": Example(widgets.PositionsExplorer, {"query": 9}, {"kind": "rotary", "query": 9}),
    "ScaleExplorer": Example(widgets.ScaleExplorer, {"tokens": 1e12}, {"parameters": 1e6, "tokens": 2e14}),
    "SoftmaxExplorer": Example(softmax, {"d_k": 256}, {"scaled": False, "d_k": 1024}),
    "WriteExplorer": Example(widgets.WriteExplorer, {"temperature": 0.5}, {"written": [17, 300], "off": [(0, 1)]}),
}
