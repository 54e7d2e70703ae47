"""Extraction of the final answer of a solution, and its comparison with the reference answer.

These are our own rules, because they judged more real answers correctly than the available libraries. Time is bounded:
texts are cut to their last ``MAX_TEXT`` characters, answers longer than ``MAX_ANSWER`` are compared unchanged, no
pattern nests a repetition in another, and only sums, products, powers and roots of a bounded size are evaluated.

    extract   the announcement of an answer, and the answer behind it
    plain     LaTeX and typography -> a plain form; letters keep their case
    question  nouns that the question counts; whether it asks for a set or a pair
    options   the options that a text names, without options that it denies or leaves open
    numerals  numbers in words
    units     units of measurement, and the nouns and other words behind a number
    quantity  a number and its unit
    names     names of figures: ∠ABC is ∠CBA
    moments   times of the day and dates
    forms     tuples, sets, intervals, matrices, ratios
    algebra   the normal form of an expression
    compare   all of these, the cheapest first
    rule      the choice among them for a task; short answers in words
"""

from mathse.scoring.answers.compare import choice_index, same_answer
from mathse.scoring.answers.extract import (
    MARKER,
    MAX_TEXT,
    announced_answer,
    answer_after,
    boxed_answer,
    extract_answer,
)
from mathse.scoring.answers.plain import MAX_ANSWER
from mathse.scoring.answers.rule import MATHEMATICAL, AnswerRule, Form, UnitRule

__all__ = [
    "MARKER",
    "MATHEMATICAL",
    "MAX_ANSWER",
    "MAX_TEXT",
    "AnswerRule",
    "Form",
    "UnitRule",
    "announced_answer",
    "answer_after",
    "boxed_answer",
    "choice_index",
    "extract_answer",
    "same_answer",
]
