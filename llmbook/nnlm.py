"""The feed-forward neural language model: a window of tokens, one hidden layer (Bengio et al., 2003)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llmbook.checks import check_ids, check_sizes


class NNLM(nn.Module):
    """The feed-forward neural language model (Bengio et al., 2003, equation 1).

        y = b + W x + U tanh(d + H x)          x = (C(w_{t−n+1}), …, C(w_t))

    C is the embedding, x the embeddings of the last n = ``context`` tokens, oldest first, side by side; y are the
    scores of the token after them. Where a window reaches back beyond the first token, :attr:`start`, a learned
    vector, stands in for each token that is not there.

    Args:
        vocab_size: number of tokens.
        context: n, the number of tokens that are looked at.
        d_model: width of an embedding (m in the paper).
        d_hidden: width of the hidden layer (h in the paper).
        direct: whether there are direct connections, W x.

    Raises:
        ValueError: a size is not a positive integer.
    """

    max_len: int | None = None

    def __init__(self, vocab_size: int, context: int, d_model: int, d_hidden: int, direct: bool = True) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, context=context, d_model=d_model, d_hidden=d_hidden)
        self.vocab_size, self.context = vocab_size, context
        self.C = nn.Embedding(vocab_size, d_model)
        self.start = nn.Parameter(torch.randn(d_model))
        self.H = nn.Linear(context * d_model, d_hidden)  # its bias is d
        self.U = nn.Linear(d_hidden, vocab_size)  # its bias is b
        self.W = nn.Linear(context * d_model, vocab_size, bias=False) if direct else None

    def forward(self, ids: Tensor) -> Tensor:
        """The scores of every next token.

        Args:
            ids: token ids ``(B, T)``; at position t the last ``context`` of them are looked at.

        Returns:
            logits ``(B, T, V)``.

        Raises:
            TypeError, ValueError: ``ids`` is not a batch of token ids.
        """
        check_ids(ids, self.vocab_size)
        before = self.start.expand(len(ids), self.context - 1, -1)
        x = torch.cat([before, self.C(ids)], 1)  # (B, context − 1 + T, d_model)
        x = x.unfold(1, self.context, 1).transpose(-2, -1).flatten(-2)  # (B, T, context · d_model)
        y = self.U(torch.tanh(self.H(x)))
        return y if self.W is None else y + self.W(x)
