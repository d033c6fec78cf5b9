"""The explorers: figures that a reader moves, the same in JupyterLab and on the website."""

from .attention import AttentionExplorer
from .block import BlockExplorer
from .bpe import BPEExplorer
from .fill import FillExplorer
from .gradient import GradientExplorer
from .heads import HeadsExplorer
from .journey import JourneyExplorer
from .loss import LossExplorer
from .masking import MaskingExplorer
from .ngram import NgramExplorer
from .page import save_html
from .positions import PositionsExplorer
from .scale import ScaleExplorer
from .softmax import SoftmaxExplorer
from .write import WriteExplorer

__all__ = [
    "EXPLORERS",
    "AttentionExplorer",
    "BPEExplorer",
    "BlockExplorer",
    "FillExplorer",
    "GradientExplorer",
    "HeadsExplorer",
    "JourneyExplorer",
    "LossExplorer",
    "MaskingExplorer",
    "NgramExplorer",
    "PositionsExplorer",
    "ScaleExplorer",
    "SoftmaxExplorer",
    "WriteExplorer",
    "save_html",
]

EXPLORERS = {
    explorer.__name__: explorer
    for explorer in (
        AttentionExplorer,
        BPEExplorer,
        BlockExplorer,
        FillExplorer,
        GradientExplorer,
        HeadsExplorer,
        JourneyExplorer,
        LossExplorer,
        MaskingExplorer,
        NgramExplorer,
        PositionsExplorer,
        ScaleExplorer,
        SoftmaxExplorer,
        WriteExplorer,
    )
}
