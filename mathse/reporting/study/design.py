"""The design of a study's table and picture: ``experiments/NAME/study.yaml``, so no decision is made by hand.

    against: none                       # the variant that all others are compared with; default: the first
    variants: [none, teacher, orm]      # order of the variants; default: by name
    rows: variants                      # or stages: the stages of a single variant, each compared with the stage before
    names: {none: no reflection}        # names of variants for readers; default: the variant, "_" as a space
    axis: feedback from                 # name of the x axis; a line then joins the variants
    over: teacher calls                 # instead of axis: the column of the x axis, or a currency without a column
                                        # (flops, trained_tokens, cpu_seconds, ...; mathse/runs/ledger.py),
    lines: {evolved: [a, b], distilled: [c, d]}  # and the variants that each line joins
    measures:                           # columns: STAGE.KEY of summary.json (last: the last stage), or orm.KEY
      test accuracy: last.accuracy      # the first column is drawn, and compared
      precision: reflection.acceptance_precision
    paper: {none: 62.35, teacher: 64.25, orm: 64.70}  # figures of the paper, in percent
    paper_says: CogVLM2 on MathVL-test, Table 3

Without the file, the columns are the last student's test accuracy and its costs, or the ORM's figures if the variants
train only an ORM.
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

from mathse.config.options import CONF, FLAG, PACKAGE, available, groups, own_folder
from mathse.errors import ConfigError
from mathse.reporting.progress.costs import CURRENCY_NAMES
from mathse.runs.ledger import CURRENCIES as LEDGER_CURRENCIES

SHIPPED = CONF.parent / "experiments"  # the studies that come with MathSE; inside the package in a wheel
EXPERIMENTS = Path("experiments") if CONF.parent == PACKAGE else SHIPPED  # results go here: never into the package
FILE = "study.yaml"
# Default columns of studies with students, and of studies that train only an ORM.
STUDENT_MEASURES = {"test accuracy": "last.accuracy", "teacher calls": "last.teacher_calls", "FLOPs": "last.flops"}
ORM_MEASURES = {
    "overall": "orm.overall_accuracy",
    "right accepted": "orm.positive_accuracy",
    "wrong rejected": "orm.negative_accuracy",
    "first wrong step named": "orm.error_step_accuracy",
}
# Columns that ``over`` may name although ``measures`` lacks them: the cost until the last student, in a currency.
COST_MEASURES = {
    **{key: f"last.{key}" for key in (*LEDGER_CURRENCIES, "cpu_seconds", "gpu_seconds")},
    **{name: f"last.{key}" for key, name in CURRENCY_NAMES.items()},
}


def study_commands() -> tuple[str, str]:
    """Return the beginnings of two commands: to make a study's runs, and to collect them.

    They differ between a checkout and an installed MathSE.
    """
    folder = own_folder()
    options = "" if folder is None else f" {FLAG} {shlex.quote(os.path.relpath(folder))}"
    train = "mathse train" if options or CONF.parent == PACKAGE else "python train.py"
    return f"{train} -m{options}", f"python -m mathse study{options}"


@dataclass(frozen=True)
class Design:
    """The content of ``study.yaml``. ``measures``: name of a column -> STAGE.KEY or orm.KEY of summary.json."""

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

    def label_of(self, variant: str) -> str:
        """Return a variant's name for readers."""
        return self.names.get(variant, variant.replace("_", " "))

    def with_default_measures(self, trains_only_orms: bool) -> Design:
        """Return the design with the default columns if it names none."""
        return self if self.measures else replace(self, measures=ORM_MEASURES if trains_only_orms else STUDENT_MEASURES)


def read_design(name: str, folder: Path) -> Design:
    """Read and check the design of study ``name`` from ``folder``.

    Raises ConfigError for a study without variants, and for a mistake in ``study.yaml``.
    """
    variants = available(f"experiment/{name}")
    if not variants:
        studies = [g.removeprefix("experiment/") for g in groups() if g.startswith("experiment/")]
        near = [study for study in studies if study.startswith(name)] or get_close_matches(name, studies, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(studies)}"
        raise ConfigError(f"study {name}: no variant in conf/experiment/{name}/{hint}")

    # 1. The file: a mapping with known keys, each of its type.
    file = folder / FILE
    settings = _read_settings(file) if file.is_file() else {}

    # 2. The variants: all of conf/experiment/NAME, in the order of the file.
    order = tuple(map(str, settings.get("variants", variants)))
    if sorted(order) != sorted(variants):
        raise ConfigError(
            f"{file}: variants = {list(order)}: must be those of conf/experiment/{name}/: {list(variants)}"
        )
    design = Design(**{"against": order[0], **settings, "name": name, "variants": order})
    if design.against not in order:
        raise ConfigError(f"{file}: against = {design.against!r}: must be a variant: {list(order)}")
    if design.rows not in ("variants", "stages") or (design.rows == "stages" and len(order) > 1):
        raise ConfigError(f"{file}: rows = {design.rows!r}: must be variants, or stages where there is one variant")
    for variant, label in design.names.items():
        if variant not in order or not isinstance(label, str):
            raise ConfigError(f"{file}: names.{variant} = {label!r}: must be text, of a variant: {list(order)}")

    # 3. The columns, and the picture: ``over`` and ``lines`` come together.
    for column, measure in design.measures.items():
        if not isinstance(column, str) or not isinstance(measure, str) or measure.count(".") != 1:
            raise ConfigError(f"{file}: measures.{column} = {measure!r}: must be STAGE.KEY, such as last.accuracy")
    if design.over in COST_MEASURES and design.over not in design.measures:
        measures = {**(design.measures or STUDENT_MEASURES), design.over: COST_MEASURES[design.over]}
        design = replace(design, measures=measures)
    if (design.over is None) != (not design.lines) or (design.lines and design.over not in design.measures):
        currencies = ", ".join(key for key in COST_MEASURES if " " not in key)
        raise ConfigError(
            f"{file}: over = {design.over!r}: must be a column of measures, {list(design.measures)}, or one of "
            f"{currencies}; and lines must say which variants are joined"
        )
    for line, joined in design.lines.items():
        if not isinstance(line, str) or not isinstance(joined, list) or not joined or not set(joined) <= set(order):
            raise ConfigError(f"{file}: lines.{line} = {joined!r}: must be a list of variants: {list(order)}")

    # 4. The paper's figures.
    for row, figure in design.paper.items():
        if isinstance(figure, bool) or not isinstance(figure, int | float):
            raise ConfigError(f"{file}: paper.{row} = {figure!r}: must be a number, in percent")
        if design.rows == "variants" and row not in order:
            raise ConfigError(f"{file}: paper.{row}: must be a variant: {list(order)}")
    return design


def _read_settings(file: Path) -> dict[str, Any]:
    """Read ``study.yaml`` and check the type of each value. Raises ConfigError with file, key, value and type."""
    try:
        settings: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{file}: is no YAML: {e}") from e
    known = [f.name for f in fields(Design) if f.name != "name"]
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise ConfigError(f"{file}: must be a mapping with {', '.join(known)}")
    if unknown := [key for key in settings if key not in known]:
        raise ConfigError(f"{file}: {unknown[0]}: no such key; there are {', '.join(known)}")
    for key, value in settings.items():
        kind: type = str
        kind_name = "text"
        if key == "variants":
            kind, kind_name = list, "a list"
        elif key in ("names", "measures", "paper", "lines"):
            kind, kind_name = dict, "a mapping"
        if not isinstance(value, kind):
            raise ConfigError(f"{file}: {key} = {value!r}: must be {kind_name}")
    return settings
