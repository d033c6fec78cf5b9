"""Which parts does an encoder need? A small masked language model of letters, with each part taken out in turn.

python tools/encoder_parts.py       writes llmbook/studies/encoder_parts.json, which chapter 3.1 reads; half an hour

Three studies, on one core. PARTS: each variant tries its learning rates with a seed of its own, and is trained with the
better one from three other seeds. LONGER: the kinds of positions, with five times as many steps. DEPTHS: pre-norm and
post-norm at three depths, with and without warm-up. All see the same English text; runs with the same seed see the same
batches and masks. What the file has is not run again.
"""

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmbook import mlm
from llmbook.attention import MultiHeadAttention
from llmbook.batches import Batches
from llmbook.pretrain import Prepared, Recipe, build, held_out_loss, masked, prepare, rows
from llmbook.text import MASK, SPECIAL, Packed
from llmbook.train import train
from llmbook.transformer import Block, rows_of, take

OUT = Path(__file__).parents[1] / "llmbook" / "studies" / "encoder_parts.json"
SIZES = {"d_model": 64, "n_heads": 4, "n_layers": 2, "d_ff": 256, "positions": "rotary", "init_std": 0.05}
TRAINING = {"steps": 300, "warmup": 50}
BASE = Recipe("masked", "en", "characters", 400, 64, 16, 1000, SIZES, TRAINING, p=0.2)
RATES, TUNING_SEED, SEEDS = (2e-3, 6e-3), 100, (0, 1, 2)
LONGER = {"steps": 1500, "warmup": 50, "lr": 2e-3, "seed": 0}
DEPTHS = {"seed": (0, 1), "layers": (2, 6, 12), "norm": ("pre", "post"), "warmup": (0, 75)}
DEEP = {"steps": 150, "lr": 1e-3, "init_std": 0.125}  # 1/√d_model: a matrix leaves the size of a vector as it is


class Nothing(nn.Module):
    """A sublayer that adds nothing."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return torch.zeros_like(x)


class NoResidual(Block):
    """A block whose sublayers replace their input instead of adding to it."""

    def _residual(self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        return sublayer(norm(x))

    def _attend_at(self, x: Tensor, mask: Tensor | None, rows: Tensor) -> Tensor:
        x = self.attention_norm(x)
        return self.attention(take(x, rows), x, rows_of(mask, rows), at=rows)


class Unscaled(MultiHeadAttention):
    """Scores without the division by √d_k."""

    def _project(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        q, k, v = super()._project(x, context)
        return q * self.d_k**0.5, k, v


class EqualWeights(MultiHeadAttention):
    """All scores 0: every query takes the mean of the values that it may read."""

    def _project(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        q, k, v = super()._project(x, context)
        return q * 0, k, v


def no_residual(model: Any) -> None:
    for block in model.encoder.blocks:
        block.__class__ = NoResidual


def no_norm(model: Any) -> None:
    model.encoder.norm = nn.Identity()
    for block in model.encoder.blocks:
        block.attention_norm = block.feed_forward_norm = nn.Identity()


def no_feed_forward(model: Any) -> None:
    for block in model.encoder.blocks:
        block.feed_forward, block.feed_forward_norm = Nothing(), nn.Identity()


def no_nonlinearity(model: Any) -> None:
    for block in model.encoder.blocks:
        block.feed_forward.activation = nn.Identity()


def no_attention(model: Any) -> None:
    for block in model.encoder.blocks:
        block.attention, block.attention_norm = Nothing(), nn.Identity()


def no_scaling(model: Any) -> None:
    for block in model.encoder.blocks:
        block.attention.__class__ = Unscaled


def equal_weights(model: Any) -> None:
    for block in model.encoder.blocks:
        block.attention.__class__ = EqualWeights


PARTS: dict[str, tuple[dict[str, Any], Callable[[Any], None] | None]] = {  # other sizes, and what is taken out
    "everything": ({}, None),
    "no attention": ({}, no_attention),
    "equal weights": ({}, equal_weights),
    "no positions": ({"positions": "none"}, None),
    "sinusoidal positions": ({"positions": "sinusoidal"}, None),
    "learned positions": ({"positions": "learned"}, None),
    "no residual": ({}, no_residual),
    "no norm": ({}, no_norm),
    "no feed-forward": ({}, no_feed_forward),
    "no feed-forward, 6 layers": ({"n_layers": 6}, no_feed_forward),
    "no nonlinearity": ({}, no_nonlinearity),
    "one head": ({"n_heads": 1}, None),
    "no scaling": ({}, no_scaling),
}


class Study:
    """The text in numbers, and the runs on it."""

    def __init__(self, prepared: Prepared) -> None:
        self.rows = rows(BASE, prepared.train)
        self.dev = Packed(*(x[:512] for x in rows(BASE, prepared.dev)))
        self.vocab_size = prepared.tokenizer.get_vocab_size()

    def baselines(self) -> dict[str, float]:
        """The loss of frequencies on what :func:`held_out_loss` asks for: alone, and with what a visible token tells.

        Of the chosen tokens a tenth stays and a tenth is replaced by one of n at random. If x is visible, x is the
        answer with odds p(x) : 1/n, and else every token with its frequency.
        """
        counts = torch.bincount(self.rows.ids.flatten(), minlength=self.vocab_size).double() + 1
        counts[: len(SPECIAL)] = 0  # never a target
        p, n, generator = counts / counts.sum(), self.vocab_size - len(SPECIAL), torch.Generator().manual_seed(0)
        unigram, copying = [], []
        for i in range(0, len(self.dev.ids), 64):  # the masks that held_out_loss draws
            rows = Packed(*(x[i : i + 64] for x in self.dev))
            inputs, positions, targets, _ = masked(rows, self.vocab_size, BASE.p, generator)
            seen, target = inputs.gather(1, positions)[targets >= 0], targets[targets >= 0]
            hint = ((seen == target) + 1 / n) / (p[seen] + 1 / n)
            unigram.append(p[target])
            copying.append(p[target] * torch.where(seen == MASK, 1.0, hint))
        return {name: round(-torch.cat(found).log().mean().item(), 4)
                for name, found in (("unigram", unigram), ("copying", copying))}  # fmt: skip

    def run(self, recipe: Recipe, change: Callable[[Any], None] | None, every: int) -> dict[str, Any]:
        """Train a model: its size, and ``[step, held-out loss]`` every so many steps, as far as it came."""
        model, draw = build(recipe, self.vocab_size), Batches(self.rows, recipe.batch_size, recipe.seed)
        if change:
            change(model)
        parameters, curve = sum(p.numel() for p in model.parameters()), []
        records = train(model, lambda i: masked(draw(i), self.vocab_size, recipe.p), mlm.training_loss,
                        **recipe.training)  # fmt: skip
        try:
            for record in records:
                if record.step % every == 0:
                    curve.append([record.step, round(held_out_loss(recipe, model, self.dev), 4)])
        except FloatingPointError:  # the curve ends where the run did
            pass
        return {"parameters": parameters, "curve": curve}


def parts(study: Study, get: Callable[..., dict[str, Any]]) -> None:
    """Every variant: which learning rate, then the runs that are reported."""

    def run(variant: str, lr: float, seed: int) -> dict[str, Any]:
        sizes, change = PARTS[variant]
        recipe = replace(BASE, model={**SIZES, **sizes}, training={**TRAINING, "lr": lr, "seed": seed})
        return study.run(recipe, change, every=50)

    tried = {(name, lr): get(run, variant=name, lr=lr, seed=TUNING_SEED) for name in PARTS for lr in RATES}
    for seed, name in itertools.product(SEEDS, PARTS):
        best = min(RATES, key=lambda lr: final(tried[name, lr]))
        get(run, variant=name, lr=best, seed=seed)


def longer(study: Study, get: Callable[..., dict[str, Any]]) -> None:
    """Every kind of positions."""

    def run(positions: str) -> dict[str, Any]:
        recipe = replace(BASE, model={**SIZES, "positions": positions}, training=LONGER)
        return study.run(recipe, None, every=100)

    for positions in ("rotary", "sinusoidal", "learned", "none"):
        get(run, positions=positions)


def depths(study: Study, get: Callable[..., dict[str, Any]]) -> None:
    """Pre-norm and post-norm."""

    def run(seed: int, layers: int, norm: str, warmup: int) -> dict[str, Any]:
        model = {**SIZES, "n_layers": layers, "norm": norm, "init_std": DEEP["init_std"]}
        training = {"steps": DEEP["steps"], "lr": DEEP["lr"], "warmup": warmup, "seed": seed}
        return study.run(replace(BASE, model=model, training=training), None, every=25)

    for values in itertools.product(*DEPTHS.values()):
        get(run, **dict(zip(DEPTHS, values, strict=True)))


def final(run: dict[str, Any]) -> float:
    """The loss after the last step; infinite if the run did not get there."""
    whole = run["curve"] and run["curve"][-1][0] == TRAINING["steps"]
    return float(run["curve"][-1][1]) if whole else float("inf")


def main() -> None:
    """Run what is missing, and write each run as it ends."""
    torch.set_num_threads(1)
    old = json.loads(OUT.read_text("utf8")) if OUT.exists() else {}
    done = {kind: old.get(kind, []) for kind in ("parts", "longer", "depths")}
    study = Study(prepare(BASE))
    about = {
        "sizes": SIZES,
        "training": TRAINING,
        "longer_training": LONGER,
        "deep": DEEP,
        "tuning_seed": TUNING_SEED,
        **study.baselines(),
    }

    def keep(kind: str, run: Callable[..., dict[str, Any]], **what: Any) -> dict[str, Any]:
        for run_before in done[kind]:
            if what.items() <= run_before.items():
                return run_before
        done[kind].append({**what, **run(**what)})
        OUT.write_text(written(about, done), "utf8")
        print(kind, *what.values(), done[kind][-1]["curve"][-1:], file=sys.stderr, flush=True)
        return done[kind][-1]

    parts(study, lambda run, **what: keep("parts", run, **what))
    longer(study, lambda run, **what: keep("longer", run, **what))
    depths(study, lambda run, **what: keep("depths", run, **what))
    OUT.write_text(written(about, done), "utf8")


def written(about: dict[str, Any], done: dict[str, list[dict[str, Any]]]) -> str:
    """JSON with a line a run."""

    def lines() -> Iterator[str]:
        for kind, runs in done.items():
            yield f'"{kind}": [\n' + ",\n".join(map(json.dumps, runs)) + "\n]"

    return json.dumps(about)[:-1] + ",\n" + ",\n".join(lines()) + "}\n"


if __name__ == "__main__":
    main()
