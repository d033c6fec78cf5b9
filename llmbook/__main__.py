"""The book's commands: ``python -m llmbook data`` and ``python -m llmbook train RECIPE``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a problem is one line on the error stream, and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m llmbook", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("data", help="fetch the corpora of the book into the cache")
    train = commands.add_parser("train", help="pre-train a model by recipe, or go on with one")
    train.add_argument("recipe", help="a recipe of the book, or the path of one")
    train.add_argument("--out", type=Path, help="folder of the run (runs/RECIPE)")
    options = parser.parse_args(arguments)

    try:
        if options.command == "data":
            data()
        else:
            train_model(options.recipe, options.out or Path("runs") / Path(options.recipe).stem)
    except (ValueError, OSError, RuntimeError, FloatingPointError) as problem:
        print(f"llmbook: {problem}", file=sys.stderr)
        return 1
    return 0


def data() -> None:
    """Fetch every corpus, and say what it is, whose, and under which licence."""
    from llmbook.sources import SOURCES, rows

    for source in SOURCES.values():
        count = sum(1 for _ in rows(source.name))
        print(f"{source.name}: {source.what}; {count:,} records; {source.licence}; {source.citation}")


def train_model(name: str, folder: Path) -> None:
    """Train by recipe, and write the model to ``folder/model``: weights in float16, tokenizer and card."""
    import torch  # half a second: not for --help

    from llmbook import cards, pretrain, zoo
    from llmbook.processes import place, processes

    recipe = pretrain.recipe(name)
    if (folder / "model").exists():
        raise ValueError(f"out: expected a run that is not finished, found {folder / 'model'}")
    with processes() as device:
        prepared = pretrain.prepare(recipe)
        model = pretrain.pretrain(recipe, prepared, folder, device=device, progress=True)
        if place()[0] == 0:
            with torch.no_grad():  # measured as it is written
                for p in model.parameters():
                    p.copy_(p.half())
            card = cards.card(recipe, prepared, model, pretrain.read_curve(folder / "curve.jsonl"), device)
            zoo.save(model, folder / "model", prepared.tokenizer, card=card, dtype=torch.float16)
            print(f"llmbook: wrote {folder / 'model'}")


if __name__ == "__main__":
    sys.exit(main())
