"""The explorers: figures that a reader moves, the same in JupyterLab and on the website."""

from .attention import AttentionExplorer
from .bpe import BPEExplorer
from .heads import HeadsExplorer

__all__ = ["EXPLORERS", "AttentionExplorer", "BPEExplorer", "HeadsExplorer"]

EXPLORERS = {explorer.__name__: explorer for explorer in (AttentionExplorer, BPEExplorer, HeadsExplorer)}
