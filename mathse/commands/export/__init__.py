"""``mathse export RUN --format FORMAT``: a run's data as other tools read it, or a stage's model.

    mathse export outputs/demo/seed_0 --format llamafactory          # D_SFT of the task's last fit
    mathse export outputs/demo/seed_0 --format trl --stage round_01
    mathse export outputs/demo/seed_0 --format hf --what orm         # the ORM's labelled paths
    mathse export outputs/demo/seed_0 --format trl --what preferences   # accepted paths beside rejected ones
    mathse export outputs/demo/seed_0 --what model                   # a checkpoint with its model card
    mathse export outputs/demo/seed_0 --what model --push-to-hub OWNER/NAME      # ... on the hub too: ``hub``

Formats: llamafactory, swift (JSONL, pictures beside it), trl, hf (parquet, pictures in it; extra: ``hub``), see
``formats``. A row trains what the run's own fit trained: the same prompt, pictures and response. ``--images reference``
names pictures where they lie. README.md is a data card. No model is loaded; rows are written one at a time.

The folder (default: RUN/exports/WHAT-STAGE-FORMAT) is written aside and published whole; the same run gives the same
bytes. An export that is there is made anew, unless a file in it was added or changed since; any other folder of that
name is refused, and so is a run whose files are not those that its stages recorded.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from mathse.commands.convert import PUBLISHED_LAYOUT, convert
from mathse.commands.export.adapter import name_base
from mathse.commands.export.data_card import ExportOptions, RowCounts, data_card
from mathse.commands.export.examples import Example, orm_examples, preference_examples, sft_examples
from mathse.commands.export.formats import FORMATS, harmless, write
from mathse.commands.export.hub import HubRepository
from mathse.commands.export.model_card import model_card
from mathse.commands.export.pictures import ExportedPictures, Mode
from mathse.config.backbones import SAYS_ITSELF
from mathse.config.program import format_command
from mathse.config.schema import OPTIONS
from mathse.errors import ConfigError, DataError
from mathse.runs.layout import ADAPTER, CHECKPOINT, EXPORTS, LAST, ORM_STAGES, OWN_SETTINGS, WEIGHTS
from mathse.runs.published import publish
from mathse.runs.reader import Run, read_run
from mathse.runs.store import read_json, write_json

__all__ = ["export_data", "export_model", "main"]

MARKER = "export.json"  # what an export is known by
MODELS = ("model", "adapter")  # of what may be exported, those that are weights
NAMED = 100  # altered rows that export.json names


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; raises MathSEError for a run or folder that cannot be used."""
    parser = argparse.ArgumentParser(
        prog=format_command("export"), description="A run's data or model, for other tools and for publishing"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, such as outputs/demo/seed_0")
    parser.add_argument("--format", choices=[*FORMATS], help="whose form the data is written in")
    parser.add_argument(
        "--what",
        choices=("sft", "preferences", "orm", *MODELS),
        default="sft",
        help="default: sft, the rows of D_SFT; preferences: pairs of an accepted and a rejected path; adapter: the "
        "LoRA weights of a stage alone",
    )
    parser.add_argument("--stage", help="whose rows or checkpoint (default: the task's last, such as final)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder to make (default: below RUN/exports)")
    parser.add_argument("--images", choices=get_args(Mode), default="copy", help="into the export (default), or not")
    parser.add_argument(
        "--push-to-hub", metavar="OWNER/NAME", help="send the export to this repository of the hub; needs HF_TOKEN"
    )
    parser.add_argument(
        "--public", action="store_true", help="with --push-to-hub: anybody may read it (default: private)"
    )
    arguments = parser.parse_args(argv)
    of_a_model = arguments.what in MODELS
    if not of_a_model and arguments.format is None:
        parser.error(f"--format: choose one of {', '.join(FORMATS)}")
    if of_a_model and arguments.format not in (None, "hf"):
        parser.error(f"--what {arguments.what}: it has one form, that of from_pretrained; leave out --format")
    if arguments.what == "orm" and arguments.stage not in (None, "orm"):
        parser.error("--what orm: the rows are those of stage orm; leave out --stage")
    if arguments.public and arguments.push_to_hub is None:
        parser.error("--public: says who may read what --push-to-hub sends; pass that too")
    repository = None if arguments.push_to_hub is None else HubRepository(arguments.push_to_hub, arguments.public)
    if repository is not None and arguments.images == "reference" and not of_a_model:
        raise ConfigError(
            "--images reference: names files of this machine, which --push-to-hub does not send; leave it out"
        )

    run = read_run(arguments.run)
    run.verify()  # what is passed on is what the run made
    stage = "orm" if arguments.what == "orm" else arguments.stage or LAST.get(run.task, "final")
    name = stage if arguments.what == "orm" else f"{arguments.what}-{stage.replace('/', '-')}"
    out = arguments.out or arguments.run / EXPORTS / (name if of_a_model else f"{name}-{arguments.format}")
    if of_a_model:
        lines = export_model(run, stage, out, adapter=arguments.what == "adapter")
    else:
        lines = export_data(run, out, arguments.format, arguments.what, stage, arguments.images)
    print("\n".join(lines), flush=True)
    if repository is not None:
        print(repository.push(out, "model" if of_a_model else "dataset", MARKER))
    return 0


def export_data(run: Run, out: Path, format: str, what: str, stage: str, images: Mode = "copy") -> list[str]:
    """Write the rows of a stage (``what`` "sft" or "preferences") or of the ORM in a tool's form; the lines that say
    what was made."""
    pairs, form = what == "preferences", FORMATS[format]
    of_stage = preference_examples if pairs else sft_examples
    examples = orm_examples(run) if what == "orm" else of_stage(run, stage)
    opened_by = form.pairs_by if pairs and form.pairs_by else form.opened_by
    counts = RowCounts()

    def written(marks: bool) -> Iterator[Example]:
        """Each example as it is written, counted on its way."""
        for example in examples:
            changed = harmless(example) if marks else example
            if changed is not example:
                counts.altered.append(example.path.id)
            counts.add(changed)
            yield changed

    def fill(folder: Path) -> dict[str, Any]:
        pictures = ExportedPictures(folder, images)
        write(format, written(form.marks), folder, pictures, pairs)
        if not counts.rows:
            raise DataError(f"{run.folder / stage}: holds no rows of {what} data; choose another --what or --stage")
        options = ExportOptions(format, what, stage, images, pictures.count)
        open_with = opened_by.format(out="FOLDER")
        (folder / "README.md").write_text(data_card(run, options, counts, open_with), encoding="utf-8")
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
    return [*lines, f"open it: {opened_by.format(out=str(out))}"]


def export_model(run: Run, stage: str, out: Path, adapter: bool = False) -> list[str]:
    """Write a stage's checkpoint, or its LoRA adapter alone, with a model card; the lines that say what was made.

    Weights are hard links where the disk can, small files always copies: tools rewrite them. A base that refers to a
    published InternVL2.5 is converted. Raises DataError where the stage has no checkpoint, or no adapter.
    """
    inside = f"{CHECKPOINT}/{ADAPTER}/" if adapter else f"{CHECKPOINT}/"

    def fill(folder: Path) -> dict[str, Any]:
        source = run.stage(stage)
        if source is None or not source.weights:
            checkpoint, others = run.folder / stage / CHECKPOINT, [s.name for s in run.stages if s.weights]
            if not others:
                raise DataError(
                    f"{checkpoint}: holds no weights, and neither does another finished stage; export another run"
                )
            raise DataError(f"{checkpoint}: no weights of a finished stage; choose --stage {' or '.join(others)}")
        checkpoint = source.folder / CHECKPOINT
        if not adapter and read_json(checkpoint / "config.json").get("model_type") == PUBLISHED_LAYOUT:
            (folder / "README.md").write_text(model_card(run, stage), encoding="utf-8")
            convert(checkpoint, folder / "converted")  # a folder of its own until it is whole
            for file in (folder / "converted").iterdir():
                file.rename(folder / file.name)
            write_json(folder / OWN_SETTINGS, own_settings(run, stage))
            (folder / "converted").rmdir()
            size = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in WEIGHTS)
            return {"kind": "model", "run": run.name, "stage": stage, "bytes": size}
        made = {name: file for name, file in source.manifest["outputs"].items() if name.startswith(inside)}
        if not made:
            raise DataError(f"{source.folder / inside}: no adapter; it is there after a fit with sft.method=lora")
        size = 0
        for name, recorded in made.items():  # what the stage made, nothing that lies beside it
            target = folder / name.removeprefix(inside)
            target.parent.mkdir(parents=True, exist_ok=True)
            size += recorded["bytes"]
            if target.suffix in WEIGHTS:
                try:
                    os.link((source.folder / name).resolve(), target)  # of a reference: what it leads to
                    continue
                except OSError:
                    pass  # another disk
            shutil.copyfile(source.folder / name, target)
        if adapter:
            name_base(folder, run, source)
        else:
            write_json(folder / OWN_SETTINGS, own_settings(run, stage))
        (folder / "README.md").write_text(model_card(run, stage, adapter), encoding="utf-8")
        return {"kind": "adapter" if adapter else "model", "run": run.name, "stage": stage, "bytes": size}

    publish(out, MARKER, fill)
    if adapter:
        return [
            f"{out}: the adapter of {stage}, README.md is its model card",
            "open it: PeftModel.from_pretrained(BASE, FOLDER)",
        ]
    return [f"{out}: the checkpoint of {stage}, README.md is its model card", "open it: from_pretrained(FOLDER)"]


def own_settings(run: Run, stage: str) -> dict[str, Any]:
    """The settings with which ``mathse evaluate`` opens and samples an exported model without its run; none
    names a file of this machine."""
    backbone = (run.config["orm"].get("backbone") if stage in ORM_STAGES else None) or run.config["backbone"]
    in_folder = next((SAYS_ITSELF[s] for s in OPTIONS["backbone"] if s()._target_ == backbone["_target_"]), {})
    sections = {
        "evaluation": ("batch_size", "max_new_tokens"),
        "judge": ("batch_size", "max_new_tokens"),
        "generator": ("_target_", "batch_size", "temperature", "top_p", "top_k"),
    }
    settings: dict[str, Any] = {
        "backbone": {k: v for k, v in backbone.items() if k not in ("path", "revision")} | in_folder,
        **{name: {k: run.config[name][k] for k in keys if k in run.config[name]} for name, keys in sections.items()},
    }
    domain = run.config.get("task_domain")
    if domain is not None and not Path(domain["texts"]).is_dir():
        settings["task_domain"] = domain
    return settings
