"""Which rows of training data are in a benchmark, by question or by image: one engine for the search before the first
fit (``decontaminate.against``), for the data check and for evaluate.py's ``check_against``.

    question_text.py     questions in a form in which equal ones are equal
    minhash.py           which of many questions may be nearly equal to one
    perceptual_hash.py   images as bits that outlast scaling, compression, margins and small cuts
    local_difference.py  whether two images that look alike agree in their labels too
    index.py             benchmarks' problems, searched row by row
    benchmark_files.py   benchmark files as they are published
    hash_lists.py        benchmarks of which only hashes are at hand
    search.py            a run's training rows, searched and counted
"""

from mathse.data.decontamination.index import BenchmarkPair, ComparedRow, Index

__all__ = ["BenchmarkPair", "ComparedRow", "Index"]
