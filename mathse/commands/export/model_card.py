"""The model card of a stage's checkpoint: README.md, written only from the run's files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from mathse.commands.export.adapter import find_base, hash_adapter, read_hub_id
from mathse.commands.export.data_card import describe_decontamination, escape_cell, name_teacher
from mathse.commands.export.examples import read_family
from mathse.data.domains import subject
from mathse.data.source_terms import UNKNOWN, terms_of
from mathse.runs.checkpoints import Checkpoint, list_checkpoints
from mathse.runs.fit_ranks import RANKS
from mathse.runs.layout import CHECKPOINT, ORM_STAGES, SOURCES, TRAINED, title
from mathse.runs.reader import Run

# family -> (the licence of its published weights, the call that opens a folder)
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
METHOD_SETTINGS = ("evolution.rounds", "evolution.init", "evolution.samples_per_problem", "evolution.keep",
          "evolution.reflect.when", "evolution.reflect.writer", "evolution.reflect.feedback", "evolution.reflect.init",
          "judge.name", "judge.threshold", "distill.judge", "generator.temperature", "generator.top_p")  # fmt: skip
TRAINING_SETTINGS = ("method", "max_steps", "epochs", "batch_size", "optimizer.lr", "freeze")
COUNTS = {
    "teacher_calls": "teacher calls",
    "train_rows": "rows of D_SFT",
    "accepted": "accepted",
    "rejected": "rejected",
    "unparsed": "unparsed",
}
ORM_FIGURES = {
    "overall_accuracy": "overall",
    "positive_accuracy": "right accepted",
    "negative_accuracy": "wrong rejected",
    "error_step_accuracy": "first wrong step named",
}
OWN_TEST, ORM_TEST = "the run's own test problems", "held-out paths of the ORM's own students"
DEVICES = ("trainer.precision", *RANKS)


def render_model_card(run: Run, stage: str, adapter: bool = False) -> str:
    """Return README.md of the stage's checkpoint, or of its LoRA adapter."""
    checkpoint = list_checkpoints(run)[f"{stage}/{CHECKPOINT}"]
    # The ORM, and the solver from which it starts, may have another backbone than the student.
    is_orm = stage in ORM_STAGES
    backbone = (run.config["orm"].get("backbone") if is_orm else None) or run.config["backbone"]
    parts = (
        [_make_front_matter(run, stage, backbone, adapter)],
        _describe_model(run, checkpoint, backbone, adapter),
        _describe_adapter_use(run, stage, backbone) if adapter else _describe_use(stage, backbone),
        _list_stages(run, stage),
        _describe_orm(run),
        _list_training_rows(run, checkpoint),
        _list_training_settings(run, checkpoint),
        _list_licences(run, backbone),
        describe_decontamination(run),
        _describe_origin(run, checkpoint, adapter),
    )
    return "\n".join(chain.from_iterable(parts)) + "\n"


def _make_front_matter(run: Run, stage: str, backbone: Mapping[str, Any], adapter: bool) -> str:
    """Return the metadata that hubs of models read: licence, base model, and the figures as a model-index."""
    results = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_name=dataset,
            dataset_type="custom",  # not a data set of the hub
            metric_type="accuracy",
            metric_name=metric,
            metric_value=round(100 * share, 2),
            metric_args={"n": n, **({"ci95": [round(100 * end, 2) for end in interval]} if interval else {})},
        )
        for dataset, metric, share, n, interval in _collect_figures(run, stage)
    ]
    data = ModelCardData(
        library_name="peft" if adapter else "transformers",
        pipeline_tag="image-text-to-text",
        license="other",
        license_name="those of its base model and its data, see below",
        base_model=find_base(run, stage).hub if adapter else read_hub_id(backbone),
        tags=["mathse", subject(run.config), "multimodal"],
        model_name=f"{run.name}, {title(stage)}",
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _collect_figures(run: Run, stage: str) -> Iterator[tuple[str, str, float, int, Sequence[float] | None]]:
    """Yield the figures of the stage's checkpoint: (data set, figure, value, number of rows, 95 % interval)."""
    if stage == "orm" and run.orm:
        for key, name in ORM_FIGURES.items():
            if run.orm.get(key) is not None:
                yield ORM_TEST, name, run.orm[key], run.orm["n"], (run.orm.get("ci95") or {}).get(key)
    for entry in run.entries:
        if entry["stage"] == stage and entry.get("accuracy") is not None:
            yield OWN_TEST, "test accuracy", entry["accuracy"], entry["n"], entry.get("ci95")


def _describe_model(run: Run, checkpoint: Checkpoint, backbone: Mapping[str, Any], adapter: bool) -> Iterator[str]:
    family = read_family(backbone)
    start = read_hub_id(backbone) or ("a local folder" if backbone.get("path") else "random weights")
    if checkpoint.stage == "base":
        fit = "It is the model before any training."
    elif checkpoint.carried_on:
        fit = f"There were no new rows to train on, so it is the same as `{checkpoint.start}`."
    else:
        from_checkpoint = f", starting from `{checkpoint.start}`" if checkpoint.start else ""
        rows = checkpoint.rows or "solutions of the ORM-training problems"
        fit = f"It was trained on `{rows}` of the run{from_checkpoint}."
    model = "Outcome Reward Model" if checkpoint.stage == "orm" else f"Student of stage {title(checkpoint.stage)}"
    if adapter:
        model = f"LoRA adapter: {model}"
    yield f"\n# {model}, from the MathSE run {escape_cell(run.name)}\n"
    yield f"Backbone `{family}`, from {escape_cell(start)}; task {run.task}, seed {run.seed}. {fit}\n"
    if not run.finished:
        yield "The run was not finished when this was made.\n"
    for file, digest in (hash_adapter(run, checkpoint.stage) if adapter else checkpoint.weights).items():
        yield f"- `{file}` sha256 `{digest}`"


def _describe_adapter_use(run: Run, stage: str, backbone: Mapping[str, Any]) -> Iterator[str]:
    base = find_base(run, stage)
    yield "\n## Use\n"
    if base.stage:
        yield f"Its base is the checkpoint of stage {title(base.stage)} of the same run (BASE below), and no other.\n"
    elif base.hub is None:
        yield "Its base is the model from which the run started, which is not published (BASE below).\n"
    if read_family(backbone) in ("internvl2_5", "internvl3"):
        yield "The base must have transformers' layout: `mathse convert` converts the published folder.\n"
    yield "```"
    yield f"base = transformers.AutoModelForImageTextToText.from_pretrained({base.hub or 'BASE'!r})"
    yield "peft.PeftModel.from_pretrained(base, 'FOLDER')"
    yield "```"


def _describe_use(stage: str, backbone: Mapping[str, Any]) -> Iterator[str]:
    family = read_family(backbone)
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


def _list_stages(run: Run, stage: str) -> Iterator[str]:
    """Yield the run's stages with the test accuracy of their students. The stage of the card is bold."""
    if not run.entries:
        return
    yield "\n## The run\n"
    yield (
        "Accuracy: greedy answers to the run's own test problems that equal the reference. Precision: accepted paths "
        "with the reference answer. All in per cent.\n"
    )
    yield from _make_head(("stage", "test accuracy", "95 % interval", "of", *COUNTS.values(), "precision"))
    for entry in run.entries:
        low, high = entry.get("ci95") or (None, None)
        bold = "**" if entry["stage"] == stage else ""
        interval = "" if low is None else f"{_format_percent(low)} to {_format_percent(high)}"
        scored = (_format_percent(entry.get("accuracy")), interval, _format_count(entry.get("n")))
        counts = (_format_count(entry.get(key)) for key in COUNTS)
        precision = _format_percent(entry.get("acceptance_precision"))
        yield _make_line((f"{bold}{title(entry['stage'])}{bold}", *scored, *counts, precision))


def _describe_orm(run: Run) -> Iterator[str]:
    """Yield the accuracy of the ORM on the paths of each kind of student."""
    # The ORM's own weak students come first, then the students of each stage that it judged.
    weak = [("its own weak students", run.orm)] if run.orm and run.orm.get("n") else []
    figures = [*weak, *((title(stage), values) for stage, values in run.orm_by_student if values.get("n"))]
    if not figures:
        return
    yield "\n## The Outcome Reward Model\n"
    yield "On held-out paths, half of them right and half wrong, in per cent; in brackets 95 % intervals.\n"
    yield from _make_head(("paths by", *ORM_FIGURES.values(), "AUROC", "paths"))
    for name, values in figures:
        auroc = "" if values.get("auroc") is None else f"{values['auroc']:.3f}"
        cells = []  # a share with its interval
        for key in ORM_FIGURES:
            low, high = (values.get("ci95") or {}).get(key) or (None, None)
            interval = "" if low is None else f" ({_format_percent(low)} to {_format_percent(high)})"
            cells.append(_format_percent(values.get(key)) + interval)
        yield _make_line((name, *cells, auroc, _format_count(values.get("n"))))


def _list_training_rows(run: Run, checkpoint: Checkpoint) -> Iterator[str]:
    """Yield the counts of the training rows by writer, round and source."""
    if checkpoint.rows is None:
        return
    counts = _count_rows(run, checkpoint)
    yield "\n## Training rows\n"
    yield f"{sum(counts['written by'].values()):,} rows; `python -m mathse lineage RUN --all` traces each row.\n"
    yield from _make_head(("by", "", "rows"))
    for name, values in counts.items():
        for value, number in sorted(values.items()):
            yield _make_line((name, escape_cell(value), f"{number:,}"))
    if checkpoint.left_out:
        yield f"\n{len(checkpoint.left_out):,} rows were too long and left out."


def _count_rows(run: Run, checkpoint: Checkpoint) -> dict[str, Counter[str]]:
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
    # Problems without a row in the run's own sources come from orm.train or sft.train.
    base = run.stage("base")
    for row in base.rows(SOURCES) if base else ():
        counts["source"][row["source"]] += problems.pop(row["problem_id"], 0)
    counts["source"]["of another file"] += problems.total()
    return {name: Counter({value: n for value, n in values.items() if n}) for name, values in counts.items()}


def _list_training_settings(run: Run, checkpoint: Checkpoint) -> Iterator[str]:
    stage = run.stage(checkpoint.stage)
    trained = stage.json(TRAINED) if stage else None
    if stage is None or trained is None or checkpoint.carried_on:
        return
    settings = run.settings
    prefix = "orm.fit" if checkpoint.stage == "orm" else "sft"
    steps = {"orm/solver": "orm.solver_steps"}.get(checkpoint.stage, "orm.student_steps")
    # The stage's own values. The number of ranks may have changed during the run.
    stage_settings = {f"{prefix}.max_steps": settings.get(steps)} if checkpoint.stage.startswith("orm/") else {}
    stage_settings |= {key: stage.settings[key] for key in RANKS if key in stage.settings}
    if "precision" in trained:  # the precision that ``fastest`` chose
        stage_settings["trainer.precision"] = trained["precision"]
    yield "\n## Training settings\n"
    yield from _make_head(("setting", "value"))
    for key in (*(f"{prefix}.{name}" for name in TRAINING_SETTINGS), *DEVICES):
        value = stage_settings.get(key, settings.get(key))
        if value is not None:
            yield _make_line((f"`{key}`", escape_cell(str(value))))
    yield ""
    yield from _make_head(("part", "parameters", "trained"))
    for part in trained["parts"]:
        yield _make_line((part["part"], f"{part['parameters']:,}", f"{part['trainable']:,}"))


def _list_licences(run: Run, backbone: Mapping[str, Any]) -> Iterator[str]:
    """Yield every source of the run. A source without a row here may be in an earlier checkpoint's rows."""
    family = read_family(backbone)
    yield "\n## Sources and licences\n"
    yield from _make_head(("what", "where", "licence"))
    licence = FAMILIES[family][0] if family in FAMILIES else UNKNOWN.licence
    yield _make_line((f"the backbone, {family}", escape_cell(read_hub_id(backbone) or ""), licence))
    for name, terms in terms_of(run.config["data"]).items():
        yield _make_line((escape_cell(f"the data, {name}"), escape_cell(terms.home), escape_cell(terms.licence)))
    yield _make_line(
        (f"the teacher, {escape_cell(name_teacher(run.config['teacher']))}", "", "the terms of that model or file")
    )
    yield "\nAll of these licences apply to the weights."


def _describe_origin(run: Run, checkpoint: Checkpoint, adapter: bool) -> Iterator[str]:
    stage = run.stage(checkpoint.stage)
    manifest = stage.manifest if stage else {}
    versions = ", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items() if version)
    settings = run.settings
    yield "\n## Origin\n"
    command = f"python -m mathse export RUN --what {'adapter' if adapter else 'model'} --stage {checkpoint.stage}"
    yield f"`{command}`; config hash `{checkpoint.config_hash}`."
    yield f"Code: git {manifest.get('git') or 'not recorded'}; {versions or 'versions not recorded'}.\n"
    yield from _make_head(("setting", "value"))
    yield from (
        _make_line((f"`{key}`", escape_cell(str(settings[key]))))
        for key in METHOD_SETTINGS
        if settings.get(key) is not None
    )
    if notes := [*run.summary.get("notes", [])]:
        yield ""
        yield from (f"- {escape_cell(note)}" for note in notes)


def _format_percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _format_count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _make_head(names: Sequence[str]) -> Iterator[str]:
    yield _make_line(names)
    yield "|---" * len(names) + "|"


def _make_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
