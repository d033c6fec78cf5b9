"""Does pre-training help, and by how much? Fine-tuning from pre-trained and from random weights, beside simpler means.

python tools/finetuning.py                                  writes llmbook/studies/finetuning.json
python tools/finetuning.py --en runs/en/model --zh runs/zh/model --log runs/finetuning.jsonl --workers 2

Five arms learn from the same 30, 100, 300 and 1,000 labelled sentences and make their choices on the same 200:

    pre-trained   the encoder of a masked language model, and a new head, trained together
    scratch       the same encoder from random weights: the same grid, and besides a learning rate three times as high,
                  and schedules three times as long
    frozen        the pre-trained encoder unchanged, and logistic regression
    minilm        MiniLM unchanged, and logistic regression (it knows English alone)
    counts        naive Bayes (llmbook.counting)

Each finished run is a line of the log, and what is in it is not run again. Settings are chosen with other seeds than
those that are reported. Another seed is another choice of labelled sentences, other new weights, another order.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from tokenizers import Tokenizer

from llmbook import probe, zoo
from llmbook.cards import machine
from llmbook.checkpoints import write_text
from llmbook.counting import count
from llmbook.finetune import Settings, finetune, tune
from llmbook.mlm import MaskedLM
from llmbook.probe import Frozen
from llmbook.tasks import TASKS, Result, Task, evaluate, task

OUT = Path(__file__).parents[1] / "llmbook" / "studies" / "finetuning.json"
ARMS = ("pre-trained", "scratch", "frozen", "minilm", "counts")
TRAINED = ARMS[:2]
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The 97.5 % quantile of Student's t with 1, 2, … degrees of freedom."""

Cell = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is run. ``steps`` and ``tuning_seeds`` are by the number of labelled sentences."""

    tasks: tuple[str, ...] = tuple(TASKS)
    arms: tuple[str, ...] = ARMS
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    tuning_seeds: dict[int, tuple[int, ...]] = field(
        default_factory=lambda: {30: (100, 101), 100: (100, 101), 300: (100,), 1000: (100,)}
    )
    steps: dict[int, int] = field(default_factory=lambda: {30: 80, 100: 120, 300: 240, 1000: 450})
    lrs: dict[str, tuple[float, ...]] = field(
        default_factory=lambda: {"pre-trained": (2e-4, 6e-4, 2e-3), "scratch": (2e-4, 6e-4, 2e-3, 6e-3)}
    )
    longer: int = 3

    def grid(self, arm: str, n: int) -> list[Settings]:
        """The settings that an arm may choose from."""
        factors = (1, self.longer) if arm == "scratch" else (1,)
        return [Settings(lr=lr, steps=self.steps[n] * factor) for factor in factors for lr in self.lrs[arm]]

    def units(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """What one process does at a time, the longest first: task, arm, numbers of labelled sentences."""
        trained = [(name, arm, (n,)) for name in self.tasks for arm in self.arms for n in self.steps if arm in TRAINED]
        rest = [(name, arm, tuple(self.steps)) for name in self.tasks for arm in self.arms
                if arm not in TRAINED and not (arm == "minilm" and name.startswith("zh"))]  # fmt: skip
        return sorted(trained, key=lambda unit: self.updates(*unit), reverse=True) + rest

    def updates(self, name: str, arm: str, sizes: tuple[int, ...]) -> int:
        """Updates that a unit needs, at most."""
        grids = {n: [settings.steps for settings in self.grid(arm, n)] for n in sizes}
        return sum(sum(steps) * len(self.tuning_seeds[n]) + max(steps) * len(self.seeds) for n, steps in grids.items())


class Log:
    """Finished runs, a JSON object a line; several processes may add to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.cells = {self.key(cell): cell for cell in self.read()}

    def read(self) -> list[Cell]:
        """The runs in the file; a line that a killed process left unfinished counts for nothing."""
        found = []
        for line in self.path.read_text("utf8").splitlines() if self.path.exists() else []:
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return found

    @staticmethod
    def key(cell: Cell) -> str:
        """What a run is a function of."""
        return json.dumps([cell[k] for k in ("task", "arm", "n", "seed", "settings", "purpose", "start")])

    def get(self, cell: Cell, compute: Callable[[], Cell]) -> Cell:
        """The run that is described, computed and added unless it is there."""
        key = self.key(cell)
        if key not in self.cells:
            began = time.process_time()
            self.cells[key] = {**cell, **compute(), "seconds": round(time.process_time() - began, 1)}
            line = f"\n{json.dumps(self.cells[key])}\n"  # the first break ends what a killed process may have left
            with open(self.path, "ab", buffering=0) as file:
                file.write(line.encode())
        return self.cells[key]


def digest(model: MaskedLM, tokenizer: Tokenizer, *, weights: bool) -> str:
    """What a run started from: the sizes, the tokenizer and, if they matter, the weights."""
    found = hashlib.sha256((repr(model.config) + tokenizer.to_str()).encode())
    for name, x in model.encoder.state_dict().items() if weights else ():
        found.update(name.encode() + x.numpy().tobytes())
    return found.hexdigest()[:16]


def load(name: str) -> tuple[MaskedLM, Tokenizer]:
    """A masked language model and its tokenizer.

    Raises:
        ValueError: there is none of that name, or it is none.
    """
    model, tokenizer = zoo.load(name)
    if not isinstance(model, MaskedLM) or tokenizer is None:
        raise ValueError(f"{name}: expected a MaskedLM with a tokenizer, got {type(model).__name__}")
    return model, tokenizer


def work(plan: Plan, unit: tuple[str, str, tuple[int, ...]], models: dict[str, str], path: Path) -> list[Cell]:
    """Run what is missing of a unit, on one thread; returns the cells that are reported."""
    torch.set_num_threads(1)
    name, arm, sizes = unit
    made, log = task(name), Log(path)
    start, learn = _learner(arm, made, models)
    return [cell for n in sizes for cell in _reported(plan, log, made, arm, n, start, learn)]


Learn = Callable[[int, int, Settings | None], Result]


def _learner(arm: str, made: Task, models: dict[str, str]) -> tuple[str, Learn]:
    """What an arm starts from, and how it learns from ``(n, seed, settings)``."""
    if arm == "counts":
        return "", lambda n, seed, _: count(made, n, seed=seed)
    if arm == "minilm":
        other = Frozen(*probe.minilm(), made)
        return probe.MINILM[2][:16], lambda n, seed, _: other.learn(n, seed=seed)
    model, tokenizer = load(models[made.language])
    start = digest(model, tokenizer, weights=arm != "scratch")
    if arm == "frozen":
        ours = Frozen(model.encoder, tokenizer, made)
        return start, lambda n, seed, _: ours.learn(n, seed=seed)
    origin = model.encoder if arm == "pre-trained" else model.config
    return start, lambda n, seed, settings: finetune(origin, tokenizer, made, n, seed=seed, settings=settings)


def _reported(plan: Plan, log: Log, made: Task, arm: str, n: int, start: str, learn: Learn) -> list[Cell]:
    """Choose the settings where there are some to choose from, then run every seed with them."""

    def run(seed: int, settings: Settings | None, purpose: str) -> Cell:
        cell = {"task": made.name, "arm": arm, "n": n, "seed": seed, "purpose": purpose, "start": start,
                "settings": asdict(settings) if settings else None}  # fmt: skip

        def compute() -> Cell:
            result = learn(n, seed, settings)
            scores = {"dev": round(result.dev, 5), "chosen": result.chosen}
            return scores if purpose == "tuning" else {**scores, "test": round(evaluate(made, result.predict), 5)}

        return log.get(cell, compute)

    settings = None
    if arm in TRAINED:
        settings = tune(lambda s, seed: run(seed, s, "tuning")["dev"], plan.grid(arm, n), plan.tuning_seeds[n])
    return [run(seed, settings, "report") for seed in plan.seeds]


def interval(scores: list[float]) -> dict[str, Any]:
    """The mean over seeds, and its 95 % interval by Student's t.

    Raises:
        ValueError: fewer than 2 or more than 10 scores.
    """
    if not 2 <= len(scores) <= len(T95) + 1:
        raise ValueError(f"scores: expected 2 to {len(T95) + 1}, got {len(scores)}")
    middle, half = mean(scores), T95[len(scores) - 2] * stdev(scores) / len(scores) ** 0.5
    return {"scores": scores, "mean": round(middle, 4), "low": round(middle - half, 4), "high": round(middle + half, 4)}


def summary(plan: Plan, reported: Iterable[Cell], log: Log) -> dict[str, Any]:
    """Every score, and the means and intervals of the arms and of the difference that pre-training makes."""
    found: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in sorted(reported, key=lambda cell: cell["seed"]):
        found.setdefault((cell["task"], cell["arm"], cell["n"]), []).append(cell)
    tuning = [cell for cells in found.values() for cell in _tuning(plan, cells[0], log)]
    return {
        "plan": asdict(plan),
        "machine": machine("cpu", 1),
        "torch": torch.__version__,
        "seconds": round(sum(cell["seconds"] for cells in [*found.values(), tuning] for cell in cells)),
        "tasks": {name: _of_task(plan, name, found) for name in plan.tasks},
        "tuning": [{k: cell[k] for k in ("task", "arm", "n", "seed", "settings", "dev")} for cell in tuning],
    }


def _tuning(plan: Plan, reported: Cell, log: Log) -> list[Cell]:
    """The runs that the settings of a reported one were chosen by."""
    if reported["settings"] is None:
        return []
    grid = plan.grid(reported["arm"], reported["n"])
    runs = [{**reported, "purpose": "tuning", "settings": asdict(settings), "seed": seed}
            for settings in grid for seed in plan.tuning_seeds[reported["n"]]]  # fmt: skip
    return [log.cells[log.key(cell)] for cell in runs]


def _of_task(plan: Plan, name: str, found: dict[tuple[str, str, int], list[Cell]]) -> dict[str, Any]:
    made = task(name)
    arms: dict[str, dict[str, Any]] = {}
    for (which, arm, n), cells in found.items():
        if which == name:
            arms.setdefault(arm, {})[str(n)] = {
                **interval([cell["test"] for cell in cells]), "dev": [cell["dev"] for cell in cells],
                "settings": cells[0]["settings"], "chosen": [cell["chosen"] for cell in cells],
            }  # fmt: skip
    differences = {}
    if set(TRAINED) <= set(arms):
        for size, ours in sorted(arms["pre-trained"].items(), key=lambda item: int(item[0])):
            pairs = zip(ours["scores"], arms["scratch"][size]["scores"], strict=True)
            differences[size] = interval([round(a - b, 5) for a, b in pairs])
    return {
        "measure": made.measure, "labels": list(made.labels), "join": made.join,
        "sentences": {part: len(examples) for part, examples in made.splits.items()},
        "arms": {arm: dict(sorted(arms[arm].items(), key=lambda item: int(item[0]))) for arm in ARMS if arm in arms},
        "pre-trained minus scratch": differences,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, then write the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--en", default="mlm-en", help="the English masked language model, by name or folder")
    parser.add_argument("--zh", default="mlm-zh", help="the Chinese one")
    parser.add_argument("--log", type=Path, default=Path("runs/finetuning.jsonl"), help="finished runs (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="the summary (%(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes, one thread each (%(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="these alone, and no summary")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="these alone, and no summary")
    options = parser.parse_args(arguments)
    plan = Plan(tasks=tuple(options.tasks), arms=tuple(options.arms))
    reported = run(plan, {"en": options.en, "zh": options.zh}, options.log, options.workers)
    if plan == Plan():
        found = summary(plan, reported, Log(options.log))
        write_text(options.out, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def run(plan: Plan, models: dict[str, str], path: Path, workers: int) -> list[Cell]:
    """Run every unit of a plan that is not in the log; returns the cells that are reported."""
    units, reported = plan.units(), []
    if not {"counts", "minilm"}.issuperset(plan.arms):
        for language in {name[:2] for name in plan.tasks}:
            load(models[language])  # a wrong name is refused before anything is run
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(work, plan, unit, models, path): unit for unit in units}
        try:
            for i, done in enumerate(as_completed(waiting), start=1):
                reported += done.result()
                print(f"{i} of {len(units)}:", *waiting[done], file=sys.stderr, flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return reported


if __name__ == "__main__":
    main()
