"""Find the final answer of a solution text, and say whether it equals the reference answer.

Our own rules, because they judged more real answers rightly than the libraries for this, in bounded time: texts are cut
to their last ``MAX_TEXT`` characters, answers longer than ``MAX_ANSWER`` are compared unchanged, no pattern nests one
repetition in another, and nothing is evaluated but sums, products, powers and roots of a bounded size.

    extract   where an answer is announced, and the answer behind it
    plain     LaTeX and typography -> one plain form; letters keep their case
    question  nouns that the question counts; whether it asks for a set or a pair
    options   the options that a text names, without those that it denies or leaves open
    numerals  numbers in words
    units     units of measurement, and the nouns and other words behind a number
    quantity  a number and its unit
    names     names of figures: ∠ABC is ∠CBA
    moments   times of the day and dates
    forms     tuples, sets, intervals, matrices, ratios
    algebra   an expression's normal form
    compare   all of these, the cheapest first
    text      short answers in words
    rule      which of these a task's answers go by
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
