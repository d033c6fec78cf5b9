"""What the tests of training run in processes of their own, to kill them or to start them by torchrun.

As a script it is a server that has imported torch once: for each line of JSON on its standard input it forks one
process per job, kills them after a while if so asked, and answers with their exit codes.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from llmbook import checkpoints
from llmbook.processes import place, processes
from llmbook.train import train

V, T, D = 11, 7, 5
OWN = {"steps": 6, "accumulate": 2, "lr": 0.05, "warmup": 2, "clip": 0.5}


class Restless(nn.Module):
    """A language model in which everything moves that can: dropout, running statistics, weights that are tied."""

    def __init__(self, dropout=0.3, norm=True):
        super().__init__()
        self.embedding = nn.Embedding(V, D)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Dropout(dropout)) for _ in range(2))
        self.norm = nn.BatchNorm1d(T) if norm else nn.LayerNorm(D)
        self.head = nn.Linear(D, V)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        x = self.embedding(ids)  # (B, T) -> (B, T, D)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x))  # (B, T, D) -> (B, T, V)


def model(seed=0, **options):
    torch.manual_seed(seed)
    return Restless(**options)


def batches(i):
    """Inputs and targets ``(6, T)`` that draw on all three random number generators."""
    rows = np.random.randint(V, size=(6, T))
    ids = torch.from_numpy(rows) * random.randrange(1, V) % V
    hidden = torch.rand(ids.shape) < torch.linspace(0, 1, 6)[:, None]  # some rows have more targets than others
    return ids.masked_fill(hidden, 0), ids.masked_fill(~hidden, -100)


def loss(model, batch):
    ids, targets = batch
    logits = model(ids).transpose(1, 2)  # (B, T, V) -> (B, V, T)
    return F.cross_entropy(logits, targets, reduction="sum"), (targets != -100).sum()


def line(record):
    """A record to the last bit, without its speed."""
    return " ".join(x.hex() if isinstance(x, float) else str(x) for x in record[:4])


def calm(seed=0):
    """A model whose loss does not depend on which process has which rows."""
    return model(seed, dropout=0.0, norm=False).double()


def job(folder, kill_at_line=None, kill_while_writing=False, environment=None, **settings):
    """Train in ``folder``, and add a line to its log for each record; perhaps die while a checkpoint is saved."""
    os.environ.update(environment or {})
    torch.set_num_threads(1)
    if kill_at_line is not None:
        sys.settrace(killer(kill_at_line))
    if kill_while_writing:
        Path.write_bytes = write_half
    with processes():
        Path(folder).mkdir(parents=True, exist_ok=True)
        with open(f"{folder}/log{place()[0]}", "a") as log:
            for record in train(model(), batches, loss, checkpoint=folder, **settings):
                print(line(record), file=log, flush=True)


def killer(n):
    """A tracer that kills the process before the n-th line (from 0) that saving a checkpoint executes."""
    left, saving = n, False

    def trace(frame, event, _):
        nonlocal left, saving
        if frame.f_code.co_filename != checkpoints.__file__:
            return None
        saving = saving or frame.f_code.co_name == "save"
        if saving and event == "line":
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return trace

    return trace


def write_half(path, content):
    path.open("wb", buffering=0).write(content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def start(work):
    """Fork a process that does one job; returns its number."""
    number = os.fork()
    if number:
        return number
    try:
        job(**work)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def serve():
    import torch._dynamo  # noqa: F401  (the optimiser does it: once here, not in each process)

    for request in map(json.loads, sys.stdin):
        numbers = [start(work) for work in request["jobs"]]
        if request["kill_after"] is not None:
            time.sleep(request["kill_after"])
            for number in numbers:
                os.kill(number, signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in numbers]
        print(json.dumps(codes), flush=True)


def under_torchrun(folder):
    """What one of several processes sees; its part of the answer goes to ``folder/RANK.json``."""
    torch.set_num_threads(1)
    with processes() as device:
        rank, world = place()
        answer = {"place": [rank, world], "device": str(device)}
        for parallel in ("ddp", "fsdp"):
            own = OWN | {"parallel": parallel}
            whole, halves = f"{folder}/{parallel}", f"{folder}/{parallel}-in-two"
            answer[parallel] = list(train(calm(seed=rank), batches, loss, checkpoint=whole, **own))
            run = train(calm(seed=rank), batches, loss, checkpoint=halves, every=2, **own)
            first = [next(run) for _ in range(5)]
            run.close()
            rest = list(train(calm(seed=rank), batches, loss, checkpoint=halves, every=2, **own))
            answer[f"{parallel}-in-two"] = first[:4] + rest
        answer["seen"] = seen_by(rank)
        elsewhere = f"{folder}/{'ddp' if rank else 'nowhere'}"
        answer["errors"] = [
            error_of(train(model(), lambda i: torch.zeros(1, T).long(), loss, steps=1)),
            error_of(train(model(), batches, lambda model, batch: (loss(model, batch)[0] / rank, 1), steps=1)),
            error_of(train(model(), batches, loss, steps=6, checkpoint=elsewhere)),
            error_of(train(model(), batches, loss, steps=6, checkpoint=f"{folder}/ddp")),
        ]
        Path(f"{folder}/{rank}.json").write_text(json.dumps(answer))


def draw():
    return [random.random(), np.random.rand(), torch.rand(1).item()]


def seen_by(rank):
    """Rows and random numbers of one process in two steps of three micro-batches, and how often it kept to itself."""
    seen, no_sync = {"data": [], "loss": [], "rows": [], "alone": 0}, DistributedDataParallel.no_sync

    def rows(i):
        seen["data"].append(draw())
        return torch.arange(5 * T).view(5, T) % V, torch.arange(5 * T).view(5, T) % V

    def watched(model, batch):
        seen["loss"].append(draw())
        seen["rows"].append(batch[0][:, 0].tolist())
        return loss(model, batch)

    def counted(model):
        seen["alone"] += 1
        return no_sync(model)

    DistributedDataParallel.no_sync = counted
    list(train(calm(), rows, watched, steps=2, accumulate=3))
    DistributedDataParallel.no_sync = no_sync
    return seen


def error_of(run):
    """The error that a run ends with."""
    try:
        return f"none after {len(list(run))} steps"
    except (ValueError, FloatingPointError) as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    under_torchrun(sys.argv[1]) if "LOCAL_RANK" in os.environ else serve()
