"""Problems and their images: own JSONL files, and the converters that write them."""
