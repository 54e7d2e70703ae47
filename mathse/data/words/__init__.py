"""Word problems from four published sets: stories with a few operations, in text without pictures.

equation.py   an equation as steps, in exact numbers
solution.py   a worked solution from these steps, the check of a path, paths with made-up errors
published.py  the published records of GSM8K, SVAMP, MultiArith and MAWPS
source.py     data=word_problems: the problems of the sets, without repetitions
teacher.py    teacher=fallible_replay
problems/     a subset that the project contains, with its licences
"""

from mathse.data.words.source import WordProblems
from mathse.data.words.teacher import FallibleReplayTeacher

__all__ = ["FallibleReplayTeacher", "WordProblems"]
