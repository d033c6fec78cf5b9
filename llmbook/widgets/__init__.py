"""The explorers: figures that a reader moves, the same in JupyterLab and on the website."""

from .attention import AttentionExplorer
from .block import BlockExplorer
from .bpe import BPEExplorer
from .gradient import GradientExplorer
from .heads import HeadsExplorer
from .loss import LossExplorer
from .masking import MaskingExplorer
from .ngram import NgramExplorer
from .positions import PositionsExplorer
from .scale import ScaleExplorer
from .softmax import SoftmaxExplorer

__all__ = [
    "EXPLORERS",
    "AttentionExplorer",
    "BPEExplorer",
    "BlockExplorer",
    "GradientExplorer",
    "HeadsExplorer",
    "LossExplorer",
    "MaskingExplorer",
    "NgramExplorer",
    "PositionsExplorer",
    "ScaleExplorer",
    "SoftmaxExplorer",
]

EXPLORERS = {
    explorer.__name__: explorer
    for explorer in (
        AttentionExplorer,
        BPEExplorer,
        BlockExplorer,
        GradientExplorer,
        HeadsExplorer,
        LossExplorer,
        MaskingExplorer,
        NgramExplorer,
        PositionsExplorer,
        ScaleExplorer,
        SoftmaxExplorer,
    )
}
