"""Why a small masked language model may sit on the unigram plateau: each suspect on its own, and all together.

python tools/plateau.py         writes llmbook/studies/plateau.json, which chapter 5.1 reads; half an hour on one core

Models see the same 0.5 million tokens of English: every combination of batch size, of the weights' standard deviation
at birth, and of the kind of positions, with three seeds each. All else is the same. What the file has is not run again.
"""

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from llmbook import mlm
from llmbook.batches import Batches
from llmbook.pretrain import Prepared, Recipe, build, held_out_loss, masked, prepare, rows
from llmbook.text import Packed
from llmbook.train import train

OUT = Path(__file__).parents[1] / "llmbook" / "studies" / "plateau.json"
TOKENS, LENGTH = 500_000, 64
SUSPECTS = {"seed": (0, 1, 2), "batch_size": (16, 32), "init_std": (0.05, 0.02), "positions": ("rotary", "learned")}
SIZES = {"d_model": 128, "n_heads": 4, "n_layers": 4, "d_ff": 512}
TRAINING = {"lr": 1.5e-3, "min_lr": 1.5e-3, "warmup": 50}  # no decay: a plateau should not be the schedule's doing
FIRST = Recipe("masked", "en", "bpe", 4096, LENGTH, 16, 1000, SIZES, {**TRAINING, "steps": 1})


def main() -> None:
    """Train those that are missing, and write where each of them got to."""
    torch.set_num_threads(1)
    runs = json.loads(OUT.read_text("utf8"))["runs"] if OUT.exists() else []
    done = [[run[name] for name in SUSPECTS] for run in runs]
    missing = [values for values in itertools.product(*SUSPECTS.values()) if [*values] not in done]
    prepared = prepare(FIRST)
    for values in missing:
        suspects: dict[str, Any] = dict(zip(SUSPECTS, values, strict=True))
        runs.append({**suspects, "curve": curve(prepared, **suspects)})
        lines = ",\n".join(json.dumps(run) for run in sorted(runs, key=lambda run: [run[name] for name in SUSPECTS]))
        about = json.dumps({"sizes": SIZES, "training": TRAINING})
        OUT.write_text(f'{about[:-1]}, "runs": [\n{lines}\n]}}\n', "utf8")
        print(*values, runs[-1]["curve"][-1], file=sys.stderr, flush=True)


def curve(prepared: Prepared, seed: int, batch_size: int, init_std: float, positions: str) -> list[list[float]]:
    """Loss on held-out text, every 65,536 tokens: ``[step, loss]``."""
    steps, vocab_size = TOKENS // (batch_size * LENGTH), prepared.tokenizer.get_vocab_size()
    recipe = replace(FIRST, batch_size=batch_size, training={**TRAINING, "steps": steps, "seed": seed},
                     model={**SIZES, "init_std": init_std, "positions": positions})  # fmt: skip
    draw, dev = Batches(rows(recipe, prepared.train), batch_size, seed), rows(recipe, prepared.dev)
    dev, model, points = Packed(*(x[:256] for x in dev)), build(recipe, vocab_size), []
    records = train(model, lambda i: masked(draw(i), vocab_size, recipe.p), mlm.training_loss, **recipe.training)
    for record in records:
        if record.step % (1024 // batch_size) == 0:
            points.append([record.step, round(held_out_loss(recipe, model, dev), 3)])
    return points


if __name__ == "__main__":
    main()
