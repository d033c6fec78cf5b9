"""The explorers: figures that a reader moves, the same in JupyterLab and on the website."""

from .attention import AttentionExplorer

__all__ = ["EXPLORERS", "AttentionExplorer"]

EXPLORERS = {explorer.__name__: explorer for explorer in (AttentionExplorer,)}
