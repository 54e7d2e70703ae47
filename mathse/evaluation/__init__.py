"""evaluate.py: answers to benchmarks, from a model or from a file, scored as the benchmarks' authors score them.

task.py           the evaluation: first all answers, then all verdicts, each benchmark in its folder
folder.py         the files of that folder, and the check that its answers were made with the same settings
opened.py         a benchmark with its rows, before any weights are loaded
benchmark.py      the contract of a benchmark; simple_benchmark.py: a benchmark of two methods
own_benchmark.py  benchmark=synthetic: the test split of ``data=...``
benchmarks/       the published benchmarks' rows and official scorers
predictions.py    answers from a file, checked row by row
sampling.py       answers from a model, appended batch by batch
models.py         the student and the ORM, on the trainer's devices
grading.py        the official verdicts, with and without the student's answer marker, and math-verify's verdicts
scoring_llm.py    the LLM that extracts and judges if a benchmark needs it
rewards.py        P(correct) of each answer by a trained ORM
selectors.py      the choice among several answers to a problem; accuracy against their number
contamination.py  training rows that are in the benchmark
error_types.py    Figure 4: the kinds of mistakes in wrong answers
metrics.py        metrics.json
results.py        from answers to the files of a benchmark's folder
page.py           report.html
run_orm.py        the ORM of a finished run, for ``mathse reward-server``
orm_test/         benchmark=orm_test: an ORM measured on labelled paths
compare/          ``mathse compare``: runs on the same problems
"""
