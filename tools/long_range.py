"""Four letters, much filler, then the question which letters they were: who remembers, and over what distance?

python tools/long_range.py    writes llmbook/studies/long_range.json, which chapter 2.3 reads; ten minutes on one core

Recurrent networks and one layer of attention, all of about ten thousand parameters, get the same rows, 600 batches at
most, and stop when they are right on all of the rows they are tested with. Each chooses its learning rate at each
distance by a seed that is not reported. What the file has is not run again.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmbook.attention import MultiHeadAttention
from llmbook.capture import capture
from llmbook.cards import machine
from llmbook.checkpoints import write_text

OUT = Path(__file__).parents[1] / "llmbook" / "studies" / "long_range.json"
LETTERS, SHOWN, FILLER, ASK = 8, 4, 8, 9
WIDTHS = {"rnn": 76, "lstm": 32, "open": 32, "attention": 40}
EVERY = 25  # steps between two looks at the accuracy


@dataclass(frozen=True)
class Plan:
    """What is run. The distances are in steps from a letter to the place where it is asked for."""

    distances: tuple[int, ...] = (4, 8, 16, 32, 64)
    seeds: tuple[int, ...] = (0, 1, 2)
    tuning_seed: int = 100
    lrs: tuple[float, ...] = (3e-3, 1e-2)
    steps: int = 600
    longer: int = 3000
    longer_distance: int = 32
    longer_seeds: tuple[int, ...] = (0, 1)


def rows(distance: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows of four letters, filler and four questions ``(B, distance + 4)``, and the letters ``(B, 4)``."""
    letters = torch.randint(0, LETTERS, (size, SHOWN), generator=generator)
    filler = torch.full((size, distance - SHOWN), FILLER)
    return torch.cat((letters, filler, torch.full((size, SHOWN), ASK)), 1), letters


class Memory(nn.Module):
    """Embedding, one layer of ``kind``, and scores for the letters at the last four places.

    ``"open"`` is an LSTM whose gates start as if it were to remember for up to ``length`` steps (Tallec & Ollivier,
    2018). Attention has a vector for each place beside that of the token.
    """

    def __init__(self, kind: str, length: int) -> None:
        super().__init__()
        width, d_model = WIDTHS[kind], WIDTHS["attention"]
        self.tokens = nn.Embedding(ASK + 1, d_model)
        self.places = nn.Embedding(length, d_model) if kind == "attention" else None
        self.layer = MultiHeadAttention(d_model, 1) if kind == "attention" else recurrent(kind, d_model, length)
        self.head = nn.Linear(width, LETTERS)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids ``(B, T)`` to logits ``(B, 4, 8)``."""
        x = self.tokens(ids)
        y = self.layer(x)[0] if self.places is None else self.layer(x + self.places.weight[: ids.shape[1]])
        return self.head(y[:, -SHOWN:])


def recurrent(kind: str, d_in: int, length: int) -> nn.RNNBase:
    """torch's layer, which computes what :mod:`llmbook.recurrent` writes out, but faster."""
    layer = (nn.RNN if kind == "rnn" else nn.LSTM)(d_in, WIDTHS[kind], batch_first=True)
    if kind == "open":
        open_gates(layer, length)
    return layer


@torch.no_grad()
def open_gates(lstm: nn.RNNBase, length: int) -> None:
    """Biases of an LSTM by which each unit keeps what it has for 1 to ``length − 1`` steps, and writes as rarely."""
    i, f, *_ = lstm.get_parameter("bias_ih_l0").chunk(4)  # of the gates i, f, g, o
    lstm.get_parameter("bias_hh_l0").zero_()
    f.copy_(torch.empty_like(f).uniform_(1, length - 1).log())
    i.copy_(-f)


def learn(kind: str, distance: int, seed: int, lr: float, steps: int) -> dict[str, Any]:
    """Train one, and say how right it is on 1,000 new rows, after how many steps."""
    torch.manual_seed(seed)
    model, generator = Memory(kind, distance + SHOWN), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    test, step, accuracy = rows(distance, 1000, torch.Generator().manual_seed(10_000 + seed)), 0, 0.0
    while step < steps and accuracy < 1:
        for _ in range(EVERY):
            update(model, optimizer, *rows(distance, 64, generator))
        step, accuracy = step + EVERY, right(model, *test)
    return {"accuracy": round(accuracy, 4), "steps": step, **looked(model, test[0], distance)}


def update(model: Memory, optimizer: torch.optim.Optimizer, ids: Tensor, letters: Tensor) -> None:
    """One step of training, the gradient clipped to norm 1."""
    loss = F.cross_entropy(model(ids).flatten(0, 1), letters.flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


@torch.no_grad()
def right(model: Memory, ids: Tensor, letters: Tensor) -> float:
    """The share of letters that are named rightly."""
    return (model(ids).argmax(-1) == letters).float().mean().item()


@torch.no_grad()
def looked(model: Memory, ids: Tensor, distance: int) -> dict[str, float]:
    """For attention: the mean weight that a question gives to the place of its letter."""
    if model.places is None:
        return {}
    with capture(model) as maps:
        model(ids)
    return {"weight": round(maps[0][:, 0].diagonal(-distance, -2, -1).mean().item(), 4)}


def study(plan: Plan, about: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    """Make all runs of a plan and write them down; those that ``runs`` has already are not run again."""
    known = {key(run): run for run in runs}
    made: list[dict[str, Any]] = []

    def run(kind: str, distance: int, seed: int, lr: float, limit: int) -> dict[str, Any]:
        asked = {"kind": kind, "distance": distance, "seed": seed, "lr": lr, "limit": limit}
        if key(asked) not in known:
            began = time.process_time()
            result = learn(kind, distance, seed, lr, limit)
            known[key(asked)] = {**asked, **result, "seconds": round(time.process_time() - began, 1)}
            save(about, list(known.values()))
            print(known[key(asked)], file=sys.stderr, flush=True)
        made.append(known[key(asked)])
        return made[-1]

    for distance, kind in product(plan.distances, WIDTHS):
        tried = [run(kind, distance, plan.tuning_seed, lr, plan.steps) for lr in plan.lrs]
        lr = max(tried, key=lambda run: (run["accuracy"], -run["steps"]))["lr"]
        for seed in plan.seeds:
            run(kind, distance, seed, lr, plan.steps)
        for seed in plan.longer_seeds if distance == plan.longer_distance and kind in ("rnn", "lstm") else ():
            run(kind, distance, seed, lr, plan.longer)
    save(about, made)


def key(run: dict[str, Any]) -> str:
    """What a run is a function of."""
    return json.dumps([run[name] for name in ("kind", "distance", "seed", "lr", "limit")])


def parameters(length: int) -> dict[str, int]:
    """Numbers that each model learns, for rows of ``length`` tokens."""
    return {kind: sum(p.numel() for p in Memory(kind, length).parameters()) for kind in WIDTHS}


def save(about: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    """A run a line, in a file that is never half written."""
    lines = ",\n".join(json.dumps(run) for run in runs)
    write_text(OUT, f'{json.dumps(about)[:-1]}, "runs": [\n{lines}\n]}}\n')


def main() -> None:
    """Run what is missing, and write it down."""
    torch.set_num_threads(1)
    plan = Plan()
    sizes = {str(distance): parameters(distance + SHOWN) for distance in plan.distances}
    about = {"plan": asdict(plan), "chance": 1 / LETTERS, "parameters": sizes,
             "machine": machine("cpu", 1), "torch": torch.__version__}  # fmt: skip
    study(plan, about, json.loads(OUT.read_text("utf8"))["runs"] if OUT.exists() else [])


if __name__ == "__main__":
    main()
