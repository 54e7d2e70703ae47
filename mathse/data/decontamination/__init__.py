"""Which rows of training data are in a benchmark, by question or by picture: one engine for the gate before the first
fit (``decontaminate.against``), for the data check and for evaluate.py's ``check_against``.

    text.py      questions in a form in which equal ones are equal
    minhash.py   which of many questions may be nearly equal to one
    picture.py   pictures as bits that outlast scaling, compression, margins and small cuts
    index.py     benchmarks' problems, searched row by row
    against.py   benchmark files as they are published
"""

from mathse.data.decontamination.index import Index, Pair, Seen

__all__ = ["Index", "Pair", "Seen"]
