"""One model on several processes: who they are, how they share a batch, a sum and a model; knows no training.

Started by ``torchrun --nproc-per-node N``, each process calls the same code inside ``with processes() as device``.
Outside of it, and with one process, everything here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import llmbook


@contextmanager
def processes() -> Iterator[torch.device]:
    """Join the processes that torchrun started, and leave them at the end.

    NCCL connects them where :func:`llmbook.device` is CUDA, a device each; else gloo does.

    Yields:
        The device of this process; :func:`llmbook.device` where torchrun started none.

    Raises:
        ValueError: there are more processes on this machine than CUDA devices.
    """
    device = llmbook.device()
    if "LOCAL_RANK" not in os.environ or dist.is_initialized():
        yield device
        return
    local = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(f"LOCAL_RANK={local}: expected a CUDA device for each process, "
                             f"got {torch.cuda.device_count()}; LLMBOOK_DEVICE=cpu trains without")  # fmt: skip
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def place() -> tuple[int, int]:
    """``(rank, world)``: the number of this process, from 0, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def sums(numbers: list[float], device: torch.device) -> list[float]:
    """Each number summed over all processes."""
    if place()[1] == 1:
        return numbers
    x = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(x)
    return x.tolist()


def wait() -> None:
    """Return when every process has come here."""
    if place()[1] > 1:
        dist.barrier()


def share(model: nn.Module, parallel: str) -> nn.Module:
    """``model`` as all processes use it: its gradients are the *means* of theirs; every weight begins as in process 0.

    Args:
        model: on its device.
        parallel: ``"ddp"``, each process holds the whole model (Li et al., 2020); ``"fsdp"``, each holds a part of
            every tensor and sees the others when it needs them, one block of an ``nn.ModuleList`` at a time (Zhao et
            al., 2023); the model itself is changed.
    """
    if place()[1] == 1:
        return model
    if parallel == "ddp":
        return DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if not isinstance(model, FSDPModule):
        for x in model.state_dict().values():
            dist.broadcast(x, 0)
        mesh = init_device_mesh(next(model.parameters()).device.type, (place()[1],))
        blocks = [block for module in model.modules() if isinstance(module, nn.ModuleList) for block in module]
        for module in (*blocks, model):
            fully_shard(module, mesh=mesh)
    return model


def hold(shared: Any, last: bool) -> AbstractContextManager[Any]:
    """Keep the gradients to this process until the ``last`` micro-batch, which exchanges the sum of all."""
    if isinstance(shared, DistributedDataParallel):
        return nullcontext() if last else shared.no_sync()
    if hasattr(shared, "set_requires_gradient_sync"):
        shared.set_requires_gradient_sync(last)
    return nullcontext()


def whole(x: Tensor) -> Tensor:
    """``x`` itself, or the whole of it where each process holds a part; all processes must ask."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def named(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once: tied ones by their first name."""
    seen: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    return {name: x for name, x in state.items() if seen.setdefault(id(x), name) == name}


def gather(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """A copy on the CPU of all that training changes, whole: ``model.NAME`` and ``optimizer.MOMENT.NAME``."""
    tensors = {}
    for name, x in named(model).items():
        tensors[f"model.{name}"] = whole(x).detach().to("cpu", copy=True)
        for moment, value in optimizer.state.get(x, {}).items():
            tensors[f"optimizer.{moment}.{name}"] = whole(value).to("cpu", copy=True)
    return tensors


def scatter(tensors: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put what :func:`gather` returned into a model of the same names and shapes and into its optimiser."""
    own = named(model)
    with torch.no_grad():
        for key, value in tensors.items():
            kind, name = key.split(".", 1)
            if kind == "model":
                own[name].copy_(_part(value, own[name]))
            else:
                moment, name = name.split(".", 1)
                optimizer.state[own[name]][moment] = _part(value, own[name])


def _part(value: Tensor, like: Any) -> Tensor:
    """A copy of ``value`` where ``like`` is; the part of it that this process holds of ``like``, if it is such."""
    copy = value.to(like.device, copy=True)
    if not hasattr(like, "full_tensor") or value.shape != like.shape:
        return copy
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(copy, like.device_mesh, like.placements)
