"""Pre-training by recipe: a file of settings in, a folder with a trained model out.

    python -m llmbook train mlm-en          # the English masked language model, as it comes with the book

A recipe names the text, the tokenizer, the sizes of the model and the settings of :func:`llmbook.train.train`; the
model is a function of it. A run that was killed goes on where its last checkpoint is.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import shutil
import time
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from llmbook import checkpoints, lm, mlm, text
from llmbook.batches import Batches, map_tensors, tensors_of
from llmbook.checks import check_sizes
from llmbook.config import EncoderConfig
from llmbook.decoder import CausalLM
from llmbook.huggingface import read_json
from llmbook.mlm import MaskedLM, mask_tokens
from llmbook.modes import in_mode
from llmbook.processes import place, wait
from llmbook.text import CLS, MASK, PAD, SEP, UNK, Packed, Text
from llmbook.train import train

RECIPES = Path(__file__).parent / "recipes"

CORPORA: dict[str, Callable[[], list[Text]]] = {
    "en": lambda: text.texts("en"), "zh": lambda: text.texts("zh"), "bible": text.chapters, "tang": text.verse,
}  # fmt: skip
LOSSES: dict[str, Any] = {"masked": mlm.training_loss, "causal": lm.training_loss}
TOKENIZERS = {"bpe": text.train_bpe, "characters": text.train_characters}


@dataclass(frozen=True)
class Recipe:
    """What a pre-trained model is a function of.

    Attributes:
        objective: ``"masked"`` (:class:`llmbook.mlm.MaskedLM`) or ``"causal"`` (:class:`llmbook.decoder.CausalLM`).
        corpus: ``"en"`` or ``"zh"`` (:func:`llmbook.text.texts`), ``"bible"`` or ``"tang"``.
        tokenizer: ``"bpe"`` or ``"characters"``.
        vocab_size: of the tokenizer, at most.
        length: T, the tokens in a row.
        batch_size: rows in a batch.
        every: steps between two points of the curve, and between two checkpoints.
        model: fields of :class:`llmbook.config.EncoderConfig`, without ``vocab_size`` and ``max_len``.
        training: arguments of :func:`llmbook.train.train` that the numbers of a run depend on.
        p: probability with which a token is masked.
        threads: of the CPU; a model is a function of their number, too.

    Raises:
        TypeError: ``model`` or ``training`` has a field that is not known, or ``model`` lacks one.
        ValueError: a choice is unknown, or a size is not a positive integer.
    """

    objective: str
    corpus: str
    tokenizer: str
    vocab_size: int
    length: int
    batch_size: int
    every: int
    model: dict[str, Any]
    training: dict[str, Any]
    p: float = 0.15
    threads: int = 1

    def __post_init__(self) -> None:
        choices = {"objective": ("masked", "causal"), "corpus": tuple(CORPORA), "tokenizer": tuple(TOKENIZERS)}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        check_sizes(**{name: getattr(self, name) for name in ("length", "batch_size", "every", "threads")})
        EncoderConfig(vocab_size=self.vocab_size, max_len=self.length, **self.model)
        ours = dict.fromkeys(("model", "batches", "loss", "device", "checkpoint", "every", "keep", "progress"))
        inspect.signature(train).bind_partial(**ours, **self.training)

    @property
    def seed(self) -> int:
        """What all that is random in a run depends on."""
        return int(self.training.get("seed", 0))


def recipe(name_or_path: str | Path) -> Recipe:
    """A recipe of the book by name, or any by the path of its file (TOML).

    Raises:
        ValueError: there is none, or it is not one.
    """
    path = RECIPES / f"{name_or_path}.toml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise ValueError(f"recipe: expected one of {known}, or a file, got {str(name_or_path)!r}")
    try:
        found = Recipe(**tomllib.loads(path.read_text("utf8")))
        if "steps" not in found.training:
            raise ValueError("training: expected steps in it, found none")
        return found
    except (tomllib.TOMLDecodeError, TypeError, ValueError) as problem:
        names = ", ".join(field.name for field in fields(Recipe))
        raise ValueError(f"{path}: expected the settings {names}; {problem}") from None


class Prepared(NamedTuple):
    """A corpus in the numbers of a tokenizer that was trained on its training part: the ids of each text, by part."""

    tokenizer: Tokenizer
    train: list[list[int]]
    dev: list[list[int]]
    test: list[list[int]]


def prepare(recipe: Recipe) -> Prepared:
    """Split the corpus of a recipe, train the tokenizer on the training part, and encode all parts.

    Raises:
        FetchError: the text cannot be had.
    """
    parts = text.split(CORPORA[recipe.corpus]())
    tokenizer = TOKENIZERS[recipe.tokenizer]((t.text for t in parts["train"]), recipe.vocab_size)
    return Prepared(tokenizer, *([text.encode(tokenizer, t.text) for t in part] for part in parts.values()))


def rows(recipe: Recipe, sequences: list[list[int]]) -> Any:
    """Texts in rows of ``recipe.length`` tokens: packed for a masked model, one stream for a causal one."""
    return (text.pack if recipe.objective == "masked" else text.stream)(sequences, recipe.length)


def build(recipe: Recipe, vocab_size: int) -> nn.Module:
    """The untrained model, the same for the same seed."""
    config = EncoderConfig(vocab_size=vocab_size, max_len=recipe.length, **recipe.model)
    with torch.random.fork_rng([], device_type="cuda"):
        torch.default_generator.manual_seed(recipe.seed)
        return (MaskedLM if recipe.objective == "masked" else CausalLM)(config)


def masked(packed: Packed, vocab_size: int, p: float, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
    """A batch for :func:`llmbook.mlm.training_loss`: ``(inputs, positions, targets, mask)``."""
    special = (PAD, CLS, SEP, UNK)
    drawn = mask_tokens(packed.ids, mask_id=MASK, vocab_size=vocab_size, special_ids=special, p=p, generator=generator)
    return *drawn, Packed.mask(packed.segments)


def pretrain(
    recipe: Recipe, prepared: Prepared, folder: str | Path, *, device: torch.device | str = "cpu",
    progress: bool = False,
) -> nn.Module:  # fmt: skip
    """Train the model of a recipe, or go on with it.

    Args:
        recipe: what to train.
        prepared: :func:`prepare` of it.
        folder: of the run. ``curve.jsonl`` has a line every ``recipe.every`` steps: the step, the mean loss of the
            steps since the line before, the loss on the development part, seconds so far; ``checkpoints`` has the rest.
        device: where to train.
        progress: show a bar.

    Returns:
        The model after the last step.

    Raises:
        CheckpointError: the folder has a run of another recipe.
        ValueError: an argument of :func:`llmbook.train.train` is out of range, or the development part is too small.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder / "recipe.json", recipe)
    torch.set_num_threads(recipe.threads)
    vocab_size = prepared.tokenizer.get_vocab_size()
    model, dev = build(recipe, vocab_size).to(device), rows(recipe, prepared.dev)
    draw = Batches(rows(recipe, prepared.train), recipe.batch_size, recipe.seed)
    curve = Curve(folder / "curve.jsonl")
    _drop_unmeasured(folder / "checkpoints", curve)

    def batches(i: int) -> Any:
        return masked(draw(i), vocab_size, recipe.p) if recipe.objective == "masked" else draw(i)

    records = train(model, batches, LOSSES[recipe.objective], **recipe.training, device=device, progress=progress,
                    checkpoint=folder / "checkpoints", every=recipe.every)  # fmt: skip
    losses: list[float] = []
    for record in records:
        losses.append(record.loss)
        if record.step % recipe.every == 0 or record.step == recipe.training["steps"]:
            dev_loss = held_out_loss(recipe, model, dev)
            if place()[0] == 0:
                curve.add(record.step, sum(losses) / len(losses), dev_loss)
            losses.clear()
    return model


def _claim(path: Path, recipe: Recipe) -> None:
    """Write down whose folder this is, or refuse it if it is another recipe's."""
    settings = json.loads(json.dumps(asdict(recipe)))
    if path.exists():
        checkpoints.require_same(path, "another recipe", settings, read_json(path))
    elif place()[0] == 0:
        checkpoints.write_text(path, json.dumps(settings, indent=2) + "\n")


def _drop_unmeasured(folder: Path, curve: Curve) -> None:
    """Remove a checkpoint that a run was killed after before it measured its point: the one before it has its own."""
    newest = checkpoints.latest(folder) if place()[0] == 0 else None
    measured = curve.points[-1]["step"] if curve.points else 0
    if newest is not None and int(newest.name.removeprefix("step-")) > measured:
        hidden = newest.with_name(f".{newest.name}.unmeasured")  # half of one is never seen
        os.rename(newest, hidden)
        shutil.rmtree(hidden)
    wait()


@torch.no_grad()
def held_out_loss(recipe: Recipe, model: nn.Module, held_out: Any) -> float:
    """The mean loss per target on :func:`rows`, in nats; for a masked language model always with the same masks.

    Raises:
        ValueError: there is no target.
    """
    generator, total, count = torch.Generator().manual_seed(0), 0.0, 0
    device, batches = next(model.parameters()).device, math.ceil(len(tensors_of(held_out)[0]) / 64)
    with in_mode(model, training=False):
        for i in range(batches):
            batch = map_tensors(lambda x, i=i: x[64 * i : 64 * (i + 1)], held_out)  # type: ignore[misc]
            if recipe.objective == "masked":
                batch = masked(batch, model.config.vocab_size, recipe.p, generator)  # type: ignore[union-attr, arg-type]
            part, n = LOSSES[recipe.objective](model, map_tensors(lambda x: x.to(device), batch))
            total, count = total + float(part), count + int(n)
    if not count:
        raise ValueError("held_out: expected a token to predict, found none; the corpus is too small for its parts")
    return total / count


class Curve:
    """The curve of a run, one JSON object a line; a point that is measured again replaces the one it was."""

    def __init__(self, path: Path) -> None:
        self.path, self.points = path, read_curve(path)
        self.began, self.before = time.monotonic(), self.points[-1]["seconds"] if self.points else 0.0

    def add(self, step: int, loss: float, dev_loss: float) -> None:
        """Write a point, and forget those at its step and after."""
        kept = [point for point in self.points if point["step"] < step]
        seconds = round(self.before + time.monotonic() - self.began, 1)
        point = {"step": step, "loss": round(loss, 4), "dev_loss": round(dev_loss, 4), "seconds": seconds}
        self.points = [*kept, point]
        checkpoints.write_text(self.path, "".join(json.dumps(point) + "\n" for point in self.points))


def read_curve(path: str | Path) -> list[dict[str, float]]:
    """The points of a curve, none where there is no file."""
    path = Path(path)
    return [json.loads(line) for line in path.read_text("utf8").splitlines()] if path.exists() else []
