"""How far the same recipe gets apart on different machines: writes llmbook/studies/machines.json.

python tools/machines.py        ten minutes

The first 400 steps of mlm-zh, as the recipe says; once more; with the instructions of an older processor (which adds
numbers in another order); on two threads; and, for comparison, with another seed.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from llmbook.pretrain import Recipe, prepare, pretrain, recipe
from llmbook.zoo import load, save

OUT = Path(__file__).parents[1] / "llmbook" / "studies" / "machines.json"
STEPS = 400
RUNS = {"the recipe": ({}, {}), "once more": ({}, {}), "older processor": ({"ATEN_CPU_CAPABILITY": "avx2"}, {}),
        "two threads": ({}, {"threads": 2}), "another seed": ({}, {"seed": 1})}  # fmt: skip


def short(threads: int = 1, seed: int = 0) -> Recipe:
    """The first steps of the recipe, with its schedule cut to them."""
    full = recipe("mlm-zh")
    training = {**full.training, "steps": STEPS, "seed": seed}
    return dataclasses.replace(full, every=STEPS, threads=threads, training=training)


def main() -> None:
    """Run each in its own process, and compare the weights with those of the first."""
    with tempfile.TemporaryDirectory() as folder:
        for i, (environment, changes) in enumerate(RUNS.values()):
            command = [sys.executable, __file__, f"{folder}/{i}", json.dumps(changes)]
            subprocess.run(command, check=True, env={**os.environ, **environment})
        models = [load(f"{folder}/{i}/model")[0] for i in range(len(RUNS))]
        curves = [json.loads(Path(f"{folder}/{i}/curve.jsonl").read_text("utf8")) for i in range(len(RUNS))]
    first = list(models[0].parameters())
    result = {}
    for name, model, curve in zip(RUNS, models, curves, strict=True):
        apart = max(float((p - q).abs().max()) for p, q in zip(first, model.parameters(), strict=True))
        result[name] = {"dev_loss": curve["dev_loss"], "largest difference of a weight": apart}
    OUT.write_text(json.dumps({"steps": STEPS, "runs": result}, indent=1) + "\n", "utf8")
    print(OUT.read_text("utf8"))


def one(folder: Path, changes: dict[str, int]) -> None:
    """One run, in a process of its own."""
    settings = short(**changes)
    save(pretrain(settings, prepare(settings), folder), folder / "model")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one(Path(sys.argv[1]), json.loads(sys.argv[2]))
    else:
        main()
