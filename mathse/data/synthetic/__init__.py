"""Synthetic problems: arithmetic over images of real handwritten digits, small enough to learn on a CPU.

They exist so that the whole method runs for real, without downloads: real misreadings, real miscalculations, a checker
that knows the first wrong step, and a fallible teacher.
"""

from mathse.data.synthetic.problems import SyntheticData
from mathse.data.synthetic.teacher import SymbolicTeacher

__all__ = ["SymbolicTeacher", "SyntheticData"]
