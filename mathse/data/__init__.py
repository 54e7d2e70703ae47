"""Problems and their images, and what a fit sees of them, step by step."""
