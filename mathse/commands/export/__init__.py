"""``mathse export RUN --format FORMAT``: write a run's data in the format of another tool, or a stage's model.

    mathse export outputs/demo/seed_0 --format llamafactory          # D_SFT of the task's last training
    mathse export outputs/demo/seed_0 --format trl --stage round_01
    mathse export outputs/demo/seed_0 --format hf --what orm         # the ORM's labelled paths
    mathse export outputs/demo/seed_0 --format trl --what preferences   # accepted paths beside rejected ones
    mathse export outputs/demo/seed_0 --what model                   # a checkpoint with its model card
    mathse export outputs/demo/seed_0 --what model --push-to-hub OWNER/NAME      # ... also on the hub

Formats (``formats``): llamafactory and swift are JSONL with pictures beside it; trl and hf are parquet with pictures in
it (extra: ``hub``). A row has the prompt, pictures and response of the run's own training. ``--images reference``
writes the paths of the pictures instead of copies. README.md is a data card. No model is loaded, and rows are written
one at a time.

The folder (default: RUN/exports/WHAT-STAGE-FORMAT) is written under another name and renamed when it is complete. The
same run gives the same bytes. An earlier export is replaced, unless a file in it was added or changed since. Another
folder of that name is refused, and so is a run with files that differ from those that its stages recorded.
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
from mathse.commands.export.data_card import ExportOptions, RowCounts, render_data_card
from mathse.commands.export.examples import Example, read_orm_examples, read_preference_examples, read_sft_examples
from mathse.commands.export.formats import FORMATS, defuse_marks, write_rows
from mathse.commands.export.hub import HubRepository
from mathse.commands.export.model_card import render_model_card
from mathse.commands.export.pictures import ExportedPictures, Mode
from mathse.config.backbones import SAYS_ITSELF
from mathse.config.program import program
from mathse.config.schema import OPTIONS
from mathse.errors import ConfigError, DataError
from mathse.runs.layout import ADAPTER, CHECKPOINT, EXPORTS, LAST, ORM_STAGES, OWN_SETTINGS, WEIGHTS
from mathse.runs.published import publish
from mathse.runs.reader import Run, read_run
from mathse.runs.store import read_json, write_json

__all__ = ["export_data", "export_model", "main"]

MARKER = "export.json"  # marks a folder as an export
MODELS = ("model", "adapter")  # values of --what that are weights
MAX_ALTERED_IDS = 100  # ids of altered rows in export.json


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand and return its exit code. Raises MathSEError for a run or folder that cannot be used."""
    parser = argparse.ArgumentParser(
        prog=program("export"), description="Write a run's data or model for other tools and for publishing."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, such as outputs/demo/seed_0")
    parser.add_argument("--format", choices=[*FORMATS], help="the tool that reads the data")
    parser.add_argument(
        "--what",
        choices=("sft", "preferences", "orm", *MODELS),
        default="sft",
        help="default: sft, the rows of D_SFT; preferences: pairs of an accepted and a rejected path; adapter: only "
        "the LoRA weights of a stage",
    )
    parser.add_argument(
        "--stage", help="the stage of the rows or the checkpoint (default: the task's last, such as final)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder to make (default: below RUN/exports)")
    parser.add_argument(
        "--images",
        choices=get_args(Mode),
        default="copy",
        help="copy: pictures in the export (default); reference: their paths",
    )
    parser.add_argument(
        "--push-to-hub", metavar="OWNER/NAME", help="send the export to this repository of the hub; needs HF_TOKEN"
    )
    parser.add_argument(
        "--public",
        action="store_true",
        help="with --push-to-hub: a repository that anybody may read (default: private)",
    )
    arguments = parser.parse_args(argv)
    # Refuse options that contradict each other, before the run is read.
    is_model = arguments.what in MODELS
    if not is_model and arguments.format is None:
        parser.error(f"--format: choose one of {', '.join(FORMATS)}")
    if is_model and arguments.format not in (None, "hf"):
        parser.error(f"--what {arguments.what}: it has one format, that of from_pretrained; leave out --format")
    if arguments.what == "orm" and arguments.stage not in (None, "orm"):
        parser.error("--what orm: the rows are those of the stage orm; leave out --stage")
    if arguments.public and arguments.push_to_hub is None:
        parser.error("--public: applies to the repository of --push-to-hub; pass that too")
    repository = None if arguments.push_to_hub is None else HubRepository(arguments.push_to_hub, arguments.public)
    if repository is not None and arguments.images == "reference" and not is_model:
        raise ConfigError(
            "--images reference: names files of this machine, which --push-to-hub does not send; leave it out"
        )

    # Only unchanged files of the run may be published.
    run = read_run(arguments.run)
    run.verify()
    stage = "orm" if arguments.what == "orm" else arguments.stage or LAST.get(run.task, "final")
    name = stage if arguments.what == "orm" else f"{arguments.what}-{stage.replace('/', '-')}"
    out = arguments.out or arguments.run / EXPORTS / (name if is_model else f"{name}-{arguments.format}")
    if is_model:
        lines = export_model(run, stage, out, adapter=arguments.what == "adapter")
    else:
        lines = export_data(run, out, arguments.format, arguments.what, stage, arguments.images)
    print("\n".join(lines), flush=True)
    if repository is not None:
        print(repository.push(out, "model" if is_model else "dataset", MARKER))
    return 0


def export_data(run: Run, out: Path, format: str, what: str, stage: str, images: Mode = "copy") -> list[str]:
    """Write rows in the format of a tool.

    Args:
        what: "sft" or "preferences", rows of a stage, or "orm", the ORM's labelled paths.

    Returns the lines to print.
    """
    pairs, tool = what == "preferences", FORMATS[format]
    if what == "orm":
        examples = read_orm_examples(run)
    else:
        examples = read_preference_examples(run, stage) if pairs else read_sft_examples(run, stage)
    opened_by = tool.pairs_by if pairs and tool.pairs_by else tool.opened_by
    counts = RowCounts()

    def count_examples() -> Iterator[Example]:
        """Yield each example as it is written, and count it."""
        for example in examples:
            changed = defuse_marks(example) if tool.has_marks else example
            if changed is not example:
                counts.altered.append(example.path.id)
            counts.add(changed)
            yield changed

    def fill(folder: Path) -> dict[str, Any]:
        pictures = ExportedPictures(folder, images)
        write_rows(format, count_examples(), folder, pictures, pairs)
        if not counts.rows:
            raise DataError(f"{run.folder / stage}: holds no rows of {what} data; choose another --what or --stage")
        options = ExportOptions(format, what, stage, images, pictures.count)
        open_with = opened_by.format(out="FOLDER")
        (folder / "README.md").write_text(render_data_card(run, options, counts, open_with), encoding="utf-8")
        return {
            "kind": "data",
            "run": run.name,
            "what": what,
            "stage": stage,
            "format": format,
            "images": images,
            "rows": counts.rows,
            "pictures": pictures.count,
            "altered": {"rows": len(counts.altered), "ids": counts.altered[:MAX_ALTERED_IDS]},
        }

    publish(out, MARKER, fill)
    lines = [f"{out}: {counts.rows:,} rows of {what} data for {format}; README.md describes them"]
    if counts.altered:
        lines.append(f"{len(counts.altered):,} rows had marks of the tool, which a space now splits: see README.md")
    return [*lines, f"open it: {opened_by.format(out=str(out))}"]


def export_model(run: Run, stage: str, out: Path, adapter: bool = False) -> list[str]:
    """Write a stage's checkpoint, or only its LoRA adapter, with a model card. Returns the lines to print.

    Weights are hard links where the disk allows it. Small files are always copies, because tools rewrite them. A base
    that refers to a published InternVL2.5 is converted. Raises DataError for a stage without a checkpoint or adapter.
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
        # A base that refers to a published InternVL2.5 is converted: other tools read only transformers' layout.
        checkpoint = source.folder / CHECKPOINT
        if not adapter and read_json(checkpoint / "config.json").get("model_type") == PUBLISHED_LAYOUT:
            (folder / "README.md").write_text(render_model_card(run, stage), encoding="utf-8")
            convert(checkpoint, folder / "converted")  # a separate folder until it is complete
            for file in (folder / "converted").iterdir():
                file.rename(folder / file.name)
            write_json(folder / OWN_SETTINGS, collect_settings(run, stage))
            (folder / "converted").rmdir()
            size = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in WEIGHTS)
            return {"kind": "model", "run": run.name, "stage": stage, "bytes": size}
        made = {name: file for name, file in source.manifest["outputs"].items() if name.startswith(inside)}
        if not made:
            raise DataError(f"{source.folder / inside}: no adapter; only a training with sft.method=lora has one")
        # Weights are hard links to the run's files, or copies on another disk.
        size = 0
        for name, recorded in made.items():  # the files of the stage, not others beside them
            target = folder / name.removeprefix(inside)
            target.parent.mkdir(parents=True, exist_ok=True)
            size += recorded["bytes"]
            if target.suffix in WEIGHTS:
                try:
                    os.link((source.folder / name).resolve(), target)  # resolved: the file of a reference
                    continue
                except OSError:
                    pass  # another disk
            shutil.copyfile(source.folder / name, target)
        if adapter:
            name_base(folder, run, source)
        else:
            write_json(folder / OWN_SETTINGS, collect_settings(run, stage))
        (folder / "README.md").write_text(render_model_card(run, stage, adapter), encoding="utf-8")
        return {"kind": "adapter" if adapter else "model", "run": run.name, "stage": stage, "bytes": size}

    publish(out, MARKER, fill)
    if adapter:
        return [
            f"{out}: the adapter of {stage}, README.md is its model card",
            "open it: PeftModel.from_pretrained(BASE, FOLDER)",
        ]
    return [f"{out}: the checkpoint of {stage}, README.md is its model card", "open it: from_pretrained(FOLDER)"]


def collect_settings(run: Run, stage: str) -> dict[str, Any]:
    """Return the settings with which ``mathse evaluate`` opens and samples an exported model without its run.

    No setting names a file of this machine.
    """
    # The ORM's stages may have another backbone than the student.
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
    # A task domain with a folder of prompts exists only on this machine.
    domain = run.config.get("task_domain")
    if domain is not None and not Path(domain["texts"]).is_dir():
        settings["task_domain"] = domain
    return settings
