"""The mathematics of the book in numpy, one line an equation: slow, obvious, and the oracle of the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]


def softmax(scores: npt.ArrayLike) -> Array:
    """Exponentials divided by their sum, along the last axis.

    The maximum is subtracted first: it cancels in the quotient and keeps ``exp`` from overflowing.
    """
    scores = np.asarray(scores, dtype=float)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(
    q: npt.ArrayLike, k: npt.ArrayLike, v: npt.ArrayLike, mask: npt.ArrayLike | None = None
) -> tuple[Array, Array]:
    """Scaled dot-product attention (Vaswani et al., 2017, equation 1).

    Args:
        q: queries ``(..., T_q, d_k)``.
        k: keys ``(..., T_k, d_k)``.
        v: values ``(..., T_k, d_v)``.
        mask: booleans that broadcast to ``(..., T_q, T_k)``; ``True`` = may attend.

    Returns:
        ``(output, weights)``: ``(..., T_q, d_v)`` and ``(..., T_q, T_k)``. A query that may attend nowhere gets
        weights and output 0.
    """
    q, k, v = (np.asarray(x, dtype=float) for x in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    allowed = np.broadcast_to(True if mask is None else np.asarray(mask), scores.shape)
    somewhere = allowed.any(-1, keepdims=True)
    weights = np.where(somewhere, softmax(np.where(allowed | ~somewhere, scores, -np.inf)), 0.0)
    return weights @ v, weights
