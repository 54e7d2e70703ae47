"""Synthetic problems: arithmetic over images of real handwritten digits, small enough to learn on a CPU.

With them the whole method runs without downloads, and with real errors: misreadings, miscalculations, a checker that
finds the first wrong step, and a fallible teacher.
"""

from mathse.data.synthetic.problems import SyntheticData
from mathse.data.synthetic.teacher import SymbolicTeacher

__all__ = ["SymbolicTeacher", "SyntheticData"]
