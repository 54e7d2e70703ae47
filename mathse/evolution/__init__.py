"""Algorithm 1 of the paper, as resumable stages and callbacks."""
