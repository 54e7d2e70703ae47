"""``python -m mathse export RUN --format FORMAT``: a run's data as other tools read it, or a stage's model.

    python -m mathse export outputs/demo/seed_0 --format llamafactory          # D_SFT of the task's last fit
    python -m mathse export outputs/demo/seed_0 --format trl --stage round_01
    python -m mathse export outputs/demo/seed_0 --format hf --what orm         # the ORM's labelled paths
    python -m mathse export outputs/demo/seed_0 --what model                   # a checkpoint with its model card

Formats: llamafactory, swift (JSONL, pictures beside it), trl, hf (parquet, pictures in it; extra: ``hub``), see
``formats``. A row trains what the run's own fit trained: the same prompt, pictures and response. ``--images reference``
names pictures where they lie. README.md is a data card. No model is loaded; rows are written one at a time.

The folder (default: RUN/exports/WHAT-STAGE-FORMAT) is written aside and published whole; the same run gives the same
bytes. An export that is there is made anew, unless a file in it was added or changed since; any other folder of that
name is refused, and so is a run whose files are not those that its stages recorded.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from mathse.commands.export.card import Counts, Made, data_card
from mathse.commands.export.examples import Example, orm_examples, sft_examples
from mathse.commands.export.formats import FORMATS, harmless, write
from mathse.commands.export.models import write_model
from mathse.commands.export.pictures import Mode, Pictures
from mathse.errors import DataError
from mathse.runs.layout import EXPORTS, LAST
from mathse.runs.published import publish
from mathse.runs.reader import Run, read_run

__all__ = ["export_data", "export_model", "main"]

MARKER = "export.json"  # what an export is known by
NAMED = 100  # altered rows that export.json names


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; raises MathSEError for a run or folder that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m mathse export", description="A run's data or model, for other tools and for publishing"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, such as outputs/demo/seed_0")
    parser.add_argument("--format", choices=[*FORMATS], help="whose form the data is written in")
    parser.add_argument(
        "--what", choices=("sft", "orm", "model"), default="sft", help="default: sft, the rows of D_SFT"
    )
    parser.add_argument("--stage", help="whose rows or checkpoint (default: the task's last, such as final)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder to make (default: below RUN/exports)")
    parser.add_argument("--images", choices=get_args(Mode), default="copy", help="into the export (default), or not")
    asked = parser.parse_args(argv)
    if asked.what != "model" and asked.format is None:
        parser.error(f"--format: choose one of {', '.join(FORMATS)}")
    if asked.what == "model" and asked.format not in (None, "hf"):
        parser.error("--what model: a checkpoint has one form, that of from_pretrained; leave out --format")
    if asked.what == "orm" and asked.stage not in (None, "orm"):
        parser.error("--what orm: the rows are those of stage orm; leave out --stage")
    run = read_run(asked.run)
    run.verify()  # what leaves the house is what the run made
    stage = "orm" if asked.what == "orm" else asked.stage or LAST.get(run.task, "final")
    name = stage if asked.what == "orm" else f"{asked.what}-{stage.replace('/', '-')}"
    out = asked.out or asked.run / EXPORTS / (name if asked.what == "model" else f"{name}-{asked.format}")
    if asked.what == "model":
        print("\n".join(export_model(run, stage, out)))
    else:
        print("\n".join(export_data(run, out, asked.format, asked.what, stage, asked.images)))
    return 0


def export_data(run: Run, out: Path, format: str, what: str, stage: str, images: Mode = "copy") -> list[str]:
    """Write the rows of a stage (``what`` "sft") or of the ORM in a tool's form; the lines that say what was made."""
    examples = orm_examples(run) if what == "orm" else sft_examples(run, stage)
    counts = Counts()

    def fill(folder: Path) -> dict[str, Any]:
        pictures = Pictures(folder, images)
        write(format, _counted(examples, counts, FORMATS[format].marks), folder, pictures)
        if not counts.rows:
            raise DataError(f"{run.folder / stage}: holds no rows of {what} data; choose another --what or --stage")
        made = Made(format, what, stage, images, pictures.count)
        how = FORMATS[format].how.format(out="FOLDER")
        (folder / "README.md").write_text(data_card(run, made, counts, how), encoding="utf-8")
        return {
            "kind": "data",
            "run": run.name,
            "what": what,
            "stage": stage,
            "format": format,
            "images": images,
            "rows": counts.rows,
            "pictures": pictures.count,
            "altered": {"rows": len(counts.altered), "ids": counts.altered[:NAMED]},
        }

    publish(out, MARKER, fill)
    lines = [f"{out}: {counts.rows:,} rows of {what} data for {format}, README.md tells what is in them"]
    if counts.altered:
        lines.append(f"{len(counts.altered):,} rows held marks of the tool, taken apart by a space: see README.md")
    return [*lines, f"open it: {FORMATS[format].how.format(out=str(out))}"]


def export_model(run: Run, stage: str, out: Path) -> list[str]:
    """Write a stage's checkpoint with a model card; the lines that say what was made."""
    publish(
        out,
        MARKER,
        lambda folder: {"kind": "model", "run": run.name, "stage": stage, **write_model(run, stage, folder)},
    )
    return [f"{out}: the checkpoint of {stage}, README.md is its model card", "open it: from_pretrained(FOLDER)"]


def _counted(examples: Iterable[Example], counts: Counts, marks: bool) -> Iterator[Example]:
    """Each example as it is written, counted on its way."""
    for example in examples:
        written = harmless(example) if marks else example
        if written is not example:
            counts.altered.append(example.path.id)
        counts.add(written)
        yield written
