"""What a plan says of tokens and operations, against the ledgers of the run that follows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import TINY, run, stages
from small import solved_rows

from mathse.__main__ import main
from mathse.commands.plan.plan import make_plan
from mathse.config import backbones
from mathse.config.compose import train_config
from mathse.config.fits import Fit, Lora
from mathse.models import modes
from mathse.models.flops import count_amounts, count_forward_flops, count_training_flops
from mathse.models.needs import find_architecture
from mathse.models.tiny import TinyBackbone
from mathse.runs.store import read_json

CURRENCIES = ("prefilled_tokens", "sampled_tokens", "trained_tokens", "flops")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned") / "run"
    run(folder, *TINY)
    return folder


def planned(tmp_path: Path, *more: str) -> dict[str, dict[str, Any]]:
    assert main(["plan", *TINY, *more, "--json", str(tmp_path / "plan.json")]) == 0
    return {stage["stage"]: stage for stage in read_json(tmp_path / "plan.json")["stages"]}


def spent(folder: Path) -> Iterator[tuple[str, str, str, int]]:
    """Stage, account, currency, and how much it was."""
    for name, manifest in stages(folder).items():
        for account in ("method", "measuring"):
            for currency in CURRENCIES:
                yield name, account, currency, manifest["ledger"][account][currency]


def holds(predicted: Any, amount: int, rel: float) -> bool:
    low, high = predicted if isinstance(predicted, list) else (predicted, predicted)
    return bool(low * (1 - rel) <= amount <= high * (1 + rel))


def test_a_plan_predicts_about_what_the_stages_spend(made: Path, tmp_path: Path) -> None:
    """A prediction from words is a quarter to a third off: the tiny model's tokenizer has other tokens than words."""
    plan = planned(tmp_path)
    for name, account, currency, amount in spent(made):
        assert holds(plan[name][account][currency], amount, rel=0.4), (name, account, currency, amount)


def test_with_an_earlier_run_it_predicts_the_rows_of_fits_and_the_paths_closely(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(tmp_path, "--like", str(made))
    for name, account, currency, amount in spent(made):
        if account == "method" and name in ("orm/student_8", "orm/solver", "orm", "distill", "round_01"):
            assert holds(plan[name][account][currency], amount, rel=0.25), (name, currency, amount)
    told = capsys.readouterr().out
    assert f"measured in the ledgers of {made}" in told and "FLOPs to measure" in told


def test_where_the_sizes_of_the_backbone_are_not_known_operations_are_not_made_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *TINY[: TINY.index("experiment=smoke") + 1], "backbone=hf", "backbone.path=some/model",
                 "--json", str(tmp_path / "plan.json")]) == 0  # fmt: skip
    assert read_json(tmp_path / "plan.json")["total"]["method"]["flops"] is None
    assert "not known" in capsys.readouterr().out


FITS = {
    "full": Fit(),
    "frozen tower": Fit(freeze=["tower", "connector"]),
    "lora": Fit(method="lora", lora=Lora(rank=4, dropout=0.0)),
}


@pytest.mark.parametrize("fit", FITS)
def test_operations_in_a_model_without_numbers_are_those_of_the_open_model(fit: str) -> None:
    sizes: dict[str, Any] = {"hidden_size": 64, "layers": 2, "heads": 2, "mlp_size": 128, "vision_size": 32}
    section = backbones.TinyBackbone(**sizes)
    model, backbone = find_architecture(section), TinyBackbone(section, init_seed=0)
    assert model is not None
    amounts = count_amounts(backbone.pad(backbone.encode(solved_rows(backbone, 4))), backbone.patch_size)
    assert model.reading.of(amounts) == count_forward_flops(backbone).of(amounts)
    modes.prepare(backbone, FITS[fit], "32-true", 0)
    assert model.training(FITS[fit], "32-true").whole.of(amounts) == count_training_flops(backbone).of(amounts)


@pytest.mark.parametrize(("backbone", "tokens"), [("cogvlm2", 2306), ("internvl2_5", 4 * 256 + 3), ("qwen2vl", 3 + 2)])
def test_a_picture_of_a_plan_takes_the_tokens_that_it_takes_in_a_row(backbone: str, tokens: int) -> None:
    """Pictures of 84 x 28 pixels: CogVLM2 scales each to one size, InternVL2.5 cuts three tiles and a thumbnail."""
    config, _ = train_config([f"backbone={backbone}", "data=synthetic", "data.pool=16"])
    assert make_plan(config, sample=4).spending.student.picture == tokens
