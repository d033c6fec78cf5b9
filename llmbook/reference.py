"""The mathematics of the book in numpy, one line an equation: slow, obvious, and the oracle of the tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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


def layer_norm(x: npt.ArrayLike, gain: npt.ArrayLike, bias: npt.ArrayLike, eps: float = 1e-5) -> Array:
    """``(x − mean) / √(variance + eps) · gain + bias`` over the last axis (Ba et al., 2016, equations 3 and 4)."""
    x = np.asarray(x, dtype=float)
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * gain + bias


def gelu(x: npt.ArrayLike) -> Array:
    """``x · Φ(x)`` with the distribution function Φ of the normal distribution (Hendrycks & Gimpel, 2016)."""
    x = np.asarray(x, dtype=float)
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def feed_forward(
    x: npt.ArrayLike, w_1: npt.ArrayLike, b_1: npt.ArrayLike, w_2: npt.ArrayLike, b_2: npt.ArrayLike
) -> Array:
    """``GELU(x W_1 + b_1) W_2 + b_2`` (Vaswani et al., 2017, equation 2, with another nonlinearity).

    Args:
        x: ``(..., d_model)``.
        w_1, b_1: ``(d_model, d_ff)`` and ``(d_ff,)``.
        w_2, b_2: ``(d_ff, d_model)`` and ``(d_model,)``.
    """
    return gelu(np.asarray(x) @ np.asarray(w_1) + b_1) @ np.asarray(w_2) + b_2


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0.0),
}


def block(
    x: npt.ArrayLike,
    weights: Mapping[str, npt.ArrayLike],
    *,
    n_heads: int,
    norm: str = "pre",
    residual: bool = True,
    activation: str = "gelu",
    eps: float = 1e-5,
) -> dict[str, list[Array]]:
    """One block of the encoder, every step of it (:class:`llmbook.transformer.Block`, which gives the last alone).

    Args:
        x: ``(T, d_model)``.
        weights: those of a block, by their names in ``state_dict()``.
        n_heads: number of heads.
        norm: the layer norms before the sublayers (``"pre"``), after the sums (``"post"``), or nowhere (``"none"``).
        residual: whether a sublayer's input is added to its output.
        activation: ``"gelu"``, ``"gelu_tanh"`` or ``"relu"``.
        eps: added to the variance.

    Returns:
        The steps by name, in order, each with its matrices: one ``(T, ·)``; three at ``"qkv"``; one ``(T, T)`` a head
        at ``"scores"`` and ``"weights"``.
    """
    w = {name: np.asarray(value, dtype=float) for name, value in weights.items()}
    z = np.asarray(x, dtype=float)
    made: dict[str, list[Array]] = {"x": [z]}

    def linear(z: Array, name: str) -> Array:
        return z @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def normed(z: Array, name: str) -> Array:
        made[name] = [layer_norm(z, w[f"{name}.weight"], w[f"{name}.bias"], eps)]
        return made[name][0]

    def attend(z: Array) -> Array:
        made["qkv"] = np.split(linear(z, "attention.W_qkv"), 3, -1)
        q, k, v = (np.stack(np.split(part, n_heads, -1)) for part in made["qkv"])  # (H, T, d_k) each
        made["scores"] = list(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
        outputs, weights = attention(q, k, v)
        made["weights"], made["heads"] = list(weights), [np.concatenate(list(outputs), -1)]
        made["project"] = [linear(made["heads"][0], "attention.W_o")]
        return made["project"][0]

    def expand(z: Array) -> Array:
        made["hidden"] = [ACTIVATIONS[activation](linear(z, "feed_forward.W_1"))]
        made["contract"] = [linear(made["hidden"][0], "feed_forward.W_2")]
        return made["contract"][0]

    for name, sublayer in (("attention", attend), ("feed_forward", expand)):
        y = sublayer(normed(z, f"{name}_norm") if norm == "pre" else z)
        if residual:
            made[f"{name}_sum"] = [y := z + y]
        z = normed(y, f"{name}_norm") if norm == "post" else y
    return made


def cross_entropy(logits: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """The mean of ``−ln softmax(logits)[target]`` over the targets that are not negative; 0 if there is none.

    Args:
        logits: ``(..., V)``.
        targets: ``(...)`` token ids; negative where nothing is to be predicted.
    """
    p, targets = softmax(logits), np.asarray(targets)
    losses = -np.log(np.take_along_axis(p, np.maximum(targets, 0)[..., None], -1)[..., 0])[targets >= 0]
    return float(losses.mean()) if losses.size else 0.0
