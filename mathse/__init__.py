"""MathSE: multimodal models that get better at mathematics by learning from their own mistakes (arXiv 2511.06805)."""

__version__ = "0.1.0"
