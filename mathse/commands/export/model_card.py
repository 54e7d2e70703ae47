"""The model card of a stage's checkpoint: README.md with what the run's files say of it, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from mathse.commands.export.adapter import adapter_weights, base_of, hub_id
from mathse.commands.export.data_card import cell, kept_out, teacher_name
from mathse.commands.export.examples import family_of
from mathse.data.domains import subject
from mathse.data.source_terms import UNKNOWN, terms_of
from mathse.runs.checkpoints import Checkpoint, checkpoints
from mathse.runs.fit_ranks import RANKS
from mathse.runs.layout import CHECKPOINT, ORM_STAGES, SOURCES, TRAINED, title
from mathse.runs.reader import Run

# family -> (the licence of its published weights, what opens a folder of it)
FAMILIES = {
    "tiny": ("none: its weights were random", "transformers.AutoModelForImageTextToText.from_pretrained({folder!r})"),
    "qwen2vl": ("Apache-2.0", "transformers.AutoModelForImageTextToText.from_pretrained({folder!r})"),
    "qwen2_5_vl": ("Apache-2.0", "transformers.AutoModelForImageTextToText.from_pretrained({folder!r})"),
    "qwen3_vl": ("Apache-2.0", "transformers.AutoModelForImageTextToText.from_pretrained({folder!r})"),
    "internvl3": (
        "MIT; its language model, Qwen2.5, Apache-2.0",
        "transformers.AutoModelForImageTextToText.from_pretrained({folder!r})",
    ),
    "internvl2_5": (
        "MIT; its language model has terms of its own",
        "transformers.AutoModelForImageTextToText.from_pretrained({folder!r})",
    ),
    "causal_lm": ("that of its checkpoint", "transformers.AutoModelForCausalLM.from_pretrained({folder!r})"),
    "hf": ("that of its checkpoint", "transformers.AutoModelForImageTextToText.from_pretrained({folder!r})"),
    "smollm2_vision": (
        "Apache-2.0; its tower comes in a package that is MIT and names no licence of the weights",
        "transformers.AutoModelForImageTextToText.from_pretrained({folder!r})",
    ),
    "smollm2": ("Apache-2.0", "transformers.AutoModelForCausalLM.from_pretrained({folder!r})"),
    "cogvlm2": (
        "CogVLM2 licence and Llama 3 Community License (Built with Meta Llama 3), EVA: MIT",
        "mathse.models.load('cogvlm2', {folder!r})",
    ),
}
METHOD = ("evolution.rounds", "evolution.init", "evolution.samples_per_problem", "evolution.keep",
          "evolution.reflect.when", "evolution.reflect.writer", "evolution.reflect.feedback", "evolution.reflect.init",
          "judge.name", "judge.threshold", "distill.judge", "generator.temperature", "generator.top_p")  # fmt: skip
FIT = ("method", "max_steps", "epochs", "batch_size", "optimizer.lr", "freeze")
COUNTS = {
    "teacher_calls": "teacher calls",
    "train_rows": "rows of D_SFT",
    "accepted": "accepted",
    "rejected": "rejected",
    "unparsed": "unparsed",
}
ORM = {
    "overall_accuracy": "overall",
    "positive_accuracy": "right accepted",
    "negative_accuracy": "wrong rejected",
    "error_step_accuracy": "first wrong step named",
}
OWN_TEST, ORM_TEST = "the run's own test problems", "held-out paths of the ORM's own students"
DEVICES = ("trainer.precision", *RANKS)


def model_card(run: Run, stage: str, adapter: bool = False) -> str:
    """The whole README.md of the stage's checkpoint, or of its LoRA adapter alone."""
    checkpoint = checkpoints(run)[f"{stage}/{CHECKPOINT}"]
    # The ORM, and the solver that it starts from, may have a backbone of their own.
    of_the_orm = stage in ORM_STAGES
    backbone = (run.config["orm"].get("backbone") if of_the_orm else None) or run.config["backbone"]
    parts = (
        [_front_matter(run, stage, backbone, adapter)],
        _head(run, checkpoint, backbone, adapter),
        _use_of_adapter(run, stage, backbone) if adapter else _use(stage, backbone),
        _table(run, stage),
        _judge(run),
        _trained_on(run, checkpoint),
        _fit(run, checkpoint),
        _licences(run, backbone),
        kept_out(run),
        _origin(run, checkpoint, adapter),
    )
    return "\n".join(line for part in parts for line in part) + "\n"


def _front_matter(run: Run, stage: str, backbone: Mapping[str, Any], adapter: bool) -> str:
    """What model hubs read: whose licence, which base model, and the figures as a model-index."""
    results = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_name=dataset,
            dataset_type="custom",  # no data set of a hub
            metric_type="accuracy",
            metric_name=metric,
            metric_value=round(100 * share, 2),
            metric_args={"n": n, **({"ci95": [round(100 * end, 2) for end in interval]} if interval else {})},
        )
        for dataset, metric, share, n, interval in _measured(run, stage)
    ]
    data = ModelCardData(
        library_name="peft" if adapter else "transformers",
        pipeline_tag="image-text-to-text",
        license="other",
        license_name="those of its base model and its data, see below",
        base_model=base_of(run, stage).hub if adapter else hub_id(backbone),
        tags=["mathse", subject(run.config), "multimodal"],
        model_name=f"{run.name}, {title(stage)}",
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _measured(run: Run, stage: str) -> Iterator[tuple[str, str, float, int, Sequence[float] | None]]:
    """What was measured of the stage's checkpoint: (on what, which figure, its value, of how many, 95 % interval)."""
    if stage == "orm" and run.orm:
        for key, name in ORM.items():
            if run.orm.get(key) is not None:
                yield ORM_TEST, name, run.orm[key], run.orm["n"], (run.orm.get("ci95") or {}).get(key)
    for entry in run.entries:
        if entry["stage"] == stage and entry.get("accuracy") is not None:
            yield OWN_TEST, "test accuracy", entry["accuracy"], entry["n"], entry.get("ci95")


def _head(run: Run, checkpoint: Checkpoint, backbone: Mapping[str, Any], adapter: bool) -> Iterator[str]:
    family = family_of(backbone)
    start = hub_id(backbone) or ("a local folder" if backbone.get("path") else "random weights")
    if checkpoint.stage == "base":
        fit = "It is the model before any training."
    elif checkpoint.carried_on:
        fit = f"There was nothing new to fit on, so it is the same as `{checkpoint.start}`."
    else:
        from_checkpoint = f", starting from `{checkpoint.start}`" if checkpoint.start else ""
        rows = checkpoint.rows or "solutions of the ORM-training problems"
        fit = f"It was fitted on `{rows}` of the run{from_checkpoint}."
    model = "Outcome Reward Model" if checkpoint.stage == "orm" else f"Student of stage {title(checkpoint.stage)}"
    if adapter:
        model = f"LoRA adapter: {model}"
    yield f"\n# {model}, from the MathSE run {cell(run.name)}\n"
    yield f"Backbone `{family}`, from {cell(start)}; task {run.task}, seed {run.seed}. {fit}\n"
    if not run.finished:
        yield "The run was not finished when this was made.\n"
    for file, digest in (adapter_weights(run, checkpoint.stage) if adapter else checkpoint.weights).items():
        yield f"- `{file}` sha256 `{digest}`"


def _use_of_adapter(run: Run, stage: str, backbone: Mapping[str, Any]) -> Iterator[str]:
    base = base_of(run, stage)
    yield "\n## Use\n"
    if base.stage:
        yield f"It goes on the checkpoint of stage {title(base.stage)} of the same run (BASE below), on no other.\n"
    elif base.hub is None:
        yield "It goes on the model that the run started from, which is no published one (BASE below).\n"
    if family_of(backbone) in ("internvl2_5", "internvl3"):
        yield "InternVL is taken in transformers' layout: `mathse convert` makes it of the published folder.\n"
    yield "```"
    yield f"base = transformers.AutoModelForImageTextToText.from_pretrained({base.hub or 'BASE'!r})"
    yield "peft.PeftModel.from_pretrained(base, 'FOLDER')"
    yield "```"


def _use(stage: str, backbone: Mapping[str, Any]) -> Iterator[str]:
    family = family_of(backbone)
    yield "\n## Use\n"
    yield "```"
    if family in FAMILIES:
        yield FAMILIES[family][1].format(folder="FOLDER")
    if stage == "orm":
        yield f"python train.py backbone={family} judge=orm judge.checkpoint=FOLDER ..."
        yield "python evaluate.py benchmark=orm_test checkpoint=FOLDER benchmark.orm_test.paths=FILE"
    else:
        yield f"python evaluate.py backbone={family} checkpoint=FOLDER"
        yield f"python train.py backbone={family} backbone.path=FOLDER ..."
    yield "```"


def _table(run: Run, stage: str) -> Iterator[str]:
    """The run's stages with the test accuracy of each one's student; the card's own in bold."""
    if not run.entries:
        return
    yield "\n## The run\n"
    yield (
        "Accuracy: greedy answers to the run's own test problems that equal the reference. Precision: accepted paths "
        "with the reference answer. All in per cent.\n"
    )
    yield from _head_of(("stage", "test accuracy", "95 % interval", "of", *COUNTS.values(), "precision"))
    for entry in run.entries:
        low, high = entry.get("ci95") or (None, None)
        bold = "**" if entry["stage"] == stage else ""
        interval = "" if low is None else f"{_percent(low)} to {_percent(high)}"
        scored = (_percent(entry.get("accuracy")), interval, _count(entry.get("n")))
        counts = (_count(entry.get(key)) for key in COUNTS)
        precision = _percent(entry.get("acceptance_precision"))
        yield _line((f"{bold}{title(entry['stage'])}{bold}", *scored, *counts, precision))


def _judge(run: Run) -> Iterator[str]:
    """How far the ORM can be trusted, on the paths of each kind of student."""
    weak = [("its own weak students", run.orm)] if run.orm and run.orm.get("n") else []
    figures = [*weak, *((title(stage), values) for stage, values in run.orm_by_student if values.get("n"))]
    if not figures:
        return
    yield "\n## The Outcome Reward Model\n"
    yield "On held-out paths, as many right ones as wrong ones, in per cent; in brackets 95 % intervals.\n"
    yield from _head_of(("paths by", *ORM.values(), "AUROC", "paths"))
    for name, values in figures:
        auroc = "" if values.get("auroc") is None else f"{values['auroc']:.3f}"
        cells = []  # a share with its interval
        for key in ORM:
            low, high = (values.get("ci95") or {}).get(key) or (None, None)
            interval = "" if low is None else f" ({_percent(low)} to {_percent(high)})"
            cells.append(_percent(values.get(key)) + interval)
        yield _line((name, *cells, auroc, _count(values.get("n"))))


def _trained_on(run: Run, checkpoint: Checkpoint) -> Iterator[str]:
    """Rows by writer, round and source, of those that the fit saw."""
    if checkpoint.rows is None:
        return
    counts = _counts(run, checkpoint)
    yield "\n## What it was fitted on\n"
    yield f"{sum(counts['written by'].values()):,} rows; `python -m mathse lineage RUN --all` tells each one's story.\n"
    yield from _head_of(("by", "", "rows"))
    for name, values in counts.items():
        for value, number in sorted(values.items()):
            yield _line((name, cell(value), f"{number:,}"))
    if checkpoint.left_out:
        yield f"\n{len(checkpoint.left_out):,} rows were too long for the fit and left out."


def _counts(run: Run, checkpoint: Checkpoint) -> dict[str, Counter[str]]:
    stage = run.stage(checkpoint.stage)
    file = str(checkpoint.rows).rpartition("/")[2]
    counts: dict[str, Counter[str]] = {"written by": Counter(), "in stage": Counter(), "source": Counter()}
    problems: Counter[str] = Counter()
    for row in stage.rows(file) if stage else ():
        path = row.get("path", row)
        if checkpoint.fitted_on(path["id"]):
            lineage = path["lineage"]
            counts["written by"][f"{lineage['origin']}: {lineage['model']}"] += 1
            counts["in stage"][lineage["stage"]] += 1
            problems[path["problem_id"]] += 1
    base = run.stage("base")
    for row in base.rows(SOURCES) if base else ():
        counts["source"][row["source"]] += problems.pop(row["problem_id"], 0)
    counts["source"]["of another file"] += problems.total()
    return {name: Counter({value: n for value, n in values.items() if n}) for name, values in counts.items()}


def _fit(run: Run, checkpoint: Checkpoint) -> Iterator[str]:
    stage = run.stage(checkpoint.stage)
    trained = stage.json(TRAINED) if stage else None
    if stage is None or trained is None or checkpoint.carried_on:
        return
    settings = run.settings
    prefix = "orm.fit" if checkpoint.stage == "orm" else "sft"
    steps = {"orm/solver": "orm.solver_steps"}.get(checkpoint.stage, "orm.student_steps")
    of_the_stage = {f"{prefix}.max_steps": settings.get(steps)} if checkpoint.stage.startswith("orm/") else {}
    of_the_stage |= {key: stage.settings[key] for key in RANKS if key in stage.settings}  # the run may have had others
    if "precision" in trained:  # what ``fastest`` came to; earlier versions did not record it
        of_the_stage["trainer.precision"] = trained["precision"]
    yield "\n## How it was fitted\n"
    yield from _head_of(("setting", "value"))
    for key in (*(f"{prefix}.{name}" for name in FIT), *DEVICES):
        value = of_the_stage.get(key, settings.get(key))
        if value is not None:
            yield _line((f"`{key}`", cell(str(value))))
    yield ""
    yield from _head_of(("part", "parameters", "trained"))
    for part in trained["parts"]:
        yield _line((part["part"], f"{part['parameters']:,}", f"{part['trainable']:,}"))


def _licences(run: Run, backbone: Mapping[str, Any]) -> Iterator[str]:
    """Every source of the run, even where a fit saw no row of it: earlier checkpoints may have."""
    family = family_of(backbone)
    yield "\n## Sources and licences\n"
    yield from _head_of(("what", "where", "licence"))
    licence = FAMILIES[family][0] if family in FAMILIES else UNKNOWN.licence
    yield _line((f"the backbone, {family}", cell(hub_id(backbone) or ""), licence))
    for name, terms in terms_of(run.config["data"]).items():
        yield _line((cell(f"the data, {name}"), cell(terms.home), cell(terms.licence)))
    yield _line((f"the teacher, {cell(teacher_name(run.config['teacher']))}", "", "the terms of that model or file"))
    yield "\nAll of them bind what is done with the weights."


def _origin(run: Run, checkpoint: Checkpoint, adapter: bool) -> Iterator[str]:
    stage = run.stage(checkpoint.stage)
    manifest = stage.manifest if stage else {}
    versions = ", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items() if version)
    settings = run.settings
    yield "\n## How it was made\n"
    command = f"python -m mathse export RUN --what {'adapter' if adapter else 'model'} --stage {checkpoint.stage}"
    yield f"`{command}`; config hash `{checkpoint.config_hash}`."
    yield f"Code: git {manifest.get('git') or 'not recorded'}; {versions or 'versions not recorded'}.\n"
    yield from _head_of(("setting", "value"))
    yield from (_line((f"`{key}`", cell(str(settings[key])))) for key in METHOD if settings.get(key) is not None)
    if notes := [*run.summary.get("notes", [])]:
        yield ""
        yield from (f"- {cell(note)}" for note in notes)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _head_of(names: Sequence[str]) -> Iterator[str]:
    yield _line(names)
    yield "|---" * len(names) + "|"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
