"""Word problems: one or a few operations told as a story, in text alone, from four published sets.

equation.py   an equation as steps, in exact numbers
solution.py   a worked solution from these steps, the check of a path, paths with made-up errors
published.py  the records of GSM8K, SVAMP, MultiArith and MAWPS as they are published
source.py     data=word_problems: the sets' problems, each once
teacher.py    teacher=fallible_replay
problems/     the part that travels with the project, with its licences
"""

from mathse.data.words.source import WordProblems
from mathse.data.words.teacher import FallibleReplayTeacher

__all__ = ["FallibleReplayTeacher", "WordProblems"]
