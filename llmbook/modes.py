"""Training mode or evaluation mode for a while: dropout acts in the one and not in the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def in_mode(model: Any, *, training: bool) -> Iterator[None]:
    """Put ``model``, any ``nn.Module``, into a mode for a while.

    Afterwards, after an error too, every part of it is in the mode that it was in.
    """
    modes = [(module, module.training) for module in model.modules()]
    if any(mode != training for _, mode in modes):
        model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
