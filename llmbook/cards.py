"""The card of a pre-trained model: what it was made of and how, and how good it is beside models that count."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from llmbook.cloze import Answers, Counts, Masked, answer, difference, questions, score
from llmbook.lm import perplexity
from llmbook.ngram import NGram
from llmbook.pretrain import Prepared, Recipe, held_out_loss, rows

KINDS = ("unigram", "left", "two-sided")
REPRODUCIBLE = (
    "The same recipe, machine, version of torch and number of threads give the same weights, bit for bit. "
    "Elsewhere sums are rounded otherwise, and training magnifies it: after 400 steps with the instructions of an"
    " older processor weights differed by up to 0.008, the loss by 0.0001 (llmbook/studies/machines.json). After "
    "a whole run expect a difference as between two seeds."
)


def card(
    recipe: Recipe, prepared: Prepared, model: nn.Module, curve: list[dict[str, float]], device: torch.device | str
) -> dict[str, Any]:
    """What ``card.json`` holds: recipe, tokens, time, machine and curve of a run, and the model measured.

    A masked language model answers the questions of :mod:`llmbook.cloze` on the test part, and so do the three models
    that count; a causal one has its perplexity on it, beside those of n-grams. All learnt from the same training part.

    Args:
        recipe, prepared, model: as :func:`llmbook.pretrain.pretrain` had and gave them; measured as it will be shipped.
        curve: of the run.
        device: it was trained on.
    """
    training = recipe.training
    return {
        "recipe": asdict(recipe),
        "texts": {part: len(getattr(prepared, part)) for part in ("train", "dev", "test")},
        "tokens": {part: sum(map(len, getattr(prepared, part))) for part in ("train", "dev", "test")},
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": training["steps"],
        "tokens_seen": training["steps"] * training.get("accumulate", 1) * recipe.batch_size * recipe.length,
        "seconds": curve[-1]["seconds"] if curve else None,
        "machine": machine(device, recipe.threads),
        "torch": torch.__version__,
        "reproducible": REPRODUCIBLE,
        "test_loss": round(held_out_loss(recipe, model, rows(recipe, prepared.test)), 4),
        **(_cloze(recipe, prepared, model) if recipe.objective == "masked" else _perplexities(recipe, prepared, model)),
        "curve": curve,
    }


def machine(device: torch.device | str, threads: int) -> str:
    """What a run was made on."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU with {torch.backends.cpu.get_cpu_capability()}, threads: {threads}"


def _cloze(recipe: Recipe, prepared: Prepared, model: nn.Module) -> dict[str, Any]:
    asked, vocab_size = questions(prepared.test, length=recipe.length), prepared.tokenizer.get_vocab_size()
    given = {kind: answer(Counts(prepared.train, vocab_size, kind), asked) for kind in KINDS}
    given["model"] = answer(Masked(model), asked)  # type: ignore[arg-type]
    margin = [round(x, 4) for x in difference(given["model"], given["two-sided"])]
    measured = {name: _rounded(answers) for name, answers in given.items()}
    return {"cloze": {"questions": len(asked.ids), "texts": len(asked.text.unique()), **measured,
                      "model minus two-sided": margin}}  # fmt: skip


def _rounded(answers: Answers) -> dict[str, list[float]]:
    return {name: [round(x, 4) for x in values] for name, values in score(answers).items()}


def _perplexities(recipe: Recipe, prepared: Prepared, model: nn.Module) -> dict[str, Any]:
    train, test = (rows(recipe, part) for part in (prepared.train, prepared.test))
    counts = {order: NGram(order, prepared.tokenizer.get_vocab_size()).fit(train) for order in (1, 2, 3, 5)}
    found = {f"{order}-gram": perplexity(ngram, test) for order, ngram in counts.items()}
    found["model"] = perplexity(model, test.to(next(model.parameters()).device))  # type: ignore[arg-type]
    return {"test_perplexity": {name: round(value, 2) for name, value in found.items()}}
