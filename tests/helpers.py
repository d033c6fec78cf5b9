"""What the tests of the models share: reproducible numbers, gradients, and a comparison with a stated tolerance."""

import copy

import pytest
import torch
from torch import Tensor

no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda.is_available() is false")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def normal(*shape, seed=0, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(hash((seed, *shape)))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype).requires_grad_()


def gradients(output, inputs):
    """The gradients of a weighted sum of ``output``, with a different weight for every entry."""
    weights = torch.arange(output.numel(), device=output.device).cos().to(output.dtype).view(output.shape)
    return torch.autograd.grad((output * weights).sum(), inputs)


def assert_close(actual, expected, slack=1):
    """Equal to within ``slack`` times ``TOLERANCE``, relative to the largest entry where that is above 1."""
    if isinstance(actual, Tensor):
        actual, expected = [actual], [expected]
    for x, y in zip(actual, expected, strict=True):
        tolerance = 1e-5 if x.is_cuda and x.dtype == torch.float32 else TOLERANCE[x.dtype]
        torch.testing.assert_close(x, y, rtol=0, atol=slack * tolerance * max(1.0, y.abs().max().item()))


def shake(model, seed=0, size=0.5):
    """Give every parameter of ``model`` other numbers, biases and norms too, so that none is 0 or 1 as at birth."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p)
            p.add_(noise * size * (p.shape[-1] ** -0.5 if p.ndim > 1 else 0.2))
    return model


def ids_of(*shape, vocab_size, seed=0, low=0):
    """Reproducible token ids."""
    return torch.randint(low, vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def cut(model, off):
    """A copy of a language model whose W_o reads nothing of the heads (layer, head) of ``off``."""
    model = copy.deepcopy(model)
    stack, width = getattr(model, "encoder", model), model.config.d_model // model.config.n_heads
    for layer, head in off:
        stack.blocks[layer].attention.W_o.weight.data[:, head * width : (head + 1) * width] = 0
    return model
