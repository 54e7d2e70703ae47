"""evaluate.py: answers to benchmarks, from a model or from a file, scored as the benchmarks' authors score them.

task.py         the evaluation: first all answers, then all verdicts, each benchmark in a folder of its own
folder.py       the files of that folder, and whether the answers in it were made with today's settings
opened.py       a benchmark with its rows, before any weight is loaded
benchmarks/     the benchmarks' rows and official scorers
predictions.py  answers from a file, checked row by row
sampling.py     answers from a model, appended batch by batch
models.py       the student and the ORM, on the trainer's devices
grading.py      the official verdicts, with and without the student's answer marker, and math-verify beside them
scoring_llm.py  the LLM that extracts and judges, where a benchmark needs one
rewards.py      P(correct) of each answer by a trained ORM
selectors.py    which of several answers counts; accuracy against their number
contamination.py  training rows that are in the benchmark
error_types.py  Figure 4: what kinds of mistakes the wrong answers are
metrics.py      metrics.json
results.py      from answers to the files of a benchmark's folder
page.py         report.html
orm_test/       benchmark=orm_test: an ORM measured on labelled paths
compare/        ``mathse compare``: runs on the same problems
"""
