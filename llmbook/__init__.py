"""llmbook: the code of the book *Large Language Models: from Theory to Practice*.

Importing the package costs almost nothing: each public name is loaded when it is first used (PEP 562), so
``import llmbook`` pulls in neither torch nor matplotlib.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__version__ = "0.1.0"

_MODULES = ["attention", "batches", "capture", "cards", "checkpoints", "cloze", "counting", "decoder", "fetch",
            "finetune", "generate", "heads", "huggingface", "lm", "masks", "mlm", "ngram", "nnlm", "positions",
            "pretrain", "probe", "processes", "recurrent", "reference", "scale", "sources", "tasks", "text",
            "train", "transformer", "widgets", "zoo"]  # fmt: skip
_HOME = {name: name for name in _MODULES} | {  # public name -> the module it lives in
    "AttentionExplorer": "widgets",
    "BPEExplorer": "widgets",
    "BlockExplorer": "widgets",
    "CausalLM": "decoder",
    "Encoder": "transformer",
    "EncoderConfig": "transformer",
    "EncoderDecoder": "decoder",
    "FillExplorer": "widgets",
    "GradientExplorer": "widgets",
    "HeadsExplorer": "widgets",
    "JourneyExplorer": "widgets",
    "LossExplorer": "widgets",
    "MaskedLM": "mlm",
    "MaskingExplorer": "widgets",
    "MultiHeadAttention": "attention",
    "NGram": "ngram",
    "NNLM": "nnlm",
    "NgramExplorer": "widgets",
    "PositionsExplorer": "widgets",
    "RecurrentLM": "recurrent",
    "ScaleExplorer": "widgets",
    "SequenceClassifier": "heads",
    "SoftmaxExplorer": "widgets",
    "SpanExtractor": "heads",
    "TokenClassifier": "heads",
    "WriteExplorer": "widgets",
    "causal_mask": "masks",
    "mask_tokens": "mlm",
    "mlm_loss": "mlm",
    "padding_mask": "masks",
    "perplexity": "lm",
}
__all__ = ["__version__", "device", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'llmbook' has no attribute {name!r}")
    module = importlib.import_module(f"llmbook.{_HOME[name]}")
    # `llmbook.attention` is the module, as in `from llmbook.attention import attention`
    return module if _HOME[name] == name else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)


def device() -> torch.device:
    """The device to compute on: ``cuda`` where there is one, else ``mps``, else ``cpu``.

    The environment variable ``LLMBOOK_DEVICE`` overrides the choice (for example ``LLMBOOK_DEVICE=cuda:1``).

    Raises:
        ValueError: ``LLMBOOK_DEVICE`` is not the name of a torch device.
    """
    import torch

    wanted = os.environ.get("LLMBOOK_DEVICE")
    if wanted:
        try:
            return torch.device(wanted)
        except RuntimeError:
            raise ValueError(f"LLMBOOK_DEVICE={wanted!r}: expected a torch device such as 'cpu' or 'cuda:0'") from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
