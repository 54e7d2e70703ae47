"""Problems in, checked, and kept out of the benchmarks."""
