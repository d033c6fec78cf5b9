"""How many tokens to hide: the model of chapter 3.2, trained with different rates of masking.

python tools/masking_rates.py   writes llmbook/studies/masking_rates.json, which chapter 3.2 reads; ten minutes

The language, the model, the loop and the measure are the chapter's own: its cells are run here. Each rate is trained
from five seeds, for 100 and for 400 steps of 64 sentences; so is [MASK] alone in the place of 80/10/10, at 15 %. What
is measured is how far the answers to single gaps in true sentences are from the best ones. What the file has is not
run again.
"""

import contextlib
import io
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import torch

ROOT = Path(__file__).parents[1]
CHAPTER, OUT = ROOT / "notebooks" / "03_2_mlm_pretraining.ipynb", ROOT / "llmbook" / "studies" / "masking_rates.json"
CELLS = ("language-tables", "language-list", "tokens-code", "draw-code", "masking-quota-code", "objective-one", "best",
         "conditions", "loop-batch", "loop", "only-mask", "distance-code")  # fmt: skip
RATES, STEPS, SEEDS = (0.02, 0.05, 0.15, 0.3, 0.5, 0.7, 0.9, 1.0), (100, 400), range(5)


def main() -> None:
    """Train those that are missing, and write how far each of them got."""
    torch.set_num_threads(1)
    runs: list[dict[str, Any]] = json.loads(OUT.read_text("utf8"))["runs"] if OUT.exists() else []
    done = {(run["p"], run["mix"], run["steps"], run["seed"]) for run in runs}
    kinds = [*((p, "80/10/10") for p in RATES), (0.15, "[MASK]")]
    chapter = names()
    for seed, (p, mix), steps in itertools.product(SEEDS, kinds, STEPS):
        if (p, mix, steps, seed) not in done:
            found = round(divergence(chapter, p, mix, steps, seed), 4)
            runs.append({"p": p, "mix": mix, "steps": steps, "seed": seed, "divergence": found})
            lines = ",\n".join(map(json.dumps, runs))
            OUT.write_text(f'{{"runs": [\n{lines}\n]}}\n', "utf8")
            print(runs[-1], file=sys.stderr, flush=True)


def names() -> dict[str, Any]:
    """What the chapter's cells define."""
    cells = {cell.id: cell.source for cell in nbformat.read(CHAPTER, as_version=4).cells}
    found: dict[str, Any] = {}
    for cell in CELLS:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(cells[cell], found)
    return found


def divergence(chapter: dict[str, Any], p: float, mix: str, steps: int, seed: int) -> float:
    """Train one model; how far it is from the truth, in nats."""
    torch.manual_seed(seed)
    model = chapter["llmbook"].MaskedLM(chapter["config"])
    draw = chapter["masked"] if mix == "80/10/10" else chapter["only_mask"]
    for _ in chapter["pretrain"](model, lambda i: draw(100_000 * seed + i, p), steps):
        pass
    return float(chapter["divergence"](model))


if __name__ == "__main__":
    main()
