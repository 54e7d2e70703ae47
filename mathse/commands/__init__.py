"""One file or folder a verb of ``mathse``."""
