"""Problems: read, validated, split, and compared with the benchmarks."""
