"""Decoding: from the scores of any :class:`~llmbook.lm.LanguageModel` to text, by sampling or by beam search."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmbook.checks import check_ids, check_sizes
from llmbook.lm import LanguageModel
from llmbook.modes import in_mode


def next_distribution(
    logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The distribution from which the next token is drawn: ``softmax(logits / temperature)``, cut and renormalised.

    Only the ``top_k`` most probable tokens are kept (Fan et al., 2018), and of these only the nucleus: the smallest set
    of most probable tokens with ``Σ p ≥ top_p`` (Holtzman et al., 2020, equation 2). Equals rank by id, lowest first.

    Args:
        logits: scores ``(..., V)``; ``-inf`` forbids a token.
        temperature: below 1 sharpens, above 1 flattens; 0 is greedy: all probability on the highest score.
        top_k: how many tokens are kept; all unless given.
        top_p: the probability that the nucleus must reach (to within rounding), by one token at least; 1 unless given.

    Returns:
        probabilities ``(..., V)`` in float32 or better; each row sums to 1.

    Raises:
        TypeError, ValueError: a row of ``logits`` has no softmax, or an option is out of its range.
    """
    _check_options(temperature, top_k, top_p)
    logits = _check_logits(logits)
    if temperature == 0:
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    scores = (logits - logits.amax(-1, keepdim=True)) / max(temperature, torch.finfo(logits.dtype).tiny)  # at most 0
    if top_k is None and top_p is None:
        return scores.softmax(-1)
    scores, order = scores.sort(dim=-1, descending=True, stable=True)  # (..., V) by rank from here on
    if top_k is not None:
        scores[..., top_k:] = -math.inf
    p = scores.softmax(-1)
    if top_p is not None and top_p < 1:
        unreached = p.cumsum(-1)[..., :-1] < top_p * (1 - 8 * torch.finfo(p.dtype).eps)  # (..., V - 1)
        p = p * F.pad(unreached, (1, 0), value=True)  # a token is kept if those before it do not reach top_p
    return torch.zeros_like(p).scatter(-1, order, p / p.sum(-1, keepdim=True))  # (..., V) by id again


def generate(model: LanguageModel, ids: Tensor, max_new_tokens: int, *, temperature: float = 1.0,
             top_k: int | None = None, top_p: float | None = None, stop_id: int | None = None,
             generator: torch.Generator | None = None, cache: bool = True) -> Tensor:  # fmt: skip
    """Continue ``ids`` token by token, each drawn from :func:`next_distribution` given those before it.

    A context longer than ``model.max_len`` is cut to its last ``max_len`` tokens; as each cut moves all positions, the
    cache is dropped there. The model runs in eval mode, without gradients, and is left as it was.

    Args:
        model, ids: any language model, and the prompts: ``(B, T)`` or ``(T,)`` with T ≥ 1.
        max_new_tokens: how many tokens are added at most.
        temperature, top_k, top_p: as in :func:`next_distribution`.
        stop_id: a row that produced this token is filled with it from then on; when all rows did, generation ends.
        generator: the source of chance, on the device of ``ids``; torch's own unless given.
        cache: whether to use the model's cache, if it has one: it saves work and changes nothing else.

    Returns:
        ids ``(B, T + n)`` or ``(T + n,)``, int64: the prompts and n ≤ ``max_new_tokens`` new tokens.

    Raises:
        TypeError, ValueError: ``ids`` are not all token ids or none at all, or an option is out of its range.
    """
    columns = stream(model, ids, max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, stop_id=stop_id,
                     generator=generator, cache=cache)  # fmt: skip
    return torch.cat([ids.long(), *(column.view(*ids.shape[:-1], 1) for column in columns)], -1)


def stream(model: LanguageModel, ids: Tensor, max_new_tokens: int, *, temperature: float = 1.0,
           top_k: int | None = None, top_p: float | None = None, stop_id: int | None = None,
           generator: torch.Generator | None = None, cache: bool = True) -> Iterator[Tensor]:  # fmt: skip
    """What :func:`generate` adds to ``ids``, each column of new tokens ``(B,)`` as soon as it is made.

    Takes and raises what :func:`generate` does, and raises it at once. Between two columns the model is as it was.
    """
    _check_options(temperature, top_k, top_p)
    context = _Context(model, ids, max_new_tokens, stop_id, cache)
    good = generator is None or (isinstance(generator, torch.Generator) and generator.device.type == ids.device.type)
    _check(good, "generator", f"None or a torch.Generator on {ids.device}", getattr(generator, "device", generator))

    def columns() -> Iterator[Tensor]:
        stopped = torch.zeros_like(context.ids[:, 0], dtype=torch.bool)  # (B,)
        for _ in range(max_new_tokens):
            logits = context.logits().masked_fill(stopped[:, None], 0.0)  # what follows a stop does not matter
            p = next_distribution(logits, temperature=temperature, top_k=top_k, top_p=top_p)  # (B, V)
            token = p.argmax(-1) if temperature == 0 else torch.multinomial(p, 1, generator=generator).squeeze(-1)
            if stop_id is not None:
                token = token.masked_fill(stopped, stop_id)
                stopped = token == stop_id
            context.append(token)
            yield token
            if stopped.all():
                return

    return columns()


def beam_search(model: LanguageModel, ids: Tensor, max_new_tokens: int, *, n_beams: int, stop_id: int | None = None,
                length_penalty: float = 0.0, cache: bool = True) -> list[tuple[Tensor, float]]:  # fmt: skip
    """The best continuations Y of one prompt that a search of limited width finds.

    Of all extensions of all beams by one token, the ``n_beams`` of the highest log P(Y) go on. One that ends in
    ``stop_id`` leaves the beam, now narrower by one (Sutskever et al., 2014, section 3.2). The score that ranks them in
    the end is ``log P(Y) / lp(Y)``, ``lp(Y) = (5 + |Y|)^α / (5 + 1)^α`` (Wu et al., 2016, equation 14, no coverage).

    Args:
        model, ids, max_new_tokens, stop_id, cache: as in :func:`generate`, but ``ids`` are ``(T,)`` or ``(1, T)``.
        n_beams: the width of the search; 1 is greedy.
        length_penalty: α ≥ 0; 0 ranks by log P(Y), which favours the short, and a larger α does so less.

    Returns:
        ``(ids, score)``, best first, ids ``(T + n,)``: ``n_beams`` of them, or all with P(Y) > 0 if these are fewer.

    Raises:
        TypeError, ValueError: as :func:`generate`; and ``ids`` must be one prompt, ``n_beams`` a positive integer.
    """
    check_sizes(n_beams=n_beams)
    _check_number("length_penalty", length_penalty)
    context = _Context(model, ids, max_new_tokens, stop_id, cache)
    _check(len(context.ids) == 1, "ids", "one prompt, (T,) or (1, T)", tuple(ids.shape))
    total, found = torch.zeros(1, device=ids.device), list[tuple[Tensor, float]]()  # log P(Y) of each beam (b,)
    for _ in range(max_new_tokens):
        grown = total[:, None] + _check_logits(context.logits()).log_softmax(-1)  # (b, V)
        total, best = grown.flatten().sort(dim=0, descending=True, stable=True)  # (b·V,)
        width = min(n_beams - len(found), int((total > -math.inf).sum()))
        total, row, token = total[:width], best[:width] // grown.shape[1], best[:width] % grown.shape[1]  # (width,)
        ends = token == (-1 if stop_id is None else stop_id)
        found += zip(torch.cat([context.ids[row], token[:, None]], 1)[ends], total[ends].tolist(), strict=True)
        total = total[~ends]
        context.append(token[~ends], row[~ends])
        if not len(total):
            break
    found += zip(context.ids, total.tolist(), strict=True)
    scored = [(y, log_p / ((5 + len(y) - ids.shape[-1]) / (5 + 1)) ** length_penalty) for y, log_p in found]
    return sorted(scored, key=lambda hypothesis: -hypothesis[1])


class _Context:
    """The tokens ``(B, T)`` so far, and the model's cache for as long as it is of use."""

    def __init__(self, model: Any, ids: Tensor, max_new_tokens: int, stop_id: int | None, cache: bool) -> None:
        if not hasattr(model, "vocab_size"):
            raise TypeError(f"model: expected a language model, got {type(model).__name__} "
                            "(an EncoderDecoder is one once its source is given: model.given(source))")  # fmt: skip
        rows = ids[None] if isinstance(ids, Tensor) and ids.ndim == 1 else ids
        check_ids(rows, model.vocab_size)
        _check(isinstance(max_new_tokens, int) and max_new_tokens >= 0, "max_new_tokens", "an int >= 0", max_new_tokens)
        known = stop_id is None or stop_id in range(model.vocab_size)
        _check(known, "stop_id", f"None or a token id from 0 to {model.vocab_size - 1}", stop_id)
        self.model, self.ids = model, rows.long().clone()
        self.cache = model.new_cache() if cache and hasattr(model, "new_cache") else None

    @torch.no_grad()
    def logits(self) -> Tensor:
        model, ids, max_len = self.model, self.ids, self.model.max_len
        if max_len is not None and ids.shape[1] > max_len:
            ids, self.cache = ids[:, -max_len:], None  # every token has moved
        with in_mode(model, training=False):
            logits = model(ids) if self.cache is None else model(ids[:, self.cache.length :], cache=self.cache)
        return logits[:, -1]  # (B, V): the scores of the token that comes next

    def append(self, token: Tensor, row: Tensor | None = None) -> None:
        """Row i goes on as ``row[i]`` was, and with ``token[i]``."""
        if row is not None and self.cache is not None:
            self.cache.reorder(row)
        rows = self.ids if row is None else self.ids[row]
        self.ids = torch.cat([rows, token[:, None]], 1)  # (B, T) and (B,) -> (B, T + 1)


def _check_options(temperature: float, top_k: int | None, top_p: float | None) -> None:
    _check_number("temperature", temperature)
    _check(top_k is None or (isinstance(top_k, int) and top_k > 0), "top_k", "a positive integer or None", top_k)
    _check(top_p is None or (isinstance(top_p, int | float) and 0 < top_p <= 1), "top_p", "a number in (0, 1]", top_p)


def _check_logits(logits: Tensor) -> Tensor:
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise TypeError(f"logits: expected a floating-point tensor, got {getattr(logits, 'dtype', type(logits))}")
    _check(logits.ndim > 0 and logits.shape[-1] > 0, "logits", "shape (..., V) with V >= 1", tuple(logits.shape))
    wrong = [x for x in logits.amax(-1).flatten().tolist() if not math.isfinite(x)]
    _check(not wrong, "logits", "a finite maximum in each row", wrong and wrong[0])
    return logits.to(torch.promote_types(logits.dtype, torch.float32))  # float32 or better


def _check_number(name: str, value: float) -> None:
    _check(isinstance(value, int | float) and 0 <= value < math.inf, name, "a finite number >= 0", value)


def _check(good: bool, name: str, expected: str, got: object) -> None:
    if not good:
        raise ValueError(f"{name}: expected {expected}, got {got!r}")
