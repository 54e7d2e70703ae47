"""evaluate.py: answers to benchmarks, from a model or from a file, scored as the benchmarks' authors score them.

task.py         the run: what is asked, then what is scored, each benchmark in a folder of its own
opened.py       a benchmark with its rows, before any weight is loaded
own.py          benchmark=synthetic: the test split of data=...
predictions.py  answers from a file, checked row by row
sampling.py     answers from a model, appended batch by batch
scoring.py      the official verdicts, with and without the student's answer marker, and math-verify beside them
asking.py       the LLM that extracts and judges, where there is one
rewards.py      P(correct) of each answer by a trained ORM
selectors.py    which of several answers counts; accuracy against their number
mistakes.py     Figure 4: what kinds of mistakes the wrong answers are
figures.py      metrics.json
page.py         report.html
"""
