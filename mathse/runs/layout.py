"""How a run folder is laid out: the name of every file in it, the order of its stages, and what readers call them.

    RUN/run.json  summary.json  report.html  usage.jsonl  decontamination.json  ...
    RUN/base/     stage.json  checkpoint/  predictions.jsonl  metrics.json  sources.jsonl  ...
    RUN/orm/      stage.json  checkpoint/  feedback.jsonl  orm_held.jsonl  ...   and in it orm/student_N/, orm/solver/
    RUN/distill/  RUN/round_01/ ...  paths.jsonl  verdicts.jsonl  train.jsonl  incorrect.jsonl  checkpoint/  ...
    RUN/reflection/ (or RUN/round_01/reflection/)  reflections.jsonl  verdicts.jsonl  train.jsonl  ...
    RUN/final/    RUN/sft/

Whoever writes or reads a file of a run takes its name from here, so that a name is spelt once. The names are a contract
with runs that are on the disk already: none is ever changed.
"""

from __future__ import annotations

import re

# --- of a run -------------------------------------------------------------------------------------------------------

RUN = "run.json"  # name, task, seed and settings, written when the folder is opened
SUMMARY = "summary.json"  # the run in numbers, written last: with it the run is finished
REPORT = "report.html"
USAGE = "usage.jsonl"  # a paid teacher's requests and what they cost
JUDGE_USAGE, STUDENT_USAGE = "judge_usage.jsonl", "student_usage.jsonl"  # the same of models behind a server
DECONTAMINATION_PAIRS = "decontamination.jsonl"  # pairs of a training row and a benchmark's problem
DECONTAMINATION = "decontamination.json"  # how many there are, by kind
CONTROLS = "controls.json"  # the run beside its controls (mathse control)
EXPORTS = "exports"
NOTE_OF_SWEEP = "multirun.yaml"  # Hydra's, beside the run folders of a sweep's jobs

# --- of a stage -----------------------------------------------------------------------------------------------------

DONE = "stage.json"  # what the stage was made from and the hash of each of its files; written last
BEGUN = "stage.begun.json"  # stands while the stage is being made
SCRATCH = "fit"  # a folder that goes when the stage is finished
RESUME_POINTS = ("point_*", "last.ckpt")  # in it, of a fit under way; the latter by earlier versions

CHECKPOINT = "checkpoint"  # a folder as ``from_pretrained`` reads it
ADAPTER = "adapter"  # in the checkpoint of a LoRA fit: its adapter, as peft reads it
WEIGHTS = (".safetensors", ".bin")
OWN_SETTINGS = "mathse.json"  # in a model's folder outside of a run: the settings that it is opened and sampled with
ORM_FILE = "orm.json"  # in an ORM's checkpoint: what its prompt holds and what it writes

PATHS = "paths.jsonl"  # ReasoningPath: what the teacher or the student wrote
VERDICTS = "verdicts.jsonl"  # Verdict: the judge on each of them, or on each rewrite
TRAIN = "train.jsonl"  # ReasoningPath: D_SFT after the stage
INCORRECT = "incorrect.jsonl"  # {path, verdict}: R_incorrect after the stage
PREFERENCES = "preferences.jsonl"  # Preference: {chosen, rejected}, the pairs of a fit by DPO
RESPONSES = "responses.jsonl"  # Response: {path, right, mismatched, advantage}, of a fit on verdicts or advantages
REFERENCE = "reference.jsonl"  # {id, ...}: log-probabilities of these pairs or paths before the fit
FIRST_FIT = "sft"  # a folder with the log of the fit that came before that on pairs (evolution.update=sft_then_dpo)
REFLECTIONS = "reflections.jsonl"  # Reflection: draft, feedback, rewrite
FEEDBACK_VERDICTS = "feedback_verdicts.jsonl"  # Verdict: on the draft, as the writer of the rewrite saw it
FEEDBACK = "feedback.jsonl"  # {path, verdict}: the labelled paths that the ORM is fitted on
HELD_PATHS = "held_paths.jsonl"  # ReasoningPath, of problems that no fit sees
HELD_VERDICTS = "held_verdicts.jsonl"
ORM_HELD = "orm_held.jsonl"  # {path, label, verdict}: what the ORM is measured on
ORM_METRICS = "orm_metrics.json"  # its figures on the paths of this stage's student
PREDICTIONS = "predictions.jsonl"  # {id, response, prediction, answer, correct}: the test problems
DEV_PREDICTIONS = "dev_predictions.jsonl"
METRICS = "metrics.json"  # accuracy; in the stage "orm" the ORM's own figures
SOURCES = "sources.jsonl"  # in "base": where each problem came from
BAD_ROWS = "bad_rows.jsonl"  # in "base": rows of the data that were left out
TRAIN_LOG = "train_log.jsonl"  # a fit's loss, gradient norm, speed and validation, by optimiser step
TRAINED = "trained.json"  # what a fit trains and what is frozen
TOO_LONG = "too_long.jsonl"  # rows that a fit left out
SKIPPED_FIT = "skipped_fit.json"  # {reason, carried_on}: the checkpoint is that of another stage

VERDICT_FILES = (VERDICTS, FEEDBACK_VERDICTS, HELD_VERDICTS)
PATH_FILES = (PATHS, HELD_PATHS)
JUDGED_FILES = (INCORRECT, FEEDBACK, ORM_HELD)  # rows with a path and a verdict
PREDICTION_FILES = (PREDICTIONS, DEV_PREDICTIONS)

# --- stages ---------------------------------------------------------------------------------------------------------

# The order of stages in a run; rounds go by number, unknown stages (a user's own) come last.
ORDER = {"base": 0, "orm": 1, "distill": 2, "round": 3, "reflection": 4, "final": 5}
ORM_STAGES = ("orm", "orm/solver")  # whose model is of the ORM's backbone
# The stage that each task ends with.
LAST = {"evolve": "final", "distill": "distill", "sft": "sft", "orm": "orm"}
_NUMBER = re.compile(r"(\d+)")


def stage_order(stage: str) -> tuple[int, list[tuple[int, str]]]:
    """Sort key of a stage name: "base" < "orm/student_50" < "orm/student_200" < "orm" < "distill" < "round_01" <
    "round_01/reflection" < "round_02" < "reflection" < "final"."""
    head = stage.split("/")[0].split("_")[0]
    name = "orm/~" if stage == "orm" else stage  # made from the stages inside it; "~" sorts after all names
    return ORDER.get(head, len(ORDER)), [(int(part) if part.isdigit() else -1, part) for part in _NUMBER.split(name)]


def title(stage: str) -> str:
    """A stage's name for readers: "round_01" is "round 1", "distill" is "distilled"."""
    if (number := number_of_round(stage)) is not None:
        return f"round {number}"
    return {"distill": "distilled", "orm": "ORM"}.get(stage, stage.replace("orm/", "ORM: ").replace("_", " "))


def number_of_round(stage: str) -> int | None:
    """1 of "round_01"; None of a stage that is no round."""
    head, _, number = stage.partition("_")
    return int(number) if head == "round" and number.isdigit() else None
