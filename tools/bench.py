"""How fast the package is beside what a reader would pick instead: one thread, paired runs, median ratios.

Each pair is measured in turns within one run, so that whatever else the machine does falls on both. The first of a
pair is ours; a ratio above 1 says that ours is faster. Dense is compared with dense; what is saved by computing less
is a pair of its own.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import transformers
from torch import nn
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from llmbook.attention import MultiHeadAttention
from llmbook.decoder import CausalLM
from llmbook.generate import generate
from llmbook.lm import next_token_loss
from llmbook.mlm import MaskedLM, mask_tokens, mlm_loss
from llmbook.recurrent import Recurrent
from llmbook.transformer import EncoderConfig

Run = Callable[[], object]
V, D, H, LAYERS, B, T = 4000, 128, 4, 4, 16, 128
CONFIG = EncoderConfig(vocab_size=V, d_model=D, n_heads=H, n_layers=LAYERS, d_ff=4 * D, max_len=T)


def training_step(model: nn.Module, loss: Callable[[], torch.Tensor]) -> Run:
    """Forward, backward and an update by the optimiser that the book uses."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def masked_lm() -> dict[str, tuple[Run, Run]]:
    """A training step of a BERT."""
    ids = torch.randint(4, V, (B, T))
    inputs, positions, targets = mask_tokens(ids, mask_id=3, vocab_size=V, special_ids=range(4))
    labels = torch.full_like(ids, -100).scatter(1, positions, targets)
    sparse, dense = (MaskedLM(CONFIG).train() for _ in range(2))
    theirs = BertForMaskedLM(BertConfig(
        vocab_size=V, hidden_size=D, num_hidden_layers=LAYERS, num_attention_heads=H, intermediate_size=4 * D,
        max_position_embeddings=T, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)).train()  # fmt: skip
    ours = training_step(sparse, lambda: mlm_loss(sparse(inputs, positions), targets))
    ours_dense = training_step(dense, lambda: mlm_loss(dense(inputs), labels))
    hf = training_step(theirs, lambda: theirs(inputs, labels=labels).loss)
    return {
        "MaskedLM at masked positions / BertForMaskedLM": (ours, hf),
        "MaskedLM dense / BertForMaskedLM": (ours_dense, hf),
        "MaskedLM at masked positions / MaskedLM dense": (ours, ours_dense),
    }


def causal_lm() -> dict[str, tuple[Run, Run]]:
    """A training step of a GPT, and generation with the cache."""
    ids = torch.randint(4, V, (B, T))
    ours = CausalLM(CONFIG).train()
    theirs = GPT2LMHeadModel(GPT2Config(
        vocab_size=V, n_embd=D, n_layer=LAYERS, n_head=H, n_positions=T, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, activation_function="gelu")).train()  # fmt: skip
    prompt, options = ids[:1, :8], {"do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    return {
        "CausalLM / GPT2LMHeadModel, a training step": (
            training_step(ours, lambda: next_token_loss(ours(ids), ids)),
            training_step(theirs, lambda: theirs(ids, labels=ids).loss),
        ),
        "generate / transformers' generate, 100 tokens, greedy": (
            lambda: generate(ours, prompt, 100, temperature=0),
            lambda: theirs.generate(prompt, max_new_tokens=100, **options),
        ),
        "generate with / without the cache, 100 tokens": (
            lambda: generate(ours, prompt, 100, temperature=0),
            lambda: generate(ours, prompt, 100, temperature=0, cache=False),
        ),
    }


def layers() -> dict[str, tuple[Run, Run]]:
    """Single layers, forward and backward, beside torch's."""
    x = torch.randn(B, T, D, requires_grad=True)
    theirs = nn.MultiheadAttention(D, H, batch_first=True)
    ours = MultiHeadAttention.from_torch(theirs)
    pairs: dict[str, tuple[Run, Run]] = {
        "MultiHeadAttention / nn.MultiheadAttention": (
            lambda: ours(x).sum().backward(),
            lambda: theirs(x, x, x, need_weights=False)[0].sum().backward(),
        )
    }
    for kind in (nn.RNN, nn.GRU, nn.LSTM):
        pairs[f"Recurrent / nn.{kind.__name__}"] = recurrent(kind(D, D, batch_first=True), x)
    return pairs


def recurrent(theirs: nn.RNN | nn.GRU | nn.LSTM, x: torch.Tensor) -> tuple[Run, Run]:
    """The same recurrent layer, ours and torch's."""
    ours = Recurrent.from_torch(theirs)
    return lambda: ours(x)[0].sum().backward(), lambda: theirs(x)[0].sum().backward()


def paired(ours: Run, theirs: Run, rounds: int) -> tuple[float, float, float]:
    """Median seconds of both, and the median of the ratios theirs / ours."""
    times: list[tuple[float, float]] = []
    for i in range(rounds + 2):
        order = (ours, theirs) if i % 2 else (theirs, ours)
        taken = dict(zip(order, map(clock, order), strict=True))
        times.append((taken[ours], taken[theirs]))
    times = times[2:]  # the first two warm up
    mine, other = zip(*times, strict=True)
    return statistics.median(mine), statistics.median(other), statistics.median(b / a for a, b in times)


def clock(run: Run) -> float:
    """Seconds that ``run`` takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Measure every pair and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, help="measured runs of each side (default 11)")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    print(f"torch {torch.__version__}, 1 thread; d_model={D}, {LAYERS} layers, {H} heads, V={V}, batch {B} x {T}")
    print(f"{'ours / theirs':<56}{'ours':>10}{'theirs':>10}{'ratio':>8}")
    for name, (ours, theirs) in {**masked_lm(), **causal_lm(), **layers()}.items():
        mine, other, ratio = paired(ours, theirs, rounds)
        print(f"{name:<56}{mine * 1e3:>7.1f} ms{other * 1e3:>7.1f} ms{ratio:>8.2f}")


if __name__ == "__main__":
    main()
