"""Who may look where: booleans, ``True`` = may attend, that broadcast to ``(B, n_heads, T_q, T_k)``."""

from __future__ import annotations

import torch
from torch import Tensor


def padding_mask(ids: Tensor, pad_id: int) -> Tensor:
    """The mask that hides padding: ``(B, T)`` ids to ``(B, 1, 1, T)`` booleans, ``True`` = a real token.

    Raises:
        TypeError, ValueError: ``ids`` are no tensor, or not of shape ``(B, T)``.
    """
    if not isinstance(ids, Tensor):
        raise TypeError(f"ids: expected a tensor, got {type(ids).__name__}")
    if ids.ndim != 2:
        raise ValueError(f"ids: expected shape (B, T), got {tuple(ids.shape)}")
    return (ids != pad_id)[:, None, None, :]


def causal_mask(t_q: int, t_k: int | None = None, *, device: torch.device | None = None) -> Tensor:
    """The mask that hides the future: ``(t_q, t_k)`` booleans, ``True`` up to each query's own position.

    The ``t_q`` queries are the last of the ``t_k`` positions (all of them unless ``t_k`` is given). (Vaswani et al.,
    2017, section 3.2.3, third point.)
    """
    t_k = t_q if t_k is None else t_k
    return torch.ones(t_q, t_k, dtype=torch.bool, device=device).tril(t_k - t_q)
