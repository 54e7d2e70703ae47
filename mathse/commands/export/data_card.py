"""The data card of an export: README.md, written only from the run's files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData

from mathse.commands.export.examples import Example
from mathse.data.domains import subject
from mathse.data.source_terms import OWN_LICENCE, UNKNOWN, Terms, terms_of
from mathse.inference import prompts
from mathse.runs.layout import DECONTAMINATION, title
from mathse.runs.reader import Run

COUNTED = {
    "origin": "written by",
    "round": "stage",
    "writer": "model",
    "source": "source",
    "language": "language",
    "prompt": "prompt in the row",
    "writer_prompt": "prompt of the writer",
    "label": "label",
}


@dataclass
class RowCounts:
    """Counts of an export's rows. ``altered``: ids of rows in which a space splits a mark of the tool."""

    rows: int = 0
    problems: set[int] = field(default_factory=set)  # hashes of ids: 280,000 ids would take 30 MB
    by: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in COUNTED})
    altered: list[str] = field(default_factory=list)

    def add(self, example: Example) -> None:
        """Count a row."""
        lineage, self.rows = example.path.lineage, self.rows + 1
        self.problems.add(hash(example.problem.id))
        values = {
            "origin": lineage.origin,
            "round": lineage.stage,
            "writer": lineage.model,
            "source": example.problem.source,
            "language": prompts.language(example.problem),
            "prompt": example.version,
            "writer_prompt": lineage.prompt,
            "label": example.verdict.status if example.verdict else "",
        }
        for name, value in values.items():
            self.by[name][value] += 1


@dataclass(frozen=True)
class ExportOptions:
    """The options of an export."""

    format: str
    what: str
    stage: str
    images: str
    pictures: int  # of its rows

    @property
    def command(self) -> str:
        stage = f" --stage {self.stage}" if self.what != "orm" else ""
        return f"python -m mathse export RUN --format {self.format} --what {self.what}{stage} --images {self.images}"


def render_data_card(run: Run, options: ExportOptions, counts: RowCounts, open_with: str) -> str:
    """Return README.md. ``open_with``: the command or settings that open the folder in its tool."""
    terms = terms_of(run.config["data"])
    if options.what == "orm" and (file := run.config["orm"].get("train")):
        terms.setdefault(Path(file).name, Terms("Own labelled paths", "", OWN_LICENCE))
    parts = (
        [_make_front_matter(run, options, counts)],
        _describe_rows(run, options, counts, open_with),
        _list_counts(counts),
        _list_sources(counts, terms),
        _describe_judge(run),
        describe_decontamination(run),
        _describe_origin(run, options),
    )
    return "\n".join(chain.from_iterable(parts)) + "\n"


def _make_front_matter(run: Run, options: ExportOptions, counts: RowCounts) -> str:
    """Return the metadata that hubs of data sets read."""
    # The classes of sizes are those of the hub.
    files = "data/train-*.parquet" if options.format in ("trl", "hf") else "train.jsonl"
    sizes = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    data = DatasetCardData(
        language=sorted(counts.by["language"]),
        license="other",
        license_name="those of its sources, see below",
        task_categories=["image-text-to-text"],
        tags=["mathse", subject(run.config), "multimodal", "synthetic"],
        size_categories=[next((name for limit, name in sizes.items() if counts.rows < limit), "1M<n<10M")],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": files}]}],
    )
    return f"---\n{data.to_yaml()}\n---"


def _describe_rows(run: Run, options: ExportOptions, counts: RowCounts, open_with: str) -> Iterator[str]:
    heading = {
        "sft": f"D_SFT of stage {title(options.stage)}: accepted reasoning paths to train a student",
        "preferences": f"Preferences of stage {title(options.stage)}: accepted paths, each with a rejected path",
        "orm": "Labelled reasoning paths to train an Outcome Reward Model",
    }[options.what]
    yield f"\n# {heading}\n"
    yield (
        f"{counts.rows:,} rows over {len(counts.problems):,} problems, {options.pictures:,} pictures, from the MathSE "
        f"run `{run.name}` (task {run.task}, seed {run.seed}), in the format of `{options.format}`.\n"
    )
    if not run.finished:
        yield "The run was not finished when this was made.\n"
    yield f"To open it: `{open_with}`\n"
    # orm.augment adds made-up errors to the training rows.
    if options.what == "orm" and run.config["orm"].get("augment"):
        yield "The run's own ORM was also trained on made-up errors, which the run does not store.\n"
    if counts.altered:
        ids = ", ".join(f"`{i}`" for i in counts.altered[:5]) + (", ..." if len(counts.altered) > 5 else "")
        yield (
            f"In {len(counts.altered):,} rows a text had a mark of {options.format} or of a tokenizer (such as "
            f"`<image>`); a space now follows its first character: {ids}.\n"
        )


def _list_counts(counts: RowCounts) -> Iterator[str]:
    yield "## Rows\n"
    yield "| by | | rows |\n|---|---|---|"
    for name, heading in COUNTED.items():
        for value, rows in sorted(counts.by[name].items()):
            if value:
                yield f"| {heading} | {escape_cell(value)} | {rows:,} |"


def _list_sources(counts: RowCounts, terms: Mapping[str, Terms]) -> Iterator[str]:
    yield "\n## Sources and licences\n"
    yield "| source | what | where | licence |\n|---|---|---|---|"
    for source in sorted(counts.by["source"]):
        term = terms.get(source, UNKNOWN)
        yield f"| {' | '.join(map(escape_cell, (source, term.title, term.home, term.licence)))} |"
    yield (
        "\nThe terms of a model apply to its texts too; the writers are in the table above. The licence of the "
        "problems applies to these rows; do not publish a set without a licence."
    )


def _describe_judge(run: Run) -> Iterator[str]:
    """Yield the accuracy of the judge, stage by stage."""
    judged = [entry for entry in run.entries if entry.get("accepted") is not None]
    if not judged and not run.orm:
        return
    yield "\n## The judge\n"
    if run.orm and run.orm["overall_accuracy"] is not None:  # None for an ORM without rows to train on
        right = 100 * float(run.orm["overall_accuracy"])
        yield f"The ORM is right on {right:.1f} % of {run.orm['n']:,} held-out paths of the weak students.\n"
    if not judged:
        return
    judge = run.config["judge"]
    yield f"Judge: `{judge['name']}`, threshold {run.threshold}. Precision: accepted paths with the reference answer.\n"
    yield "| stage | accepted | rejected | unparsed | precision |\n|---|---|---|---|---|"
    for entry in judged:
        precision = entry.get("acceptance_precision")
        share = "" if precision is None else f"{100 * precision:.1f} %"
        counts = (f"{entry[name]:,}" for name in ("accepted", "rejected", "unparsed"))
        yield f"| {title(entry['stage'])} | {' | '.join(counts)} | {share} |"


def describe_decontamination(run: Run) -> Iterator[str]:
    yield "\n## Kept out\n"
    settings = run.config.get("decontaminate", {})
    if (counts := run.json(DECONTAMINATION)) is None:
        yield "No row was compared with the problems of a benchmark."
        return
    against = ", ".join(escape_cell(name) for name in settings.get("against", []))
    action = f"{counts['dropped']:,} were left out" if settings.get("action") == "drop" else "they were kept"
    yield (
        f"{counts['rows']:,} problems were compared with {counts['problems']:,} of {against}: {counts['matched']:,} "
        f"are among them; {action}."
    )


def _describe_origin(run: Run, options: ExportOptions) -> Iterator[str]:
    versions = run.stages[-1].manifest.get("versions", {}) if run.stages else {}
    teacher = run.config["teacher"]
    yield "\n## How it was made\n"
    made_by = f"a run with the teacher `{name_teacher(teacher)}`, mathse {versions.get('mathse')}"
    yield f"`{options.command}`, of {made_by}.\n"
    yield from (f"- {note}" for note in run.summary.get("notes", []))


def name_teacher(section: Mapping[str, Any]) -> str:
    """Return the class of the teacher, and its model if it has one."""
    kind = str(section.get("_target_", "")).rpartition(".")[2]
    return f"{kind} {section['model']}" if section.get("model") else kind


def escape_cell(text: str) -> str:
    """Return the text for one cell of a table, with its markup escaped."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ").replace("\r", " ")
