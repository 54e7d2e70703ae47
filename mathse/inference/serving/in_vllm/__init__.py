"""What vLLM's own processes import; its environment has no mathse, so the files here import nothing of it."""
