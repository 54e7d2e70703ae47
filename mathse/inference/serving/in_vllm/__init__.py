"""Modules that vLLM's own processes import. vLLM's environment has no mathse, so they import nothing of it."""
