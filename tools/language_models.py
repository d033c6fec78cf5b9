"""Who predicts best? Counts, NNLM, RNN, GRU, LSTM and Transformer on the same text, with the same number of parameters.

python tools/language_models.py     writes llmbook/studies/language_models.json, which chapter 2.2 reads; about half an
                                    hour on one core

Text, tokenizer, split and rows are those of the model gpt-en. Each network has about a million parameters and reads the
training part once. A short run at each of five learning rates says where to begin: the best two are run in full, then
the next one for as long as the best lies at an end of those tried. What counts is the loss on the development part.
Losses on the test part are kept text by text, so that whoever reads the file can resample. What it has is not run
again.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmbook.batches import Batches
from llmbook.cards import machine
from llmbook.checkpoints import write_text
from llmbook.config import EncoderConfig
from llmbook.decoder import CausalLM
from llmbook.lm import token_losses, training_loss
from llmbook.modes import in_mode
from llmbook.ngram import NGram
from llmbook.nnlm import NNLM
from llmbook.pretrain import prepare, recipe, rows
from llmbook.recurrent import RecurrentLM
from llmbook.text import CLS
from llmbook.train import train

OUT = Path(__file__).parents[1] / "llmbook" / "studies" / "language_models.json"
ORDERS = (1, 2, 3, 4, 5)
STEPS, SHORT, ROWS = 907, 150, 8  # 907 batches are one reading
TRAINING: dict[str, Any] = {"warmup": 50, "weight_decay": 0.1, "betas": [0.9, 0.98]}
RATES, TUNING_SEED, SEEDS = (1e-3, 3e-3, 9e-3, 27e-3, 81e-3), 100, (0, 1)
SHARES = [i / 10 for i in range(11)]
CONTEXT = (1, 2, 5, 17, 65, 128)
"""Losses are also averaged over targets that have from so many tokens before them to one less than the next number."""
DISTANCES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 126)

MODELS: dict[str, Callable[[int], nn.Module]] = {
    "NNLM": lambda v: NNLM(v, context=4, d_model=116, d_hidden=116, direct=False),
    "RNN": lambda v: RecurrentLM(v, 118, cell="rnn"),
    "GRU": lambda v: RecurrentLM(v, 112, cell="gru"),
    "LSTM": lambda v: RecurrentLM(v, 110, cell="lstm"),
    "Transformer": lambda v: CausalLM(EncoderConfig(
        vocab_size=v, max_len=128, d_model=136, n_heads=4, n_layers=2, d_ff=544, positions="rotary", init_std=0.05)),
}  # fmt: skip


class Data:
    """The rows of ``gpt-en``, and what the largest n-gram says of the held-out ones."""

    def __init__(self) -> None:
        gpt = recipe("gpt-en")
        prepared = prepare(gpt)
        self.train, self.dev, self.test = (rows(gpt, part) for part in prepared[1:])  # (N, T) each
        self.vocab_size = prepared.tokenizer.get_vocab_size()
        self.text = (self.test.flatten() == CLS).cumsum(0).view_as(self.test)[:, 1:] - 1  # of each target, from 0 on
        self.fitted = {order: self._fit(order) for order in ORDERS}
        best = self.fitted[max(ORDERS)][0]
        self.counted = {"dev": losses(best, self.dev), "test": losses(best, self.test)}

    def _fit(self, order: int) -> tuple[NGram, float]:
        began = time.process_time()
        return NGram(order, self.vocab_size).fit(self.train), time.process_time() - began

    def measured(self, test: Tensor) -> dict[str, Any]:
        """Losses ``(N, T − 1)`` as the sum for each text, and as the mean for each length of context."""
        per_text = torch.zeros(int(self.text.max()) + 1, dtype=torch.float64)
        per_text.index_add_(0, self.text.flatten(), test.flatten().double())
        spans = [test[:, a - 1 : b - 1].mean().item() for a, b in itertools.pairwise(CONTEXT)]
        return {"test": [round(x, 3) for x in per_text.tolist()], "by_context": [round(x, 4) for x in spans]}


@torch.no_grad()
def losses(model: nn.Module, ids: Tensor) -> Tensor:
    """The loss of every token of ``ids (N, T)`` but the first of a row: ``(N, T − 1)``."""
    with in_mode(model, training=False):
        return torch.cat([token_losses(model(batch), batch).view(len(batch), -1) for batch in ids.split(8)])


def counts(data: Data) -> Iterator[dict[str, Any]]:
    """The n-grams of each order; parameters are the n-grams that are kept, of every length."""
    for order, (model, seconds) in data.fitted.items():
        kept = sum(len(level.keys) for level in model.levels)
        found = {"dev": round(losses(model, data.dev).mean().item(), 4), **data.measured(losses(model, data.test))}
        yield {"model": f"{order}-gram", "parameters": kept, "us_per_token": micro(seconds, data.train), **found}


def micro(seconds: float, ids: Tensor) -> float:
    """Microseconds for each of ``ids``."""
    return round(seconds / ids.numel() * 1e6, 2)


def learn(data: Data, name: str, lr: float, seed: int, steps: int) -> tuple[nn.Module, dict[str, Any]]:
    """A model after training, and what is known of the run; time is the processor's, without the measuring."""
    torch.manual_seed(seed)
    model = MODELS[name](data.vocab_size)
    draw, curve, seconds = Batches(data.train, ROWS, seed), [], 0.0
    records = train(model, draw, training_loss, steps=steps, lr=lr, seed=seed, **TRAINING)
    for step in range(1, steps + 1):
        began = time.process_time()
        next(records)
        seconds += time.process_time() - began
        if step % 200 == 0 or step == steps:
            curve.append([step * draw(0).numel(), round(losses(model, data.dev).mean().item(), 4)])
    size, read = sum(p.numel() for p in model.parameters()), steps * draw(0).numel()
    about = {"model": name, "seed": seed, "lr": lr, "parameters": size, "us_per_token": round(seconds / read * 1e6, 2)}
    return model, {**about, "dev": curve[-1][1], "curve": curve}


def reach(model: nn.Module, ids: Tensor) -> list[float]:
    """How far back a trained network listens.

    The norm of the gradient of the last token's loss by the embedding of the token at each of the distances, mean over
    the rows of ``ids (N, T)``; distance 0 is the token just before the predicted one.
    """
    embedding, caught = getattr(model, "C", None) or model.embedding, list[Tensor]()
    hook = embedding.register_forward_hook(lambda module, inputs, output: caught.append(output))  # type: ignore
    last = token_losses(model.eval()(ids), ids).view(len(ids), -1)[:, -1].sum()
    hook.remove()
    (slope,) = torch.autograd.grad(last, caught)  # (N, T, d_model)
    norms = slope.norm(dim=-1).mean(0).flip(0)[1:]  # by distance
    return [float(f"{norms[d]:.3g}") for d in DISTANCES]


def mixed(data: Data, dev: Tensor, test: Tensor) -> dict[str, Any]:
    """``p = share · network + (1 − share) · counts``, with the share that is best on the development part."""

    def mix(network: Tensor, counted: Tensor, share: float) -> Tensor:
        return -(share * (-network).exp() + (1 - share) * (-counted).exp()).log()

    share = min(SHARES, key=lambda s: mix(dev, data.counted["dev"], s).mean().item())
    return {"share": share, **data.measured(mix(test, data.counted["test"], share))}


def run(data: Data, name: str, lr: float, seed: int) -> dict[str, Any]:
    """A reported run: the whole budget, measured on the test part, alone and together with the counts."""
    model, about = learn(data, name, lr, seed, STEPS)
    dev, test = losses(model, data.dev), losses(model, data.test)
    heard = reach(model, data.test[:64])
    return {**about, **data.measured(test), "with counts": mixed(data, dev, test), "reach": heard}


def main() -> None:
    """Run what is missing, one seed after the other, and write what there is after each run."""
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(OUT.read_text("utf8")) if OUT.exists() else {}
    data = Data()
    targets = data.text.flatten().bincount().tolist()
    found = {"plan": {"steps": STEPS, "short": SHORT, "rows": ROWS, "length": data.train.shape[1], "rates": RATES,
                      **TRAINING}, "tokens": data.train.numel(), "targets": targets, "context": CONTEXT[:-1],
             "distances": DISTANCES, "machine": machine("cpu", 1), "torch": torch.__version__,
             "counts": found.get("counts") or [*counts(data)], "tuning": [], "runs": [], **found}  # fmt: skip
    for name in MODELS:
        for lr in RATES:
            if [name, lr] not in [[t["model"], t["lr"]] for t in found["tuning"]]:
                _, about = learn(data, name, lr, TUNING_SEED, SHORT)
                _keep(found, "tuning", about)
    for seed in SEEDS:
        for name in MODELS:
            while (rate := _next(found, name, seed)) is not None:
                _keep(found, "runs", run(data, name, rate, seed))


def _next(found: dict[str, Any], name: str, seed: int) -> float | None:
    """The learning rate of the next run in full, if one is needed; other seeds take the best of the first."""
    short, runs = ({t["lr"]: t["dev"] for t in found[kind] if t["model"] == name and t["seed"] == s}
                   for kind, s in (("tuning", TUNING_SEED), ("runs", SEEDS[0])))  # fmt: skip
    if seed != SEEDS[0]:
        done = [r for r in found["runs"] if r["model"] == name and r["seed"] == seed]
        return None if done else min(runs, key=runs.__getitem__)
    missing = [lr for lr in sorted(short, key=short.__getitem__)[:2] if lr not in runs]
    if missing:
        return missing[0]
    at = RATES.index(min(runs, key=runs.__getitem__))
    return next((lr for lr in RATES[max(at - 1, 0) : at + 2] if lr not in runs), None)


def _keep(found: dict[str, Any], kind: str, one: dict[str, Any]) -> None:
    found[kind].append(one)
    found[kind].sort(key=lambda r: ([*MODELS].index(r["model"]), r["seed"], r["lr"]))
    lists = {k: ",\n".join(map(json.dumps, found[k])) for k in ("counts", "tuning", "runs")}
    head = json.dumps({k: v for k, v in found.items() if k not in lists})
    write_text(OUT, head[:-1] + "".join(f',\n"{k}": [\n{rows}\n]' for k, rows in lists.items()) + "}\n")
    print(kind, {k: one[k] for k in ("model", "seed", "lr", "us_per_token", "dev")}, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
