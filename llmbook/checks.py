"""Bad input is refused by name, with what was expected and what came, before torch refuses it in other words."""

from __future__ import annotations

import torch
from torch import Tensor


def check_ids(ids: Tensor, vocab_size: int, max_len: int | None = None, *, start: int = 0, name: str = "ids") -> None:
    """Refuse what is not a batch of token ids ``(B, T)`` below ``vocab_size``, ending at ``max_len`` at the latest.

    Their range is looked at on the CPU alone: elsewhere it would make the device wait.

    Args:
        ids: token ids ``(B, T)``, ``B, T ≥ 1``.
        vocab_size: number of token ids.
        max_len: the most tokens that a row may have, ``start`` included; any number unless given.
        start: number of tokens that were read before these.
        name: the argument that the message names.

    Raises:
        TypeError, ValueError: with the name of the argument, what was expected and what came.
    """
    if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name}: expected a tensor of integers, got {kind(ids)}")
    if ids.ndim != 2 or ids.numel() == 0:
        raise ValueError(f"{name}: expected shape (B, T) with B, T >= 1, got {tuple(ids.shape)}")
    if max_len is not None and start + ids.shape[1] > max_len:
        raise ValueError(f"{name}: expected at most max_len={max_len} tokens a row, got {start + ids.shape[1]}")
    if not readable(ids):
        return
    low, high = (int(x) for x in ids.aminmax())
    if low < 0 or high >= vocab_size:
        raise ValueError(f"{name}: expected token ids from 0 to {vocab_size - 1}, got ids from {low} to {high}")


def check_positions(positions: Tensor, ids: Tensor, *, name: str = "positions") -> None:
    """Refuse what is not ``(B, K)`` places in the rows of ``ids (B, T)``; their range is looked at on the CPU alone.

    Raises:
        TypeError, ValueError: with the name of the argument, what was expected and what came.
    """
    if not isinstance(positions, Tensor) or positions.dtype != torch.int64:
        raise TypeError(f"{name}: expected a tensor of int64, got {kind(positions)}")
    if positions.ndim != 2 or len(positions) != len(ids):
        raise ValueError(f"{name}: expected shape (B, K) with B={len(ids)} as ids have, got {tuple(positions.shape)}")
    if positions.numel() and readable(positions):
        low, high = (int(x) for x in positions.aminmax())
        if low < 0 or high >= ids.shape[1]:
            raise ValueError(f"{name}: expected 0 to T - 1 = {ids.shape[1] - 1}, got {low} to {high}")


def readable(x: Tensor) -> bool:
    """Whether the numbers of ``x`` can be looked at: not on another device, nor while torch traces or transforms."""
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
    )


def check_sizes(**sizes: int) -> None:
    """Refuse, by name, each of ``sizes`` that is not a positive integer.

    Raises:
        ValueError: for the first such size.
    """
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name}: expected a positive integer, got {size!r}")


def check_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> None:
    """Refuse queries, keys, values and a mask that do not fit together.

    Raises:
        TypeError, ValueError: with the name of the argument, what was expected and what came.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(f"{name}: expected a floating-point tensor, got {kind(x)}")
        if x.ndim < 2:
            raise ValueError(f"{name}: expected at least 2 axes (..., T, d), got shape {tuple(x.shape)}")
        if x.dtype != q.dtype:
            raise TypeError(f"{name}: expected the dtype of q, {q.dtype}, got {x.dtype}")
    if q.shape[-1] != k.shape[-1] or q.shape[-1] == 0:
        raise ValueError(f"k: expected d_k={q.shape[-1]} > 0 as in q {tuple(q.shape)}, got shape {tuple(k.shape)}")
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(f"v: expected T_k={k.shape[-2]} rows as in k {tuple(k.shape)}, got shape {tuple(v.shape)}")
    leading = q.shape[:-2]
    if not leading == k.shape[:-2] == v.shape[:-2]:  # asked first, as torch.broadcast_shapes is slow
        try:
            leading = torch.broadcast_shapes(leading, k.shape[:-2])
            torch.broadcast_shapes(leading, v.shape[:-2])
        except RuntimeError:
            shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
            raise ValueError(f"q, k, v: leading axes do not broadcast together, got shapes {shapes}") from None
    if mask is not None:
        check_mask(mask, (*leading, q.shape[-2], k.shape[-2]))


def check_mask(mask: Tensor, scores: tuple[int, ...]) -> Tensor:
    """``mask`` itself, if it is boolean and broadcasts to the shape of the scores.

    Raises:
        TypeError, ValueError: it is not, or does not.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"mask: expected a boolean tensor (True = may attend), got {kind(mask)}")
    try:
        fits = torch.broadcast_shapes(mask.shape, scores) == scores
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"mask: expected a shape that broadcasts to {scores}, got {tuple(mask.shape)}")
    return mask


def kind(x: object) -> str:
    """What ``x`` is, in the words of a message."""
    return f"{x.dtype} tensor" if isinstance(x, Tensor) else type(x).__name__
