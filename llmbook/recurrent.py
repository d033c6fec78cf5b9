"""Recurrent networks: RNN, GRU and LSTM written out, and the language model that is made of them.

A recurrent network reads one token after the other and keeps what it has read in a state of fixed size:

    state_t = cell(x_t, state_{t−1})          h_t = the part of state_t that is shown

What depends on the input alone is computed for the whole sequence in one product; only the product with the state
has to wait its turn.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from llmbook.checks import check_ids, check_sizes

State = tuple[Tensor, ...]
"""The state of one layer: tensors ``(B, d_hidden)``, of which the first, h, is the layer's output."""


class Cell(nn.Module):
    """One layer of a recurrent network: what :class:`RNNCell`, :class:`GRUCell` and :class:`LSTMCell` share.

    ``W_x`` and ``W_h`` each hold the ``n_gates`` matrices of the cell's equations one below the other, with biases.

    Args:
        d_in: width of the input.
        d_hidden: width of the state.

    Raises:
        ValueError: a width is not a positive integer.
    """

    n_gates: ClassVar[int]
    n_states: ClassVar[int] = 1

    def __init__(self, d_in: int, d_hidden: int) -> None:
        super().__init__()
        check_sizes(d_in=d_in, d_hidden=d_hidden)
        self.d_in, self.d_hidden = d_in, d_hidden
        self.W_x = nn.Linear(d_in, self.n_gates * d_hidden)
        self.W_h = nn.Linear(d_hidden, self.n_gates * d_hidden)

    def step(self, z: Tensor, state: State) -> State:
        """The equations of the cell: the state after one step.

        Args:
            z: ``(B, n_gates · d_hidden)``, the projected input ``W_x(x_t)``.
            state: the state before.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """All steps of a sequence.

        Args:
            x: ``(B, T, d_in)`` with ``T >= 1``.
            state: the state before the first step; zeros unless given.

        Returns:
            ``(output, state)``: every h_t ``(B, T, d_hidden)``, and the state after the last step.
        """
        projected = self.W_x(x)  # (B, T, n_gates · d_hidden)
        state = state or (projected.new_zeros(len(x), self.d_hidden),) * self.n_states
        outputs = []
        for z in projected.unbind(1):  # projected[:, t] would cost a gradient of the size of the whole at every step
            state = self.step(z, state)
            outputs.append(state[0])
        return torch.stack(outputs, 1), state


class RNNCell(Cell):
    """The simple recurrent network (Elman, 1990), with tanh where Elman has the logistic function.

        h_t = tanh(W_x x_t + W_h h_{t−1})

    (Here and below each W stands for a matrix and its bias.)
    """

    n_gates = 1

    def step(self, z: Tensor, state: State) -> State:
        (h,) = state
        return (torch.tanh(z + self.W_h(h)),)


class GRUCell(Cell):
    """The gated recurrent unit (Cho et al., 2014), in the variant of torch and cuDNN.

        r_t = σ(W_xr x_t + W_hr h_{t−1})                    what of the past the proposal may see
        u_t = σ(W_xu x_t + W_hu h_{t−1})                    what of the past stays
        n_t = tanh(W_xn x_t + r_t ⊙ (W_hn h_{t−1}))         the proposal
        h_t = (1 − u_t) ⊙ n_t + u_t ⊙ h_{t−1}

    In the original the reset gate acts before the product, ``W_hn (r_t ⊙ h_{t−1})``, so that this product must wait
    for r_t; here all three are one. The rows of ``W_x`` and ``W_h`` stand in the order r, u, n.
    """

    n_gates = 3

    def step(self, z: Tensor, state: State) -> State:
        (h,) = state
        x_r, x_u, x_n = z.chunk(3, -1)
        h_r, h_u, h_n = self.W_h(h).chunk(3, -1)
        r, u = torch.sigmoid(x_r + h_r), torch.sigmoid(x_u + h_u)
        n = torch.tanh(x_n + r * h_n)
        return ((1 - u) * n + u * h,)


class LSTMCell(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber, 1997), with the forget gate of Gers et al. (2000).

        i_t = σ(W_xi x_t + W_hi h_{t−1})                    what is written
        f_t = σ(W_xf x_t + W_hf h_{t−1})                    what is kept
        g_t = tanh(W_xg x_t + W_hg h_{t−1})                 the proposal
        o_t = σ(W_xo x_t + W_ho h_{t−1})                    what is shown
        c_t = f_t ⊙ c_{t−1} + i_t ⊙ g_t
        h_t = o_t ⊙ tanh(c_t)

    The memory c changes by sums and gates, not through a matrix and tanh, so that its gradient need not vanish. The
    state is ``(h, c)``; the rows of ``W_x`` and ``W_h`` stand in the order i, f, g, o.
    """

    n_gates, n_states = 4, 2

    def step(self, z: Tensor, state: State) -> State:
        h, c = state
        i, f, g, o = (z + self.W_h(h)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


CELLS: dict[str, type[Cell]] = {"rnn": RNNCell, "gru": GRUCell, "lstm": LSTMCell}


class Recurrent(nn.Module):
    """A recurrent network of one or more layers, each reading the outputs of the layer below.

    Args:
        cell: ``"rnn"``, ``"gru"`` or ``"lstm"``.
        d_in: width of the input.
        d_hidden: width of every layer's state and output.
        n_layers: number of layers.
        dropout: share of the numbers between two layers that is dropped in training.

    Raises:
        ValueError: a size is not a positive integer, or ``cell`` is not one of the three.
    """

    def __init__(self, cell: str, d_in: int, d_hidden: int, n_layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell!r}")
        check_sizes(n_layers=n_layers)
        self.d_in, self.d_hidden, self.n_states = d_in, d_hidden, CELLS[cell].n_states
        self.cells = nn.ModuleList(CELLS[cell](d_hidden if i else d_in, d_hidden) for i in range(n_layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, state: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """Read a batch of sequences.

        Args:
            x: ``(B, T, d_in)`` with ``T >= 1``.
            state: the state of each layer before the first step; zeros unless given.

        Returns:
            ``(output, state)``: the outputs ``(B, T, d_hidden)`` of the last layer, and the state of each layer after
            the last step, as new tensors.

        Raises:
            ValueError: the shapes do not fit.
        """
        self._check(x, state)
        after = []
        for i, cell in enumerate(self.cells):
            x, new = cell(self.dropout(x) if i else x, state[i] if state else None)  # (B, T, d_hidden)
            after.append(new)
        return x, after

    def _check(self, x: Tensor, state: list[State] | None) -> None:
        if x.ndim != 3 or x.shape[1] == 0 or x.shape[-1] != self.d_in:
            raise ValueError(f"x: expected shape (B, T, d_in={self.d_in}) with T >= 1, got {tuple(x.shape)}")
        expected = [[(len(x), self.d_hidden)] * self.n_states] * len(self.cells)
        got = expected if state is None else [[tuple(s.shape) for s in layer] for layer in state]
        if got != expected:
            raise ValueError(f"state: expected shapes {expected}, got {got}")

    @classmethod
    def from_torch(cls, layer: nn.RNN | nn.GRU | nn.LSTM) -> Recurrent:
        """The same network as ``layer``, with its weights copied.

        Raises:
            ValueError: ``layer`` is of a kind that this class has not: not batch-first, of two directions, without
                biases, with a projection (``proj_size``), or with ReLU.
        """
        for name, value in {"batch_first": True, "bidirectional": False, "bias": True, "proj_size": 0}.items():
            if getattr(layer, name) != value:
                raise ValueError(f"layer: expected {name}={value}, got {name}={getattr(layer, name)}")
        if layer.mode == "RNN_RELU":
            raise ValueError("layer: expected nonlinearity='tanh', got nonlinearity='relu'")
        kind = layer.mode.removesuffix("_TANH").lower()
        new = cls(kind, layer.input_size, layer.hidden_size, layer.num_layers, layer.dropout)
        names = {"W_x.weight": "weight_ih", "W_x.bias": "bias_ih", "W_h.weight": "weight_hh", "W_h.bias": "bias_hh"}
        new.to(next(layer.parameters()))
        for i, cell in enumerate(new.cells):
            cell.load_state_dict({ours: getattr(layer, f"{theirs}_l{i}") for ours, theirs in names.items()})
        return new.train(layer.training)


class RecurrentCache:
    """The :class:`~llmbook.lm.Cache` of :class:`RecurrentLM`: its state, which does not grow with what was read."""

    def __init__(self) -> None:
        self.state: list[State] | None = None
        self.length = 0

    def reorder(self, index: Tensor) -> None:
        """Keep the rows ``index`` of the batch, in that order."""
        if self.state is not None:
            self.state = [tuple(s[index] for s in layer) for layer in self.state]


class RecurrentLM(nn.Module):
    """A recurrent language model (Mikolov et al., 2010): embedding, :class:`Recurrent`, and a score for every token.

    In training, dropout acts on what passes from layer to layer, never on what passes from step to step (Zaremba,
    Sutskever & Vinyals, 2014).

    Args:
        vocab_size: number of tokens.
        d_model: width of the embedding and of every layer.
        n_layers: number of layers.
        cell: ``"rnn"``, ``"gru"`` or ``"lstm"``.
        dropout: share of the numbers that is dropped in training.
        tie: whether embedding and output are one matrix (Press & Wolf, 2017).

    Raises:
        ValueError: a size is not a positive integer, or ``cell`` is not one of the three.
    """

    max_len: int | None = None

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        n_layers: int = 1,
        cell: str = "lstm",
        dropout: float = 0.0,
        tie: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, d_model=d_model)
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.recurrent = Recurrent(cell, d_model, d_model, n_layers, dropout)
        self.head = nn.Linear(d_model, vocab_size)
        self.dropout = nn.Dropout(dropout)
        if tie:
            self.embedding.weight = self.head.weight

    def forward(self, ids: Tensor, cache: RecurrentCache | None = None) -> Tensor:
        """The scores of every next token.

        Args:
            ids: token ids ``(B, T)``.
            cache: the state after what ``ids`` continue; it is updated.

        Returns:
            logits ``(B, T, V)``.

        Raises:
            TypeError, ValueError: ``ids`` is not a batch of token ids, or not of the size of the cache's batch.
        """
        check_ids(ids, self.vocab_size)
        x, state = self.recurrent(self.dropout(self.embedding(ids)), cache.state if cache else None)
        if cache is not None:
            cache.state, cache.length = state, cache.length + ids.shape[1]
        return self.head(self.dropout(x))

    def new_cache(self) -> RecurrentCache:
        """A cache that has read nothing."""
        return RecurrentCache()
