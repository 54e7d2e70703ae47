"""The layout of a run folder: the name of each file, the order of the stages, and their titles for readers.

    RUN/run.json  summary.json  report.html  usage.jsonl  decontamination.json  ...
    RUN/base/     stage.json  checkpoint/  predictions.jsonl  metrics.json  sources.jsonl  ...
    RUN/orm/      stage.json  checkpoint/  feedback.jsonl  orm_held.jsonl  ...   and in it orm/student_N/, orm/solver/
    RUN/distill/  RUN/round_01/ ...  paths.jsonl  verdicts.jsonl  train.jsonl  incorrect.jsonl  checkpoint/  ...
    RUN/reflection/ (or RUN/round_01/reflection/)  reflections.jsonl  verdicts.jsonl  train.jsonl  ...
    RUN/final/    RUN/sft/

Code that writes or reads a file of a run takes its name from here. The names are a contract with the runs on disks: no
name ever changes.
"""

from __future__ import annotations

import re

# --- of a run -------------------------------------------------------------------------------------------------------

RUN = "run.json"  # name, task, seed and settings, written when the folder is opened
SUMMARY = "summary.json"  # figures of the run, written last: a run with this file is finished
REPORT = "report.html"
USAGE = "usage.jsonl"  # requests of a paid teacher and their costs
JUDGE_USAGE, STUDENT_USAGE = "judge_usage.jsonl", "student_usage.jsonl"  # requests of models behind a server
DECONTAMINATION_PAIRS = "decontamination.jsonl"  # pairs of a training row and a benchmark's problem
DECONTAMINATION = "decontamination.json"  # numbers of these pairs, by kind
CONTROLS = "controls.json"  # comparison of the run with its controls (mathse control)
EXPORTS = "exports"
NOTE_OF_SWEEP = "multirun.yaml"  # a file of Hydra in the folder of a sweep

# --- of a stage -----------------------------------------------------------------------------------------------------

DONE = "stage.json"  # settings and inputs of the stage, and the hash of each of its files; written last
BEGUN = "stage.begun.json"  # exists while the stage is being made
SCRATCH = "fit"  # a folder that is removed when the stage is finished
RESUME_POINTS = ("point_*", "last.ckpt")  # in the scratch folder during training; last.ckpt is of earlier versions

CHECKPOINT = "checkpoint"  # a folder for ``from_pretrained``
ADAPTER = "adapter"  # in the checkpoint of a LoRA training: its adapter in peft's format
WEIGHTS = (".safetensors", ".bin")
OWN_SETTINGS = "mathse.json"  # in a model's folder outside a run: settings for opening and sampling
ORM_FILE = "orm.json"  # in an ORM's checkpoint: the form of its prompt and of its verdicts

PATHS = "paths.jsonl"  # ReasoningPath: solutions of the teacher or the student
VERDICTS = "verdicts.jsonl"  # Verdict: the judge's verdict on each path, or on each rewrite
TRAIN = "train.jsonl"  # ReasoningPath: D_SFT after the stage
INCORRECT = "incorrect.jsonl"  # {path, verdict}: R_incorrect after the stage
PREFERENCES = "preferences.jsonl"  # Preference: {chosen, rejected}, the pairs of a fit by DPO
ROLLOUTS = "rollouts.jsonl"  # Rollout: paths of an online round with token ids, log-probabilities and verdicts
RESPONSES = "responses.jsonl"  # Response: {path, right, mismatched, advantage}, of a fit on verdicts or advantages
REFERENCE = "reference.jsonl"  # {id, ...}: log-probabilities of these pairs or paths before the fit
FIRST_FIT = "sft"  # a folder with the log of the fit that came before that on pairs (evolution.update=sft_then_dpo)
REFLECTIONS = "reflections.jsonl"  # Reflection: draft, feedback, rewrite
FEEDBACK_VERDICTS = "feedback_verdicts.jsonl"  # Verdict: on the draft, as shown to the writer of the rewrite
FEEDBACK = "feedback.jsonl"  # {path, verdict}: the labelled paths that the ORM is trained on
HELD_PATHS = "held_paths.jsonl"  # ReasoningPath: on problems that are never trained on
HELD_VERDICTS = "held_verdicts.jsonl"
ORM_HELD = "orm_held.jsonl"  # {path, label, verdict}: the test paths of the ORM
ORM_METRICS = "orm_metrics.json"  # figures of the ORM on paths of this stage's student
PREDICTIONS = "predictions.jsonl"  # {id, response, prediction, answer, correct}: the test problems
DEV_PREDICTIONS = "dev_predictions.jsonl"
METRICS = "metrics.json"  # accuracy; in the stage "orm" the figures of the ORM
SOURCES = "sources.jsonl"  # in "base": the source of each problem
BAD_ROWS = "bad_rows.jsonl"  # in "base": rows of the data that were left out
TRAIN_LOG = "train_log.jsonl"  # loss, gradient norm, speed and validation by optimiser step
TRAINED = "trained.json"  # the parts of the model that train, and the frozen parts
TOO_LONG = "too_long.jsonl"  # rows that training left out
SKIPPED_FIT = "skipped_fit.json"  # {reason, carried_on}: the checkpoint is a copy of another stage's

VERDICT_FILES = (VERDICTS, FEEDBACK_VERDICTS, HELD_VERDICTS)
PATH_FILES = (PATHS, HELD_PATHS)
JUDGED_FILES = (INCORRECT, FEEDBACK, ORM_HELD)  # rows with a path and a verdict
PREDICTION_FILES = (PREDICTIONS, DEV_PREDICTIONS)

# --- stages ---------------------------------------------------------------------------------------------------------

# The order of stages in a run. Rounds are ordered by number; unknown stages (of a user's code) come last.
ORDER = {"base": 0, "orm": 1, "distill": 2, "round": 3, "reflection": 4, "final": 5}
ORM_STAGES = ("orm", "orm/solver")  # their models are of the ORM's backbone
# The last stage of each task.
LAST = {"evolve": "final", "distill": "distill", "sft": "sft", "orm": "orm"}
_NUMBER = re.compile(r"(\d+)")


def stage_order(stage: str) -> tuple[int, list[tuple[int, str]]]:
    """The sort key of a stage's name.

    "base" < "orm/student_50" < "orm/student_200" < "orm" < "distill" < "round_01" < "round_01/reflection" < "round_02"
    < "reflection" < "final".
    """
    head = stage.split("/")[0].split("_")[0]
    name = "orm/~" if stage == "orm" else stage  # "orm" is made from the stages inside it; "~" sorts after all names
    return ORDER.get(head, len(ORDER)), [(int(part) if part.isdigit() else -1, part) for part in _NUMBER.split(name)]


def title(stage: str) -> str:
    """The name of a stage for readers: "round 1" for "round_01", "distilled" for "distill"."""
    if (number := number_of_round(stage)) is not None:
        return f"round {number}"
    return {"distill": "distilled", "orm": "ORM"}.get(stage, stage.replace("orm/", "ORM: ").replace("_", " "))


def number_of_round(stage: str) -> int | None:
    """The number of a round: 1 for "round_01"; None for other stages."""
    head, _, number = stage.partition("_")
    return int(number) if head == "round" and number.isdigit() else None
