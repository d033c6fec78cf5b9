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
        got = f"{ids.dtype} tensor" if isinstance(ids, Tensor) else type(ids).__name__
        raise TypeError(f"{name}: expected a tensor of integers, got {got}")
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
        got = f"{positions.dtype} tensor" if isinstance(positions, Tensor) else type(positions).__name__
        raise TypeError(f"{name}: expected a tensor of int64, got {got}")
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
