"""The design of a study's table and picture: ``experiments/NAME/study.yaml``, so no decision is made by hand.

    against: none                       # whom the other variants are compared with; default: the first
    variants: [none, teacher, orm]      # their order; default: by name
    rows: variants                      # or stages: one variant's stages, each compared with the one before
    names: {none: no reflection}        # what tables and picture call a variant; default: its name, "_" as a space
    axis: feedback from                 # what the variants are steps of; they are then joined by a line
    over: teacher calls                 # instead: the column that the first one is drawn against, or a currency that
                                        # is none (flops, trained_tokens, cpu_seconds, ...; mathse/runs/ledger.py),
    lines: {evolved: [a, b], distilled: [c, d]}  # and which variants a line of the drawing joins
    measures:                           # columns: STAGE.KEY of summary.json's stages (last: the last one), or orm.KEY
      test accuracy: last.accuracy      # the first one is drawn, and compared
      precision: reflection.acceptance_precision
    paper: {none: 62.35, teacher: 64.25, orm: 64.70}  # what the paper prints, in percent
    paper_says: CogVLM2 on MathVL-test, Table 3

Without the file: the last student's test accuracy and the teacher calls that it took, or the ORM's figures where the
variants train an ORM alone.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from mathse.config.options import CONF, FLAG, PACKAGE, list_groups, list_options, own_folder
from mathse.errors import ConfigError
from mathse.reporting.progress.costs import NAMES
from mathse.runs.ledger import CURRENCIES as LEDGER_CURRENCIES

DESCRIBED = CONF.parent / "experiments"  # the studies that come with MathSE; inside the package in a wheel
EXPERIMENTS = Path("experiments") if CONF.parent == PACKAGE else DESCRIBED  # where results go: never into the package
FILE = "study.yaml"
TEXT = (str, "text")
KINDS = {
    "variants": (list, "a list"),
    "names": (dict, "a mapping"),
    "measures": (dict, "a mapping"),
    "paper": (dict, "a mapping"),
    "lines": (dict, "a mapping"),
}  # others: text
OF_STUDENTS = {"test accuracy": "last.accuracy", "teacher calls": "last.teacher_calls", "FLOPs": "last.flops"}
# ``over`` may name these without a column: a currency of the ledger, until the last student.
CURRENCIES = {
    **{key: f"last.{key}" for key in (*LEDGER_CURRENCIES, "cpu_seconds", "gpu_seconds")},
    **{name: f"last.{key}" for key, name in NAMES.items()},
}
OF_ORMS = {
    "overall": "orm.overall_accuracy",
    "right accepted": "orm.positive_accuracy",
    "wrong rejected": "orm.negative_accuracy",
    "first wrong step named": "orm.error_step_accuracy",
}


def programs() -> tuple[str, str]:
    """How the commands begin that make a study's runs and collect them: from a checkout, or of an installed MathSE."""
    folder = own_folder()
    options = "" if folder is None else f" {FLAG} {shlex.quote(os.path.relpath(folder))}"
    train = "mathse train" if options or CONF.parent == PACKAGE else "python train.py"
    return f"{train} -m{options}", f"python -m mathse study{options}"


@dataclass(frozen=True)
class Design:
    """A study as described. ``measures``: what a column is called -> STAGE.KEY or orm.KEY of summary.json."""

    name: str
    variants: tuple[str, ...]
    against: str
    rows: str = "variants"
    names: Mapping[str, str] = field(default_factory=dict)
    axis: str | None = None
    over: str | None = None
    lines: Mapping[str, list[str]] = field(default_factory=dict)
    measures: Mapping[str, str] = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)
    paper_says: str | None = None

    def called(self, variant: str) -> str:
        """A variant's name for readers."""
        return self.names.get(variant, variant.replace("_", " "))

    def measured(self, of_orms: bool) -> Design:
        """With the measures that are usual for such runs, where none are named."""
        return self if self.measures else replace(self, measures=OF_ORMS if of_orms else OF_STUDENTS)


def read_design(name: str, folder: Path) -> Design:
    """Raises ConfigError for a study without variants, and for a ``study.yaml`` that does not fit."""
    variants = list_options(f"experiment/{name}")
    if not variants:
        studies = [g.removeprefix("experiment/") for g in list_groups() if g.startswith("experiment/")]
        near = [study for study in studies if study.startswith(name)] or get_close_matches(name, studies, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(studies)}"
        raise ConfigError(f"study {name}: no variant in conf/experiment/{name}/{hint}")
    file = folder / FILE
    described: Any = {}
    if file.is_file():
        try:
            described = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as e:
            raise ConfigError(f"{file}: is no YAML: {e}") from e
        known = [f.name for f in fields(Design) if f.name != "name"]
        if not isinstance(described, dict) or not all(isinstance(key, str) for key in described):
            raise ConfigError(f"{file}: must be a mapping with {', '.join(known)}")
        if unknown := [key for key in described if key not in known]:
            raise ConfigError(f"{file}: {unknown[0]}: no such key; there are {', '.join(known)}")
        for key, value in described.items():
            kind, kind_name = KINDS.get(key, TEXT)
            if not isinstance(value, kind):
                raise ConfigError(f"{file}: {key} = {value!r}: must be {kind_name}")

    order = tuple(map(str, described.get("variants", variants)))
    if sorted(order) != sorted(variants):
        raise ConfigError(
            f"{file}: variants = {list(order)}: must be those of conf/experiment/{name}/: {list(variants)}"
        )
    design = Design(**{"against": order[0], **described, "name": name, "variants": order})
    if design.against not in order:
        raise ConfigError(f"{file}: against = {design.against!r}: must be a variant: {list(order)}")
    if design.rows not in ("variants", "stages") or (design.rows == "stages" and len(order) > 1):
        raise ConfigError(f"{file}: rows = {design.rows!r}: must be variants, or stages where there is one variant")
    for variant, called in design.names.items():
        if variant not in order or not isinstance(called, str):
            raise ConfigError(f"{file}: names.{variant} = {called!r}: must be text, of a variant: {list(order)}")
    for column, measure in design.measures.items():
        if not isinstance(column, str) or not isinstance(measure, str) or measure.count(".") != 1:
            raise ConfigError(f"{file}: measures.{column} = {measure!r}: must be STAGE.KEY, such as last.accuracy")
    if design.over in CURRENCIES and design.over not in design.measures:
        design = replace(design, measures={**(design.measures or OF_STUDENTS), design.over: CURRENCIES[design.over]})
    if (design.over is None) != (not design.lines) or (design.lines and design.over not in design.measures):
        raise ConfigError(
            f"{file}: over = {design.over!r}: must be a column of measures, {list(design.measures)}, or one of "
            f"{', '.join(key for key in CURRENCIES if ' ' not in key)}; and lines must say which variants are joined"
        )
    for line, joined in design.lines.items():
        if not isinstance(line, str) or not isinstance(joined, list) or not joined or not set(joined) <= set(order):
            raise ConfigError(f"{file}: lines.{line} = {joined!r}: must be a list of variants: {list(order)}")
    for row, figure in design.paper.items():
        if isinstance(figure, bool) or not isinstance(figure, int | float):
            raise ConfigError(f"{file}: paper.{row} = {figure!r}: must be a number, in percent")
        if design.rows == "variants" and row not in order:
            raise ConfigError(f"{file}: paper.{row}: must be a variant: {list(order)}")
    return design
