"""How large a Transformer is, and what it costs to train: from the sizes of its layers, beside what its paper says.

parameters   the matrices, biases and norms, counted         (:meth:`Shape.parameters`)
compute      about 6 operations a parameter and token        (:func:`training_flops`; Kaplan et al., 2020)
optimum      about 20 tokens a parameter for a given compute (:func:`compute_optimal`; Hoffmann et al., 2022)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from llmbook.checks import check_sizes

TOKENS_PER_PARAMETER = 20
"""Of a model that is compute-optimal by Hoffmann et al. (2022), table 3, to one digit."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a Transformer, as papers give them.

    Attributes:
        n_layers: blocks; of an encoder–decoder those of the encoder, and as many in the decoder.
        d_model: width.
        d_ff: inner width of the feed-forward sublayer.
        vocab_size: number of tokens.
        n_heads: queries' heads.
        d_head: width of a head; ``d_model / n_heads`` unless given.
        n_kv_heads: heads of keys and values; ``n_heads`` unless given (1: multi-query attention).
        max_len: learnt positions; 0 for none.
        n_types: learnt token types.
        gated: whether the feed-forward sublayer has three matrices (SwiGLU) instead of two.
        biases: whether linear layers and norms have biases.
        tied: whether the output is the embedding matrix; else it has one of its own.
        cross: whether there is a decoder that also attends to the encoder.
        relative: whether each layer projects relative positions (Dai et al., 2019).
        pooler: whether a dense layer follows the first token, as in BERT.

    Raises:
        ValueError: a size is not a positive integer, or ``d_model`` is no multiple of ``n_heads`` and there is no
            ``d_head``.
    """

    n_layers: int
    d_model: int
    d_ff: int
    vocab_size: int
    n_heads: int
    d_head: int | None = None
    n_kv_heads: int | None = None
    max_len: int = 0
    n_types: int = 0
    gated: bool = False
    biases: bool = True
    tied: bool = True
    cross: bool = False
    relative: bool = False
    pooler: bool = False

    def __post_init__(self) -> None:
        check_sizes(**{name: getattr(self, name) for name in ("n_layers", "d_model", "d_ff", "vocab_size", "n_heads")})
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(f"d_model: expected a multiple of n_heads={self.n_heads}, or d_head, got {self.d_model}")

    def parts(self) -> dict[str, int]:
        """The parameters of each part: ``embeddings``, ``attention``, ``feed-forward``, ``norms``, ``output``."""
        d, d_head = self.d_model, self.d_head or self.d_model // self.n_heads
        wide, narrow = self.n_heads * d_head, (self.n_kv_heads or self.n_heads) * d_head
        attention = 2 * d * wide + 2 * d * narrow + self.biases * (wide + 2 * narrow + d) + self.relative * d * wide
        up = 2 if self.gated else 1
        feed_forward = (up + 1) * d * self.d_ff + self.biases * (up * self.d_ff + d)
        norm = (1 + self.biases) * d
        attentions, norms, feed_forwards = (3, 5, 2) if self.cross else (1, 2, 1)
        return {
            "embeddings": (self.vocab_size + self.max_len + self.n_types) * d,
            "attention": self.n_layers * attentions * attention,
            "feed-forward": self.n_layers * feed_forwards * feed_forward,
            "norms": (self.n_layers * norms + 1) * norm,
            "output": (0 if self.tied else self.vocab_size * d) + self.pooler * (d * d + d),
        }

    def parameters(self) -> int:
        """The number of parameters."""
        return sum(self.parts().values())


def training_flops(parameters: float, tokens: float) -> float:
    """Operations of a training run: 2 for each parameter and token forward, twice that back (Kaplan et al., 2020).

    What attention does with the tokens themselves, about ``n_layers · T · d_model`` a token, is left out.
    """
    return 6 * parameters * tokens


def compute_optimal(flops: float) -> tuple[float, float]:
    """The parameters and tokens that make the most of ``flops``, by the rule of 20 tokens a parameter.

    (Hoffmann et al., 2022: both grow like the square root of the compute.)

    Raises:
        ValueError: ``flops`` is not positive.
    """
    if not flops > 0:
        raise ValueError(f"flops: expected a positive number, got {flops}")
    parameters = (flops / 6 / TOKENS_PER_PARAMETER) ** 0.5
    return parameters, TOKENS_PER_PARAMETER * parameters


class Published(NamedTuple):
    """A model as its paper has it.

    Attributes:
        name: of the model.
        year: of the first publication.
        kind: ``"encoder"``, ``"decoder"`` or ``"encoder-decoder"``.
        shape: the sizes.
        parameters: the total that the paper gives.
        tokens: read in training, in all; ``None`` where the paper does not say.
        flops: of the training run, where the paper gives it.
        source: key in the bibliography, and the place.
    """

    name: str
    year: int
    kind: str
    shape: Shape
    parameters: float
    tokens: float | None
    flops: float | None
    source: tuple[str, str]


PUBLISHED = (
    Published("Transformer base", 2017, "encoder-decoder", Shape(6, 512, 2048, 37_000, 8, cross=True), 65e6, None, None,
              ("vaswani2017", "table 3")),
    Published("Transformer big", 2017, "encoder-decoder", Shape(6, 1024, 4096, 37_000, 16, cross=True), 213e6, None,
              2.3e19, ("vaswani2017", "tables 2 and 3")),
    Published("GPT", 2018, "decoder", Shape(12, 768, 3072, 40_478, 12, max_len=512), 117e6, None, None,
              ("radford2018", "section 4.1; the total is in Radford et al., 2019, table 2")),
    Published("BERT base", 2018, "encoder", Shape(12, 768, 3072, 30_522, 12, max_len=512, n_types=2, pooler=True),
              110e6, None, None, ("devlin2019", "section 3")),
    Published("BERT large", 2018, "encoder", Shape(24, 1024, 4096, 30_522, 16, max_len=512, n_types=2, pooler=True),
              340e6, None, None, ("devlin2019", "section 3")),
    Published("GPT-2", 2019, "decoder", Shape(48, 1600, 6400, 50_257, 25, max_len=1024), 1542e6, None, None,
              ("radford2019", "table 2")),
    Published("GPT-3", 2020, "decoder", Shape(96, 12288, 49152, 50_257, 96, max_len=2048), 175e9, 300e9, 3.14e23,
              ("brown2020", "tables 2.1 and D.1")),
    Published("Gopher", 2021, "decoder", Shape(80, 16384, 65536, 32_000, 128, relative=True), 280e9, 300e9, 5.76e23,
              ("rae2021", "table 1; the compute is in Hoffmann et al., 2022")),
    Published("Chinchilla", 2022, "decoder", Shape(80, 8192, 32768, 32_000, 64, relative=True), 70e9, 1.4e12, 5.76e23,
              ("hoffmann2022", "tables 1 and 4, section 4.1")),
    Published("PaLM", 2022, "decoder", Shape(118, 18432, 73728, 256_000, 48, d_head=256, n_kv_heads=1, gated=True,
              biases=False), 540e9, 780e9, None, ("chowdhery2023", "table 1 and section 3")),
    Published("LLaMA", 2023, "decoder", Shape(80, 8192, 22016, 32_000, 64, gated=True, biases=False, tied=False),
              65.2e9, 1.4e12, None, ("touvron2023", "table 2")),
    Published("Llama 3", 2024, "decoder", Shape(126, 16384, 53248, 128_256, 128, n_kv_heads=8, gated=True,
              biases=False, tied=False), 405e9, 15.6e12, 3.8e25, ("grattafiori2024", "section 1 and table 3")),
)  # fmt: skip
"""Models that made history, in the order of their publication."""
