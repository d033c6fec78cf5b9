"""ScaleExplorer: parameters and training tokens on a plane, what they cost, and where the published models lie."""

from __future__ import annotations

import math
from typing import Any

import traitlets as t

from .. import scale
from .base import Explorer, table

LIMITS = {"parameters": (1e6, 1e13), "tokens": (2e7, 2e14)}  # so that 20 tokens a parameter is the diagonal
THROUGHPUT = 400e12
DAY = 86_400  # seconds
MOST = 40  # models


class ScaleExplorer(Explorer):
    """A point that is moved: N parameters and D training tokens, both on logarithmic scales.

    Beside it stand the compute C = 6 N D (Kaplan et al., 2020; :func:`llmbook.scale.training_flops`), the GPU-days that
    this takes, the tokens for each parameter, the memory of the weights at two bytes a parameter, the nearest model, by
    the distance in the drawing, and the optimum for the same compute (Hoffmann et al., 2022;
    :func:`llmbook.scale.compute_optimal`). The dashed line joins all points of the same compute. Every argument is also
    a trait: read it, set it, ``observe`` it.

    Args:
        parameters: N, from 1e6 to 1e13.
        tokens: D, from 2e7 to 2e14.
        throughput: floating-point operations that one GPU makes in a second of training. Unless given 400e12, which
            is what an H100 made in the training of Llama 3 405B (Grattafiori et al., 2024, table 4: 380e12 to 430e12).
        models: triples of a name, its parameters and its training tokens, at most 40; unless given, the models of
            :data:`llmbook.scale.PUBLISHED` whose papers say how much they read.
        lang: ``"en"`` or ``"zh"``; the language of the page unless given.

    Raises:
        traitlets.TraitError: a number is out of its range, or a model is no such triple; the message names the
            argument. What the explorer held before stays.
    """

    files = "scale"
    state = ("parameters", "tokens", "throughput", "models")

    parameters = t.Float(175e9).tag(sync=True)
    tokens = t.Float(300e9).tag(sync=True)
    throughput = t.Float(THROUGHPUT).tag(sync=True)
    models = t.List(t.Tuple(t.Unicode(), t.Float(), t.Float())).tag(sync=True)

    def __init__(self, parameters: float = 175e9, tokens: float = 300e9, *, models: Any = None, **kwargs: Any) -> None:
        if models is None:
            models = [(m.name, m.parameters, m.tokens) for m in scale.PUBLISHED if m.tokens]
        super().__init__(parameters=parameters, tokens=tokens, models=[tuple(m) for m in models], **kwargs)

    @t.validate("parameters", "tokens")
    def _in_range(self, proposal: Any) -> float:
        return _within(proposal["trait"].name, proposal["value"], *LIMITS[proposal["trait"].name])

    @t.validate("throughput")
    def _positive(self, proposal: Any) -> float:
        if not 0 < proposal["value"] < math.inf:
            raise t.TraitError(f"throughput: expected operations a second above 0, got {proposal['value']!r}")
        return float(proposal["value"])

    @t.validate("models")
    def _known(self, proposal: Any) -> Any:
        if not 1 <= len(proposal["value"]) <= MOST:
            raise t.TraitError(f"models: expected 1 to {MOST}, got {len(proposal['value'])}")
        for name, parameters, tokens in proposal["value"]:
            if not name.strip():
                raise t.TraitError(f"models: expected a name for each, got {name!r}")
            _within(f"models: parameters of {name}", parameters, *LIMITS["parameters"])
            _within(f"models: tokens of {name}", tokens, *LIMITS["tokens"])
        return proposal["value"]

    @property
    def flops(self) -> float:
        """C = 6 N D of what the explorer shows now."""
        return scale.training_flops(self.parameters, self.tokens)

    @property
    def gpu_days(self) -> float:
        """The days that one GPU would take for it, at ``throughput``."""
        return self.flops / self.throughput / DAY

    @property
    def nearest(self) -> str:
        """The name of the model that lies nearest in the drawing."""

        def distance(model: tuple[str, float, float]) -> float:
            return math.hypot(math.log10(model[1] / self.parameters), math.log10(model[2] / self.tokens))

        return str(min(self.models, key=distance)[0])

    def __repr__(self) -> str:
        return (f"ScaleExplorer(parameters={self.parameters:g}, tokens={self.tokens:g}, flops={self.flops:.3g}, "
                f"{len(self.models)} models)")  # fmt: skip

    def fallback(self) -> str:
        """The models as a table: parameters, tokens, compute, tokens for each parameter."""
        rows = ([name, f"{n:.3g}", f"{d:.3g}", f"{scale.training_flops(n, d):.3g}", f"{d / n:.3g}"]
                for name, n, d in [("•", self.parameters, self.tokens), *self.models])  # fmt: skip
        return table(["", "N", "D", "C = 6 N D", "D / N"], *rows)


def _within(what: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise t.TraitError(f"{what}: expected a number from {low:g} to {high:g}, got {value!r}")
    return float(value)
