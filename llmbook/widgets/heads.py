"""HeadsExplorer: what each attention head of a trained model reads, layer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import traitlets as t

from .base import Explorer, _items, table

LONGEST = 64  # tokens
DIGITS = 3  # that are kept of a weight
SLACK = 1e-2  # by which a row's sum may differ from 1
LAYER = "layers of weights (B, H, T_q, T_k) or (H, T_q, T_k)"

Array = np.ndarray[Any, np.dtype[Any]]


class Maps(t.TraitType[list[list[list[list[float]]]], Any]):
    """A trait that holds the weights of every head as nested lists ``(L, H, T_q, T_k)``, rounded to three decimals.

    Takes what :class:`HeadsExplorer` takes, and of a batch the first row.
    """

    info_text = "attention weights (L, H, T_q, T_k)"

    def validate(self, obj: Any, value: Any) -> list[list[list[list[float]]]]:
        """Convert ``value``; raises TraitError naming the trait and what is wrong."""
        name, layers = self.name, _layers(self.name, value)
        if len({layer.shape for layer in layers}) > 1:
            raise t.TraitError(f"{name}: expected layers of one shape, got {[layer.shape for layer in layers]}")
        maps = np.stack(layers)
        if (n := max(maps.shape[-2:])) > LONGEST:
            raise t.TraitError(f"{name}: expected at most {LONGEST} tokens, got {n}")
        if (wrong := ~(np.isfinite(maps) & (maps >= 0))).any():
            raise t.TraitError(f"{name}: expected finite numbers not below 0, got {maps[wrong][0]}")
        rounded = maps.round(DIGITS)
        _check_sums(name, maps, maps.shape[-1] / 2 / 10**DIGITS if (rounded == maps).all() else 0.0)
        kept: list[list[list[list[float]]]] = rounded.tolist()
        return kept


def _check_sums(name: str | None, maps: Array, slack: float) -> None:
    """Each row sums to 1, or is all 0; ``slack`` is what rounding may take from what is put in again."""
    off = np.where((maps == 0).all(-1), 0, np.abs(maps.sum(-1) - 1))
    if off.max() > max(SLACK, slack + 1e-9):
        layer, head, row = (int(i) for i in np.unravel_index(off.argmax(), off.shape))
        raise t.TraitError(f"{name}: expected rows that sum to 1 or are all 0, got "
                           f"{maps[layer, head, row].sum():.4g} in layer {layer}, head {head}, row {row}")  # fmt: skip


def _layers(name: str | None, value: Any, row: int | None = None) -> list[Array]:
    """The weights of each layer ``(H, T_q, T_k)``; of a batch those of ``row``, or of the first."""
    n_dims = getattr(value, "ndim", 0)
    if n_dims in (2, 3) or (n_dims == 4 and row is not None):
        arrays = [_array(name, value)]
    else:
        arrays = [_array(name, item) for item in _items(name, list(value) if n_dims else value, "layers")]
    if len({array.shape for array in arrays}) == 1 and arrays[0].ndim in (1, 2):
        arrays = [np.stack(arrays)]  # the heads of one layer, or the rows of one map
    return [_layer(name, array, row) for array in arrays]


def _layer(name: str | None, array: Array, row: int | None) -> Array:
    """The weights of one layer ``(H, T_q, T_k)`` from those of a batch, of all heads or of one."""
    if array.size == 0 or array.ndim not in (2, 3, 4):
        raise t.TraitError(f"{name}: expected {LAYER}, got {array.shape}")
    if array.ndim == 4:
        _place("row", row or 0, len(array))
        array = array[row or 0]
    elif row is not None:
        raise t.TraitError(f"row: expected none for weights without a batch {array.shape}, got {row!r}")
    return (array[None] if array.ndim == 2 else array).astype(float)


def _array(name: str | None, value: Any) -> Array:
    """A tensor, an array or nested lists of either, as an array of real numbers."""
    try:
        array = _plain(value)
    except (ValueError, RuntimeError, TypeError):
        raise t.TraitError(f"{name}: expected {LAYER}, got what makes no array") from None
    if array.dtype.kind not in "fiu":
        raise t.TraitError(f"{name}: expected {LAYER}, got {array.flatten().tolist()[0]!r} in one")
    return array


def _plain(value: Any) -> Array:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        return np.asarray(value.double() if value.is_floating_point() else value)  # numpy has no bfloat16
    if isinstance(value, list | tuple) and not all(isinstance(x, int | float) for x in value):
        return np.array([_plain(x) for x in value])
    return np.array(value)


class HeadsExplorer(Explorer):
    """A small map of every head; the chosen one large, as a matrix or as lines, alone or beside a second.

    Choosing a query token lists the tokens that it looks at most. Below each head stand four means over its rows: the
    weight on the token itself, on the one before and on the one after, and the effective number of keys exp(H), where
    H is the entropy of a row in nats; rows that are all 0 do not count. Layers, heads and tokens are numbered from 0.
    Every argument but ``row`` is also a trait: read it, set it, ``observe`` it. To show another sentence, set
    ``weights`` and ``tokens`` inside ``with explorer.hold_trait_notifications():``.

    The weights of any model will do, each of these in evaluation mode (dropout would leave rows that do not sum to 1):

    .. code-block:: python

        with capture(model) as maps:  # of this book
            model(ids)
        HeadsExplorer(maps, tokens, layer=1, head=3)

        model = BertModel.from_pretrained(folder, attn_implementation="eager")  # of Hugging Face; GPT2Model, …
        maps = model(ids, output_attentions=True).attentions
        HeadsExplorer(maps, tokens)

        attention = torch.nn.MultiheadAttention(d_model, n_heads, batch_first=True)
        _, weights = attention(x, memory, memory, average_attn_weights=False)
        HeadsExplorer(weights, tokens, keys=memory_tokens, row=0)  # cross-attention, the first of a batch

    Args:
        weights: a list or tuple of L layers, each ``(B, H, T_q, T_k)`` or ``(H, T_q, T_k)``: tensors on any device,
            of any precision, with a gradient or without, numpy arrays, nested lists; or all of them as one,
            ``(L, H, T_q, T_k)``; or one layer alone, ``(H, T_q, T_k)``, or one head, ``(T_q, T_k)``. Each row sums to
            1, or is all 0: a query that may attend to no key. Kept to three decimals, at up to 7 bytes a weight in a
            notebook or page: 4.1 MB for 12 layers of 12 heads over 64 tokens; ``maps[:2]`` takes a sixth of that.
        tokens: the T_q tokens of the queries, at most 64.
        keys: the T_k tokens of the keys, at most 64, where they are others than those of the queries; there is then
            neither a token itself nor one before or after, and these three means are left out. The trait is called
            ``key_tokens``, since ``keys`` is one that every widget has.
        row: which row of a batch is shown; the first unless given. Given with one array of four dimensions, it says
            that this is a batch, one layer ``(B, H, T_q, T_k)``, and not L layers.
        layer, head: the head that is shown large.
        compare: ``(layer, head)`` of the one beside it; none unless given.
        view: ``"matrix"`` or ``"lines"``.
        query: the number of the token whose row stands out; none unless given.
        lang: ``"en"`` or ``"zh"``; the language of the page unless given.

    Raises:
        traitlets.TraitError: the weights have another shape, are negative or not finite, or have a row that neither
            sums to 1 (to 1e-2) nor is all 0; there are more than 64 tokens or keys, or not T_q and T_k of them; there
            is no such row, layer, head or token. The message names the argument. What the explorer held before stays.
    """

    files = "heads"
    state = ("weights", "tokens", "key_tokens", "layer", "head", "compare", "view", "query")

    weights = Maps([[[[1.0]]]]).tag(sync=True)
    tokens = t.List(t.Unicode(), [""]).tag(sync=True)
    key_tokens = t.List(t.Unicode(), None, allow_none=True).tag(sync=True)
    layer = t.Int(0).tag(sync=True)
    head = t.Int(0).tag(sync=True)
    compare = t.Tuple(t.Int(), t.Int(), default_value=None, allow_none=True).tag(sync=True)
    view = t.Enum(["matrix", "lines"], "matrix").tag(sync=True)
    query = t.Int(None, allow_none=True).tag(sync=True)

    def __init__(
        self,
        weights: Any,
        tokens: Any,
        *,
        keys: Any = None,
        row: int | None = None,
        layer: int = 0,
        head: int = 0,
        **kwargs: Any,
    ) -> None:
        weights = weights if row is None else _layers("weights", weights, row)
        if keys is not None:
            kwargs["key_tokens"] = keys
        super().__init__(weights=weights, tokens=tokens, layer=layer, head=head, **kwargs)

    @t.validate("weights", "tokens", "key_tokens", "layer", "head", "compare", "query")
    def _fits(self, proposal: Any) -> Any:
        now = {name: getattr(self, name) for name in self.state} | {proposal["trait"].name: proposal["value"]}
        one = now["weights"][0][0]
        n_layers, n_heads, n, _ = shape = (len(now["weights"]), len(now["weights"][0]), len(one), len(one[0]))
        _check_tokens(now["tokens"], now["key_tokens"], shape)
        _place("layer", now["layer"], n_layers)
        _place("head", now["head"], n_heads)
        if now["compare"] is not None:
            for number, limit in zip(now["compare"], (n_layers, n_heads), strict=True):
                _place("compare", number, limit)
        if now["query"] is not None:
            _place("query", now["query"], n)
        return proposal["value"]

    def _held(self) -> dict[str, Any]:
        """The state, in which ``key_tokens`` stand only if there are any: stored notebooks have none."""
        return {name: value for name, value in super()._held().items() if name != "key_tokens" or value is not None}

    def __repr__(self) -> str:
        beside = f", compare={self.compare}" if self.compare else ""
        keys = "" if self.key_tokens is None else f", {len(self.key_tokens)} keys"
        return (f"HeadsExplorer({len(self.weights)} layers, {len(self.weights[0])} heads, {len(self.tokens)} tokens"
                f"{keys}, layer={self.layer}, head={self.head}{beside})")  # fmt: skip

    def fallback(self) -> str:
        """The weights of the chosen head as a table: a row a query, a column a key."""
        rows = zip(self.tokens, self.weights[self.layer][self.head], strict=True)
        corner = f"weights[{self.layer}][{self.head}]"
        keys = self.tokens if self.key_tokens is None else self.key_tokens
        return table([corner, *keys], *([token, *(f"{w:.3f}" for w in row)] for token, row in rows))


def _check_tokens(tokens: list[str], keys: list[str] | None, shape: tuple[int, ...]) -> None:
    """One token for each row of the weights, and one for each column."""
    *_, rows, columns = shape
    if (got := len(tokens)) != rows:
        raise t.TraitError(f"tokens: expected one for each of the {rows} rows of the weights {shape}, got {got}")
    if len(tokens if keys is None else keys) != columns:
        given = f"none, and {rows} tokens" if keys is None else len(keys)
        raise t.TraitError(f"keys: expected one for each of the {columns} columns of the weights {shape}, got {given}")


def _place(name: str, number: int, limit: int) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < limit:
        raise t.TraitError(f"{name}: expected a whole number from 0 to {limit - 1}, got {number!r}")
