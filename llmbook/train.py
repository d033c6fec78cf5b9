"""Training: one loop for every model, as a generator of step records.

The loop is given a model, its data as a function of a number, and a loss; it knows nothing else of them::

    for record in train(model, Batches(ids, 32), loss, steps=1000, checkpoint="runs/one", every=100):
        print(record.step, record.loss)

Whatever is random in micro-batch ``i`` (its rows, its masks, dropout) is a function of ``(seed, i)``, for the loop sets
the random numbers anew for each. The state of a run is thus its weights, the moments of its optimiser and one number,
and a run that was killed goes on exactly as if it had not been; on CUDA bit for bit only under
``torch.use_deterministic_algorithms(True)``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from tqdm.auto import tqdm

from llmbook import checkpoints
from llmbook.batches import Batch, Batches, map_tensors, seed_all, tensors_of, undisturbed
from llmbook.checkpoints import CheckpointError, kinds, require_same
from llmbook.modes import in_mode
from llmbook.processes import gather, hold, named, place, scatter, share, sums, wait, whole

__all__ = ["Batches", "Record", "Settings", "learning_rate", "train"]

Data = Callable[[int], Batch]
Loss = Callable[[Any, Batch], tuple[Tensor, int | Tensor]]


class Record(NamedTuple):
    """What one step did; the same in every process, but for the speed.

    Attributes:
        step: its number, from 1.
        loss: mean over all targets of the step, before the update; 0 where there was no target.
        lr: learning rate.
        grad_norm: Euclidean norm of the gradient of that mean, before it is clipped.
        tokens_per_second: entries in the first tensor of every micro-batch, over the wall time of the step.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float
    tokens_per_second: float


@dataclass(frozen=True)
class Settings:
    """What the numbers of a run depend on, besides model, data and loss; see :func:`train`."""

    steps: int
    lr: float
    min_lr: float
    warmup: int
    weight_decay: float
    betas: list[float]
    clip: float | None
    accumulate: int
    seed: int
    bf16: bool
    compile: bool
    parallel: str
    processes: int

    def __post_init__(self) -> None:
        rules = {
            "steps": (self.steps >= 1, "at least 1"),
            "lr": (0 < self.lr < math.inf, "a positive number"),
            "min_lr": (0 <= self.min_lr <= self.lr, f"a number between 0 and lr={self.lr}"),
            "warmup": (0 <= self.warmup <= self.steps, f"a number between 0 and steps={self.steps}"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "a number that is not negative"),
            "betas": (len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)"),
            "clip": (self.clip is None or self.clip > 0, "a positive number or None"),
            "accumulate": (self.accumulate >= 1, "at least 1"),
            "seed": (self.seed >= 0, "a number that is not negative"),
            "parallel": (self.parallel in ("ddp", "fsdp"), "'ddp' or 'fsdp'"),
        }
        for name, (kept, expected) in rules.items():
            if not kept:
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")


def learning_rate(step: int, *, steps: int, lr: float, warmup: int = 0, min_lr: float = 0.0) -> float:
    """Linear warm-up, then half a cosine (Loshchilov & Hutter, "SGDR", 2017, equation 5)::

        η_s = lr · s / W                                                       for s ≤ W
        η_s = min_lr + ½ (lr − min_lr) (1 + cos(π (s − 1 − W) / (S − W)))      for s > W

    for s = 1 … S = ``steps`` and W = ``warmup``. Step S + 1 would have ``min_lr``: no step of the S is spent on it.

    Raises:
        ValueError: ``step`` is below 1.
    """
    if step < 1:
        raise ValueError(f"step: expected at least 1, got {step}")
    if step <= warmup:
        return lr * step / warmup
    done = min((step - 1 - warmup) / max(steps - warmup, 1), 1.0)
    return min_lr + 0.5 * (lr - min_lr) * (1 + math.cos(math.pi * done))


def train(
    model: nn.Module, batches: Data, loss: Loss, *, steps: int, lr: float = 1e-3, min_lr: float = 0.0, warmup: int = 0,
    weight_decay: float = 0.01, betas: tuple[float, float] = (0.9, 0.999), clip: float | None = 1.0,
    accumulate: int = 1, seed: int = 0, bf16: bool = False, compile: bool = False, parallel: str = "ddp",
    device: torch.device | str | None = None, checkpoint: str | Path | None = None, every: int | None = None,
    keep: int = 2, progress: bool = False,
) -> Generator[Record, None, None]:  # fmt: skip
    """Train ``model`` in place by AdamW (Loshchilov & Hutter, 2019): one step each time a record is asked for.

    A step sums the losses, and so the gradients, over its micro-batches and all processes, and divides once by the
    number of all targets. (A mean of the micro-batches' means is another number wherever they differ in their number
    of targets.) A step without a target changes nothing. The model is in training mode within a step and in the mode
    that the caller left it in between steps.

    Args:
        model: any module with a loss.
        batches: ``batches(i)``, i = 0, 1, 2, …, is a tensor, or a tuple, list or dict of tensors, with the batch as
            first axis; always the same for the same i, though it may draw from the global random numbers. Every
            process asks for the same ones, and takes every ``processes``-th row.
        loss: ``loss(model, batch)`` gives ``(total, count)``, the *sum* of the losses and the number of targets. The
            model that it is given can be called, and nothing else: ``compile`` and several processes wrap it.
        steps: number of updates.
        lr, min_lr, warmup: see :func:`learning_rate`.
        weight_decay: for parameters of two axes or more, that is, not for biases and norms.
        betas: decay of AdamW's two moments.
        clip: the gradient is scaled down to this norm (Pascanu et al., 2013, algorithm 1); None for no limit.
        accumulate: number of micro-batches in a step.
        seed: what the random numbers depend on, besides i.
        bf16: compute the loss under ``torch.autocast`` to bfloat16.
        compile: compute the loss with ``torch.compile(model)``.
        parallel: with several processes, ``"ddp"`` or ``"fsdp"``, see :func:`llmbook.processes.share`; after
            ``"fsdp"`` the model stays in parts, and its last checkpoint has it whole.
        device: where to train; where the first parameter is unless given.
        checkpoint: the folder of this run. If there is a checkpoint in it, the run goes on after the newest.
        every: write a checkpoint after every so many steps; the last step always writes one.
        keep: how many checkpoints are kept.
        progress: show a bar, in a terminal or a notebook.

    Returns:
        A generator of :class:`Record`, one for each step after the checkpoint. What a step writes is on the disk before
        its record is handed out.

    Raises:
        TypeError: ``batches`` cannot be called, or the loss does not give ``(total, count)``.
        ValueError: an argument is out of range, or a batch has fewer rows than there are processes.
        CheckpointError: the checkpoint is of another model or of other settings, or it is none, or all are damaged.
        FloatingPointError: a loss or a gradient is not finite; the weights are as they were before that step.
    """
    settings = Settings(steps, lr, min_lr, warmup, weight_decay, list(betas), clip, accumulate, seed, bf16, compile,
                        parallel, processes=place()[1])  # fmt: skip
    if not callable(batches):
        raise TypeError(f"batches: expected a function of a number, such as Batches, got {type(batches).__name__}")
    if every is not None and (every < 1 or checkpoint is None):
        raise ValueError(f"every: expected at least 1 and a folder to write to, got {every=}, {checkpoint=}")
    if keep < 1:
        raise ValueError(f"keep: expected at least 1, got {keep}")
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("model: expected a parameter that requires a gradient, found none")
    run = _Run(model, loss, settings, device)
    return run.records(batches, None if checkpoint is None else Path(checkpoint), every, keep, progress)


class _Run:
    """A model, its optimiser and its settings: what a checkpoint holds."""

    def __init__(self, model: nn.Module, loss: Loss, settings: Settings, device: torch.device | str | None) -> None:
        self.device = torch.device(device) if device else next(model.parameters()).device
        self.model, self.loss, self.settings, self.newest = model.to(self.device), loss, settings, "there is none"
        self.shared = share(model, settings.parallel)
        self.call = torch.compile(self.shared) if settings.compile else self.shared
        self.params = [p for p in model.parameters() if p.requires_grad]
        groups = [{"params": [p for p in self.params if p.ndim >= 2], "weight_decay": settings.weight_decay},
                  {"params": [p for p in self.params if p.ndim < 2], "weight_decay": 0.0}]  # fmt: skip
        beta1, beta2 = settings.betas
        self.optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(beta1, beta2), fused=True)

    def records(
        self, batches: Data, folder: Path | None, every: int | None, keep: int, progress: bool
    ) -> Generator[Record, None, None]:
        steps = self.settings.steps
        start = 0 if folder is None else self.resume(folder)
        with tqdm(total=steps, initial=start, disable=not progress or place()[0] > 0, unit="step") as bar:
            for step in range(start + 1, steps + 1):
                record = self.step(step, batches)
                if folder is not None and (step == steps or (every and step % every == 0)):
                    self.save(folder, step, keep)
                bar.set_postfix(loss=f"{record.loss:.4f}", lr=f"{record.lr:.2e}", refresh=False)
                bar.update()
                yield record

    def step(self, step: int, batches: Data) -> Record:
        """The gradients of all micro-batches, then one update."""
        began, s = time.perf_counter(), self.settings
        self.optimizer.zero_grad()  # what the caller may have left there
        micro = range((step - 1) * s.accumulate, step * s.accumulate)
        with in_mode(self.model, training=True), undisturbed(self.device), torch.enable_grad():
            parts = [self.backward(i, batches, last=i == micro[-1]) for i in micro]
        totals, counts, tokens = zip(*parts, strict=True)
        total, count = sums([sum(map(float, totals)), sum(map(float, counts))], self.device)
        lr = learning_rate(step, steps=s.steps, lr=s.lr, warmup=s.warmup, min_lr=s.min_lr)
        try:
            self.require_finite(step, "loss", total)
            norm = self.update(step, count, lr) if count else 0.0
        finally:
            self.optimizer.zero_grad()
        return Record(step, total / count if count else 0.0, lr, norm, sum(tokens) / (time.perf_counter() - began))

    def backward(self, i: int, batches: Data, last: bool) -> tuple[Tensor, int | Tensor, int]:
        """Add the gradient of micro-batch i, and return its loss, its number of targets and of tokens."""
        rank, world = place()
        seed_all(self.device, self.settings.seed, i)  # all processes see the same batch ...
        batch = batches(i)
        tensors = tensors_of(batch)
        if world > 1 and min(len(x) for x in tensors) < world:
            raise ValueError(f"batches: expected at least {world} rows for {world} processes, "
                             f"got shapes {[tuple(x.shape) for x in tensors]}")  # fmt: skip
        rows = map_tensors(lambda x: x[rank::world].to(self.device), batch)  # (B, ...) -> (B / world, ...)
        seed_all(self.device, self.settings.seed, i, rank + 1)  # ... and have their own dropout
        with hold(self.shared, last):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
                total, count = _checked(self.loss(self.call, rows))
            total.backward()
        return total.detach(), count, tensors[0].numel()

    def update(self, step: int, count: float, lr: float) -> float:
        """One step of AdamW on the mean over all targets; returns the norm of its gradient."""
        for p in self.params:
            if p.grad is not None:
                p.grad.mul_(self.settings.processes / count)  # processes share a mean of their sums
        norm = whole(clip_grad_norm_(self.params, self.settings.clip or math.inf)).item()
        self.require_finite(step, "gradient norm", norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        return norm

    def require_finite(self, step: int, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(f"step {step}: expected a finite {name}, got {value}; the weights are as before "
                                     f"this step, and the last checkpoint: {self.newest}")  # fmt: skip

    def save(self, folder: Path, step: int, keep: int) -> None:
        """Write a checkpoint; all processes gather the tensors, the first one writes."""
        tensors = gather(self.model, self.optimizer)
        state = {"step": step, "next_batch": step * self.settings.accumulate, "settings": asdict(self.settings),
                 "torch": torch.__version__}  # fmt: skip
        if place()[0] == 0:
            checkpoints.save(folder, step, tensors, state, keep=keep)
        wait()
        self.newest = str(folder / f"step-{step:08}")

    def resume(self, folder: Path) -> int:
        """Take over the newest checkpoint of a folder; returns its step, 0 if there is none."""
        path = checkpoints.latest(folder)
        tensors, state = ({}, {"step": 0}) if path is None else checkpoints.load(path)
        step, world = state.get("step", -1), self.settings.processes
        if sums([step], self.device) != [step * world]:
            raise CheckpointError(f"{folder}: expected a folder that all {world} processes see, found differences")
        if path is not None:
            require_same(path, "other settings", asdict(self.settings), state.get("settings", {}))
            require_same(path, "another model", kinds(named(self.model)), kinds(tensors, "model."))
            scatter(tensors, self.model, self.optimizer)
            self.newest = str(path)
        return step


def _checked(result: Any) -> tuple[Tensor, int | Tensor]:
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], Tensor) and result[0].ndim == 0:
        return result
    raise TypeError(f"loss: expected (total, count), a tensor without axes and a number, got {type(result).__name__}")
