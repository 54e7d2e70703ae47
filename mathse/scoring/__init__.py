"""Scores: comparison of final answers, metrics with confidence intervals, and the paper's numbers."""
