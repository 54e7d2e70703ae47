"""Search for training rows that are in a benchmark, by question or by image.

The same engine serves the search before the first training run (``decontaminate.against``), the data check and
evaluate.py's ``check_against``.

    question_text.py     a normal form of questions
    minhash.py           candidates for nearly equal questions
    perceptual_hash.py   images as bits that survive scaling, compression, margins and small cuts
    local_difference.py  comparison of similar images in their labels
    index.py             an index of benchmark problems
    benchmark_files.py   published benchmark files
    hash_lists.py        hashes of benchmark questions, for benchmarks without a file
    search.py            the search of a run's training rows, and its counts
"""

from mathse.data.decontamination.index import BenchmarkPair, ComparedRow, Index

__all__ = ["BenchmarkPair", "ComparedRow", "Index"]
