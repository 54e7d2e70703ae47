"""Is an answer right, and how sure are we: final answers compared, metrics with intervals, the paper's numbers."""
