"""What a plan says of the disk: the checkpoints that stay, and the resume point of a fit under way."""

from __future__ import annotations

from pathlib import Path

import pytest

from mathse.commands.plan.checkpoint_size import RESUME_BYTES_PER_PARAMETER, count_parameters
from mathse.commands.plan.plan import Plan, make_plan
from mathse.commands.plan.table import format_plan
from mathse.config.backbones import CogVLM2, Qwen2VL
from mathse.config.compose import train_config

STUDENT, ORM = 8_291_375_616, 19_503_105_280  # parameters of Qwen2-VL-7B and CogVLM2-19B
TWO_MODELS = ("sft.method=full", "backbone=qwen2vl", "backbone@orm.backbone=cogvlm2", "judge=orm")


def planned(*overrides: str) -> Plan:
    config, _ = train_config(["data.pool=16", "data.orm_train=12", "data.orm_held=6", *overrides])
    return make_plan(config, sample=8)


def test_a_checkpoint_is_measured_by_its_headers(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    assert count_parameters({"path": str(tmp_path)})[0] == 22
    assert count_parameters(Qwen2VL())[0] == STUDENT and count_parameters(CogVLM2())[0] == ORM
    assert count_parameters({"path": None})[0] is None and count_parameters({"path": "org/unknown"})[0] is None


def test_disk_counts_each_checkpoint_that_stays() -> None:
    plan = planned("backbone=qwen2vl", "judge=answer", "evolution.reflect.feedback=none", "sft.method=lora")
    size = 2 * STUDENT  # merged, in bfloat16
    assert [plan.disk(stage) for stage in plan.stages] == [0, size, size, size, 0, size]  # the base is a reference


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [
        (("evolution.init=base",), [2, 2, 2, 2]),
        (("evolution.init=previous",), [4, 4, 4, 2]),  # a fit goes on from all but the final one
        (("trainer.precision=32-true",), [4, 4, 4, 4]),
        (("backbone.dtype=float32", "sft.method=lora"), [4, 4, 4, 4]),
    ],
)
def test_a_full_fits_checkpoint_is_float32_where_a_fit_goes_on_from_it(
    settings: tuple[str, ...], numbers: list[int]
) -> None:
    plan = planned("backbone=qwen2vl", "judge=answer", "evolution.reflect.feedback=none", "sft.method=full", *settings)
    sizes = [plan.disk(stage) for stage in plan.stages if stage.name in ("distill", "round_01", "round_02", "final")]
    assert sizes == [number * STUDENT for number in numbers]


@pytest.mark.parametrize(
    ("more", "largest"),
    [
        ((), ORM),
        (("sft.method=lora", "orm.fit.method=full"), ORM),
        (("orm.fit.method=lora", "orm.solver_steps=0"), STUDENT),
        (("orm.fit.method=lora", "orm.solver_steps=5"), ORM),  # the solver is fitted as the student is
        (("orm.backbone=null",), STUDENT),
        (("sft.method=lora",), 0),  # the ORM's method follows the student's
    ],
)
def test_the_resume_point_is_the_largest_of_the_students_and_the_orms(more: tuple[str, ...], largest: int) -> None:
    plan = planned(*TWO_MODELS, *more)
    assert plan.resume == RESUME_BYTES_PER_PARAMETER * largest
    lines = [line for line in format_plan(plan) if "resume point" in line]
    assert len(lines) == bool(largest) and all(
        f"{RESUME_BYTES_PER_PARAMETER * largest / 2**30:,.1f} GiB" in line for line in lines
    )


def test_an_orm_that_is_not_trained_here_has_no_resume_point(tmp_path: Path) -> None:
    for name in ("config.json", "orm.json"):
        (tmp_path / name).write_text("{}")
    assert planned(*TWO_MODELS, f"judge.checkpoint={tmp_path}").resume == RESUME_BYTES_PER_PARAMETER * STUDENT


def test_an_orm_of_unknown_size_is_named_and_its_resume_point_not_guessed() -> None:
    plan = planned(*TWO_MODELS, "orm.backbone.path=org/unknown")
    assert plan.resume is None and plan.total("disk") is None
    assert "disk, the ORM: the size of org/unknown is not known here" in "\n".join(format_plan(plan))
    assert "resume point" not in "\n".join(format_plan(plan))


# --- features of frozen towers ----------------------------------------------------------------------------------------

COGVLM2 = 9217 * 1792 * 2  # bytes a picture: class token and patches, width, bfloat16
CONNECTED = 2306 * 4096 * 2  # tokens (boi and eoi included), width of the decoder


@pytest.mark.parametrize(
    ("settings", "a_picture"),
    [
        (("judge=answer",), CONNECTED),  # no adapter changes the connector
        (("judge=answer", "sft.method=full", "sft.freeze=[tower]"), COGVLM2),
        (("judge=answer", "sft.tower_features=false"), 0),
        (("judge=orm", "orm.see_image=true", "orm.fit.tower_features=true"), CONNECTED),  # the same tower
        (
            (
                "judge=orm",
                "orm.see_image=true",
                "orm.fit.tower_features=true",
                "orm.fit.method=full",
                "orm.fit.freeze=[tower]",
            ),
            CONNECTED + COGVLM2,
        ),
    ],
)
def test_kept_features_count_once_for_each_frozen_tower(settings: tuple[str, ...], a_picture: int) -> None:
    plan = planned("backbone=cogvlm2", "evolution.reflect.feedback=none", *settings)
    assert plan.pictures > 0 and plan.tower_features == plan.pictures * a_picture
    without = planned("backbone=cogvlm2", "evolution.reflect.feedback=none", *settings, "sft.tower_features=false",
                      "orm.fit.tower_features=false")  # fmt: skip
    assert plan.total("disk") == tuple(low + plan.tower_features for low in without.total("disk") or ())
    rows = [line for line in format_plan(plan) if line.split()[:2] == ["tower", "features"]]
    assert len(rows) == bool(a_picture)


def test_kept_features_take_no_more_than_their_store() -> None:
    plan = planned("backbone=cogvlm2", "judge=answer", "trainer.tower_features_gb=0.5")
    assert plan.tower_features == 2**29 and plan.all_features == plan.pictures * CONNECTED
    assert any("trainer.tower_features_gb = 0.5 runs the tower in each step" in line for line in format_plan(plan))
