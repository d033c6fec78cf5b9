"""Where a token stands: sinusoidal and rotary positions (learned ones are a table in :mod:`llmbook.transformer`).

Attention treats its keys as a set: without positions an encoder cannot tell one order of its input from another.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frequencies(d: int, *, base: float = 10_000.0, device: torch.device | None = None) -> Tensor:
    """The angular frequencies ``ω_i = base^(−2i/d)`` of the ``d/2`` pairs of components, in radians per position.

    Returns:
        float64 ``(d/2,)``, from 1 (a period of 2π positions) down to almost ``1/base``.

    Raises:
        ValueError: ``d`` is not positive and even.
    """
    if d < 2 or d % 2:
        raise ValueError(f"d: expected a positive even number of components, got {d}")
    return base ** (-torch.arange(0, d, 2, dtype=torch.float64, device=device) / d)


def sinusoidal(length: int, d_model: int, *, base: float = 10_000.0) -> Tensor:
    """Position vectors that need no training: a sine and a cosine of each frequency.

    ``PE[t, 2i] = sin(t ω_i)`` and ``PE[t, 2i+1] = cos(t ω_i)`` with ``ω_i = base^(−2i/d_model)`` (Vaswani et al.,
    2017, section 3.5). A shift by any number of positions is a rotation of each pair, the same for all positions.

    Returns:
        float32 ``(length, d_model)``.

    Raises:
        ValueError: ``d_model`` is not positive and even.
    """
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies(d_model, base=base)  # (length, d/2)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2).float()


def rotate(x: Tensor, at: Tensor, *, base: float = 10_000.0) -> Tensor:
    """Turn each pair of components ``(x[2i], x[2i+1])`` by the angle ``at · ω_i``: rotary positions.

    The dot product of a query turned by its position ``m`` and a key turned by its position ``n`` depends on the
    positions through ``m − n`` alone (Su et al., "RoFormer", 2021, equations 14 to 16 and 34).

    Args:
        x: queries or keys ``(..., T, d)``, ``d`` even; with a batch, ``(B, n_heads, T, d)``.
        at: the positions of the rows, ``(T,)``, or ``(B, T)`` where they differ within the batch.

    Returns:
        ``(..., T, d)``, each row as long as before.

    Raises:
        ValueError: ``d`` is odd, or ``at`` does not name one position a row.
    """
    if at.shape[-1:] != x.shape[-2:-1] or at.ndim > 2:
        raise ValueError(f"at: expected one position for each of the {x.shape[-2]} rows, got shape {tuple(at.shape)}")
    at = at if at.ndim == 1 else at[:, None]  # the same for all heads
    angles = at[..., None] * frequencies(x.shape[-1], base=base, device=x.device)  # (T, d/2) or (B, 1, T, d/2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)  # (..., T, d/2) each
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
