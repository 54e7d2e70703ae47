"""Text out of models, here or behind an engine: prompts, sampling, an OpenAI-compatible client and servers."""
