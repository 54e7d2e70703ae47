"""Training modes: what a fit changes, what it leaves alone, what it writes, and that it can be cut short."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from e2e.runs import TINY, run
from peft import PeftModel
from safetensors.torch import load_file
from small import log_of, problems, solved_rows, tiny_backbone
from torch import Tensor

from mathse.commands.tiny import BUILDERS
from mathse.config.fits import Fit, Lora, Optimizer
from mathse.config.schema import Trainer
from mathse.errors import CheckpointError
from mathse.inference.rows import solve_row
from mathse.models import adapters, load, modes
from mathse.models.base import Backbone
from mathse.models.memory import TrainingSummary
from mathse.models.parts import find_part, iterate_parameters
from mathse.models.row import Row
from mathse.runs.layout import SCRATCH
from mathse.training.batches import OnceStream
from mathse.training.fit import FitJob, fit
from mathse.training.loader import StepData
from mathse.training.sft import SFTModule, is_vector

TRAINER = Trainer(precision="32-true", checkpoint_every=2, log_every=1)
SETTINGS = Fit(max_steps=6, batch_size=4, micro_batch_size=3, val_every=3, optimizer=Optimizer(lr=5e-3))
LORA = replace(SETTINGS, method="lora", lora=Lora(rank=4, alpha=8, dropout=0.2))
FROZEN = replace(SETTINGS, freeze=["tower", "connector"])
MODES = {
    "full": SETTINGS,
    "frozen": FROZEN,
    "lora": LORA,
    "slow_vision": replace(SETTINGS, freeze=["tower"], vision_lr_scale=0.1),
    "lora_everywhere": replace(LORA, lora=replace(LORA.lora, scopes=["language", "tower"]), vision_lr_scale=0.1),
    "lora_checkpointed": replace(LORA, activation_checkpointing=True),
}
ATOL = 1e-5


def job(folder: Path, rows: Sequence[Row], settings: Fit = SETTINGS, **changes: Any) -> FitJob:
    return FitJob(folder, rows, seed=0, settings=settings, **{"trainer": TRAINER, **changes})


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return solved_rows(tiny_backbone(), 20)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model that fits start from."""
    folder = tmp_path_factory.mktemp("run") / "base" / "checkpoint"
    tiny_backbone().save(folder)
    return folder


def family(name: str) -> Backbone:
    module, _, builder = BUILDERS[name].rpartition(".")
    backbone: Backbone = getattr(import_module(module), builder)(0)
    return backbone


def weights(checkpoint: Path) -> dict[str, Tensor]:
    return load_file(checkpoint / "model.safetensors")


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def changed(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    assert set(one) == set(other)
    return {name for name, tensor in one.items() if not torch.equal(tensor, other[name])}


class Stopped(Exception):
    """A kill, as far as one can be played inside a process."""


class At(pl.Callback):
    """Calls ``look(module)`` in a hook of the trainer."""

    def __init__(self, hook: str, look: Callable[[Any], object]) -> None:
        setattr(self, hook, lambda trainer, module, *_: look(module))


class StopAt(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise Stopped


def gradients(backbone: Backbone, rows: Sequence[Row], settings: Fit) -> tuple[float, dict[str, Tensor]]:
    """The loss of these rows, and the gradients by name, as a step of a fit gets them."""
    modes.prepare(backbone, settings, "32-true", seed=0)
    stream = OnceStream(rows, len(rows))
    step = StepData(stream, backbone, settings.micro_batch_size, 1)[0]
    backbone.model.train()
    total = 0.0
    for micro in step:
        logits, targets = backbone.answer_logits(micro)
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / step.counts.targets
        loss.backward()
        total += loss.item()
    return total, {n: p.grad for n, p in backbone.model.named_parameters() if p.grad is not None}


def first_step(base: Path, folder: Path, rows: Sequence[Row], settings: Fit) -> dict[str, Tensor]:
    """The gradients of one step of a fit, by name; not clipped."""
    found: dict[str, Tensor] = {}

    def look(module: SFTModule) -> None:
        found.update({n: p.grad.clone() for n, p in module.model.named_parameters() if p.grad is not None})

    one = replace(settings, max_steps=1, batch_size=len(rows), optimizer=Optimizer(lr=1e-3, clip=1e9))
    fit(load("tiny", base), job(folder, rows, one), [At("on_before_optimizer_step", look)])
    return found


def ragged() -> list[Row]:
    return [Row(question="q " * (1 + 3 * i), images=(), response="7 + 5 = 12. " * (1 + i * i)) for i in range(4)]


# --- what a fit changes ---------------------------------------------------------------------------------------------


def test_adapters_are_merged_into_the_weights_of_their_scope_and_no_others(
    base: Path, tmp_path: Path, rows: list[Row]
) -> None:
    done = fit(load("tiny", base), job(tmp_path, rows, LORA))
    found = changed(weights(base), weights(done))
    assert found and all("layers" in n and n.endswith("_proj.weight") and "visual" not in n for n in found)
    assert len(found) == 7  # of the one layer
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]


def test_frozen_parts_stay_as_they_were_to_the_bit(base: Path, tmp_path: Path, rows: list[Row]) -> None:
    found = changed(weights(base), weights(fit(load("tiny", base), job(tmp_path, rows, FROZEN))))
    assert found and not any("visual" in name for name in found)
    only_tower = replace(SETTINGS, freeze=["tower"])
    found = changed(weights(base), weights(fit(load("tiny", base), job(tmp_path / "2", rows, only_tower))))
    assert {n for n in found if "visual" in n} == {n for n in weights(base) if "visual.merger" in n}


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_every_family_trains_in_every_mode(name: str, tmp_path: Path) -> None:
    backbone = family(name)
    backbone.save(tmp_path / "base")
    rows = [solve_row(backbone.prompt_style, p, p.solution) for p in problems(4)]
    two_steps = {"max_steps": 2, "activation_checkpointing": True}
    for settings in (replace(SETTINGS, freeze=["tower"]), LORA):
        folder = tmp_path / f"{settings.method}{len(settings.freeze)}"
        backbone = load(name, tmp_path / "base", dtype="float32")
        before = {n: p.clone() for n, p in backbone.model.named_parameters()}
        this = job(folder, rows, replace(settings, **two_steps), trainer=Trainer(precision="bf16-mixed", log_every=1))
        done = fit(backbone, this)
        assert losses(folder)[1] < losses(folder)[0]
        after = load(name, done, dtype="float32")
        for part, parameter_name, parameter in iterate_parameters(after):
            if part in settings.freeze or (settings.method == "lora" and part != "language"):
                assert torch.equal(parameter, before[parameter_name]), parameter_name
            assert torch.equal(parameter, backbone.model.get_parameter(parameter_name)), parameter_name


def test_dropout_of_adapters_is_on_in_steps_and_off_in_validation(base: Path, tmp_path: Path, rows: list[Row]) -> None:
    seen: dict[str, set[bool]] = {"step": set(), "validation": set()}

    def look(kind: str) -> Callable[[Any], None]:
        return lambda module: seen[kind].update(m.training for m in module.model.modules())

    hooks = [At("on_train_batch_start", look("step")), At("on_validation_batch_start", look("validation"))]
    fit(load("tiny", base), job(tmp_path, rows, LORA, val_rows=rows[:4]), hooks)
    assert seen == {"step": {True}, "validation": {False}}


@pytest.mark.parametrize("mode", ["full", "slow_vision", "lora_checkpointed"])
def test_a_fit_leaves_a_plain_model_behind(base: Path, tmp_path: Path, rows: list[Row], mode: str) -> None:
    backbone = load("tiny", base)
    model, names = backbone.model, list(backbone.model.state_dict())
    fit(backbone, job(tmp_path, rows, replace(MODES[mode], max_steps=1)))
    assert backbone.model is model and list(model.state_dict()) == names and backbone.adapter is None
    assert all(p.requires_grad for p in model.parameters())
    assert not any(getattr(m, "gradient_checkpointing", False) or m.training for m in model.modules())


# --- what it writes -------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_adapters_looks_like_any_other_and_has_the_adapter_beside_it(
    base: Path, tmp_path: Path, rows: list[Row]
) -> None:
    plain = fit(load("tiny", base), job(tmp_path / "full", rows))
    merged = fit(load("tiny", base), job(tmp_path / "lora", rows, LORA))
    assert {f.name for f in merged.iterdir()} == {"adapter", *(f.name for f in plain.iterdir())}
    assert (merged / "config.json").read_bytes() == (plain / "config.json").read_bytes()
    assert {n: t.dtype for n, t in weights(merged).items()} == {n: t.dtype for n, t in weights(plain).items()}

    opened, on_base = load("tiny", merged), load("tiny", base)
    adapted = PeftModel.from_pretrained(on_base.model, merged / "adapter").eval()
    batch = opened.collate(rows[:4])
    with torch.no_grad():
        said, expected, without = (m(**batch).logits for m in (opened.model, adapted, load("tiny", base).model))
    assert (said - expected).abs().max() <= ATOL
    assert (said - without).abs().max() > 100 * ATOL


def test_equal_fits_of_adapters_write_equal_bytes_wherever_they_lie(tmp_path: Path, rows: list[Row]) -> None:
    for folder in (tmp_path / "one", tmp_path / "two"):
        tiny_backbone().save(folder / "base" / "checkpoint")
        fit(load("tiny", folder / "base" / "checkpoint"), job(folder / "distill", rows, LORA))
    one, two = (tmp_path / name / "distill" for name in ("one", "two"))
    names = sorted(f.relative_to(one) for f in one.rglob("*") if f.is_file() and SCRATCH not in f.parts)
    assert Path("checkpoint/adapter/adapter_config.json") in names and Path("trained.json") in names
    names.remove(Path("train_log.jsonl"))
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)
    assert log_of(one) == log_of(two)


# --- going on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["frozen", "lora_everywhere", "lora_checkpointed"])
def test_a_fit_that_was_stopped_goes_on_to_the_same_bytes(
    base: Path, tmp_path: Path, rows: list[Row], mode: str
) -> None:
    whole, stopped = (job(tmp_path / name, rows, MODES[mode], val_rows=rows[:4]) for name in ("whole", "stopped"))
    fit(load("tiny", base), whole)
    with pytest.raises(Stopped):
        fit(load("tiny", base), stopped, [StopAt(3)])
    fit(load("tiny", base), stopped)
    for name in ("checkpoint/model.safetensors", "trained.json"):
        assert (stopped.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert log_of(stopped.folder) == log_of(whole.folder)


@pytest.mark.parametrize(("mode", "share"), [("full", 1.0), ("frozen", 0.7), ("lora", 0.1)])
def test_the_resume_point_holds_what_trains_and_no_more(
    base: Path, tmp_path: Path, rows: list[Row], mode: str, share: float
) -> None:
    backbone = load("tiny", base)
    whole = sum(p.numel() for p in backbone.model.parameters())
    with pytest.raises(Stopped):
        fit(backbone, job(tmp_path, rows, MODES[mode]), [StopAt(3)])
    trains = {n: p.numel() for n, p in backbone.model.named_parameters() if p.requires_grad}
    point = tmp_path / SCRATCH / "point_2"
    stored = {name: t.numel() for file in point.glob("*.safetensors") for name, t in load_file(file).items()}
    kinds = ("weight", "exp_avg", "exp_avg_sq")
    assert stored == {f"{kind}.model.{name}": count for name, count in trains.items() for kind in kinds}
    assert sum(trains.values()) <= share * whole
    nbytes = sum(file.stat().st_size for file in point.iterdir())
    assert nbytes <= 12 * sum(trains.values()) + 1500 * len(trains)  # float32 weights and moments; names and counters


def test_the_resume_point_of_another_mode_is_refused(base: Path, tmp_path: Path, rows: list[Row]) -> None:
    with pytest.raises(Stopped):
        fit(load("tiny", base), job(tmp_path, rows, FROZEN), [StopAt(3)])
    with pytest.raises(CheckpointError, match="a training of other weights"):
        fit(load("tiny", base), job(tmp_path, rows, LORA))


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["frozen", "lora"])
def test_ragged_micro_batches_give_the_gradients_of_one_batch(base: Path, tmp_path: Path, mode: str) -> None:
    settings = replace(MODES[mode], lora=replace(LORA.lora, dropout=0.0))
    whole, single = (
        first_step(base, tmp_path / str(size), ragged(), replace(settings, micro_batch_size=size)) for size in (4, 1)
    )
    assert whole and set(whole) == set(single)
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-3
    for name, gradient in whole.items():
        assert torch.allclose(gradient, single[name], atol=1e-6), name


@pytest.mark.parametrize("name", sorted(BUILDERS))
@pytest.mark.parametrize("mode", ["full", "frozen", "lora_everywhere"])
def test_checkpointed_activations_change_no_gradient(name: str, mode: str) -> None:
    """With frozen embeddings and adapters too, where the reentrant kind of checkpointing finds no gradient at all."""
    found = {}
    for on in (False, True):
        backbone = family(name)
        rows = [solve_row(backbone.prompt_style, p, p.solution) for p in problems(2)]
        torch.manual_seed(0)  # dropout
        found[on] = gradients(backbone, rows, replace(MODES[mode], activation_checkpointing=on))
    assert found[False][0] == pytest.approx(found[True][0], abs=1e-6)
    kept, again = found[False][1], found[True][1]
    assert kept and set(kept) == set(again)
    if mode == "lora_everywhere":
        assert all(".lora_" in parameter for parameter in kept)
        assert any(float(gradient.abs().max()) > 0 for parameter, gradient in again.items() if "vis" in parameter)
    for parameter, gradient in kept.items():
        assert torch.allclose(gradient, again[parameter], atol=1e-6), parameter


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_with_checkpointing_a_layer_runs_again_in_the_backward_pass(name: str) -> None:
    calls = {}
    for on in (False, True):
        backbone = family(name)
        count = [0]
        norms = [m for n, m in backbone.model.named_modules() if n.endswith("layers.0.input_layernorm")]
        norms[-1].register_forward_hook(lambda *_, count=count: count.__setitem__(0, count[0] + 1))
        rows = [solve_row(backbone.prompt_style, p, p.solution) for p in problems(2)]
        gradients(backbone, rows, replace(SETTINGS, activation_checkpointing=on))
        calls[on] = count[0]
    assert calls == {False: 1, True: 2}


@pytest.mark.parametrize("name", sorted(BUILDERS))
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_frozen_tower_keeps_no_graph(name: str, checkpointing: bool) -> None:
    """Also with checkpointing, for which transformers lets the first layers' inputs ask for gradients."""
    for settings in (replace(SETTINGS, freeze=["tower"]), LORA):
        backbone = family(name)
        modes.prepare(backbone, replace(settings, activation_checkpointing=checkpointing), "32-true", seed=0)
        tower = [m for n, m in backbone.model.named_modules() if n.endswith(("visual", "vision_tower", "vision"))]
        graphs: list[bool] = []
        tower[0].register_forward_hook(lambda _, __, out: graphs.append(out.last_hidden_state.requires_grad))  # noqa: B023
        backbone.model.train()
        logits, _ = backbone.answer_logits(
            backbone.collate([solve_row(backbone.prompt_style, p, p.solution) for p in problems(1)])
        )
        assert graphs == [False] and logits.requires_grad


# --- optimiser ------------------------------------------------------------------------------------------------------


def groups_of(settings: Fit, backbone: Backbone) -> list[dict[str, Any]]:
    modes.prepare(backbone, settings, "32-true", seed=0)
    module = SFTModule(
        backbone,
        steps=10,
        optimizer=Optimizer(lr=1e-3, weight_decay=0.1),
        vision_lr_scale=settings.vision_lr_scale,
    )
    return module.configure_optimizers()["optimizer"].param_groups  # type: ignore[no-any-return]


def test_tower_and_connector_have_their_own_rate_and_no_vector_decays() -> None:
    backbone = tiny_backbone()
    groups = groups_of(replace(SETTINGS, vision_lr_scale=0.1), backbone)
    assert [(g["initial_lr"], g["weight_decay"]) for g in groups] == [
        (1e-3, 0.1),
        (1e-3, 0.0),
        (1e-4, 0.1),
        (1e-4, 0.0),
    ]
    where = {id(p): g for g in groups for p in g["params"]}
    for part, name, parameter in iterate_parameters(backbone):
        assert where[id(parameter)]["initial_lr"] == (1e-3 if part == "language" else 1e-4), name
        assert where[id(parameter)]["weight_decay"] == (0.1 if parameter.ndim >= 2 else 0.0), name
    assert len(where) == len(list(backbone.model.parameters()))


def test_only_what_trains_is_optimised() -> None:
    for settings in (FROZEN, LORA, MODES["lora_everywhere"]):
        backbone = tiny_backbone()
        optimised = [p for group in groups_of(settings, backbone) for p in group["params"]]
        assert len({id(p) for p in optimised}) == len(optimised)
        assert {id(p) for p in optimised} == {id(p) for p in backbone.model.parameters() if p.requires_grad}


def test_vectors_do_not_decay_whatever_their_shape_and_adapters_of_rank_one_are_matrices() -> None:
    for shape in ((8,), (), (1, 8), (1, 1, 8)):
        assert is_vector("boi", torch.zeros(shape))
    for shape in ((8, 8), (8, 3, 2, 2), (1, 9, 8)):
        assert not is_vector("weight", torch.zeros(shape))
    assert not is_vector("q_proj.lora_A.default.weight", torch.zeros(1, 8))


def test_marks_of_cogvlm2_and_class_tokens_do_not_decay() -> None:
    for name, vectors in (("cogvlm2", ("boi", "eoi", "cls_embedding")), ("internvl2_5", ("cls_token",))):
        backbone = family(name)
        still = {id(p) for g in groups_of(SETTINGS, backbone) if g["weight_decay"] == 0 for p in g["params"]}
        named = [p for n, p in backbone.model.named_parameters() if n.endswith(vectors)]
        assert len(named) == len(vectors) and all(id(p) in still for p in named)


def test_vision_learns_at_its_own_rate(base: Path, tmp_path: Path, rows: list[Row]) -> None:
    """AdamW's first step is lr in size, whatever the gradient."""
    optimizer = Optimizer(lr=1e-3, weight_decay=0.0, warmup_ratio=0.0)
    settings = replace(SETTINGS, max_steps=1, vision_lr_scale=0.25, optimizer=optimizer)
    after = weights(fit(load("tiny", base), job(tmp_path, rows, settings)))
    moved = {name: float((after[name] - tensor).abs().max()) for name, tensor in weights(base).items()}
    for name, distance in moved.items():
        assert distance == pytest.approx(2.5e-4 if "visual" in name else 1e-3, rel=0.05), name


# --- precision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["frozen", "lora"])
@pytest.mark.parametrize("weights_in", ["float32", "bfloat16"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_every_precision_trains_weights_of_every_dtype(
    base: Path, tmp_path: Path, rows: list[Row], precision: str, weights_in: str, mode: str
) -> None:
    backbone = load("tiny", base, dtype=weights_in)
    loaded, seen = getattr(torch, weights_in), {}
    buffers = {b.dtype for b in backbone.model.buffers()}

    def look(module: SFTModule) -> None:
        for part, name, p in iterate_parameters(module.backbone):
            seen.setdefault("adapter" if ".lora_" in name else "trains" if p.requires_grad else part, set()).add(
                p.dtype
            )
        seen["buffers"] = {b.dtype for b in module.model.buffers()}

    trainer = replace(TRAINER, precision=precision)
    done = fit(backbone, job(tmp_path, rows, MODES[mode], trainer=trainer), [At("on_train_batch_start", look)])
    assert seen.pop("buffers") == buffers, "rotary frequencies in bfloat16 put tokens in wrong places"
    assert seen.pop("adapter", {torch.float32}) == {torch.float32}
    half = precision == "bf16-true"
    assert seen.pop("trains", {torch.float32}) <= {torch.bfloat16 if half else torch.float32, torch.float32}
    still = torch.bfloat16 if half else torch.float32 if precision == "32-true" else loaded
    assert all(dtypes == {still} for dtypes in seen.values())
    assert losses(tmp_path)[-1] < losses(tmp_path)[0] < 10
    assert {t.dtype for t in weights(done).values()} == {loaded}


def test_bfloat16_weights_learn_under_mixed_precision_what_they_could_not_hold(
    base: Path, tmp_path: Path, rows: list[Row]
) -> None:
    """A weight of 0.1 in bfloat16 has steps of 5e-4, so a change of 1e-5 is lost each time anew."""
    moved = {}
    for precision in ("bf16-mixed", "bf16-true"):
        backbone = load("tiny", base, dtype="bfloat16")
        before = {n: p.clone() for n, p in backbone.model.named_parameters()}
        small_steps = replace(SETTINGS, max_steps=10, optimizer=Optimizer(lr=2e-5, weight_decay=0.0))
        fit(backbone, job(tmp_path / precision, rows, small_steps, trainer=replace(TRAINER, precision=precision)))
        moved[precision] = sum(int((p != before[n]).sum()) for n, p in backbone.model.named_parameters())
    assert moved["bf16-mixed"] > 1.5 * moved["bf16-true"]


# --- what is said of it -------------------------------------------------------------------------------------------


def test_what_trains_is_said_before_the_first_step_and_written_down(
    base: Path, tmp_path: Path, rows: list[Row]
) -> None:
    heard: list[TrainingSummary] = []
    settings = replace(MODES["lora_everywhere"], max_steps=1)
    watch = At("on_train_batch_start", lambda _: heard and heard.append(heard[0]))
    fit(load("tiny", base), job(tmp_path, rows, settings), [watch], heard.append)
    assert len(heard) == 2, "said once, and before the step"
    written = json.loads((tmp_path / "trained.json").read_text())
    assert written == heard[0].to_json() and (written["method"], written["precision"]) == ("lora", "32-true")
    whole = sum(p.numel() for p in tiny_backbone().model.parameters())
    by_part = {row["part"]: row for row in written["parts"]}
    assert list(by_part) == ["tower", "connector", "language", "adapters in tower", "adapters in language"]
    assert sum(by_part[part]["parameters"] for part in ("tower", "connector", "language")) == whole
    assert [row["trainable"] == row["parameters"] for row in written["parts"]] == [False, False, False, True, True]
    assert [row["learning_rate"] for row in written["parts"]] == [None, None, None, pytest.approx(5e-4), 5e-3]
    assert written["estimated"]["total"] == sum(
        written["estimated"][name] for name in ("weights", "gradients", "optimiser", "activations")
    )


def test_every_stage_of_a_run_trains_adapters_and_it_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, *TINY, "task=orm", "sft.method=lora", "sft.lora.rank=4")
    said = capsys.readouterr().out
    assert said.count("trained parameters (method=lora, ") == 2  # the ORM's learning rate is another
    assert said.count("adapters in language") == 2
    fitted = {f.parent.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("trained.json")}
    assert fitted == {"orm", "orm/solver", "orm/student_8"}
    for stage in fitted:
        adapter = tmp_path / stage / "checkpoint" / "adapter"
        described = json.loads((adapter / "adapter_config.json").read_text())
        start = load("tiny", adapter / described["base_model_name_or_path"]).model
        merged = PeftModel.from_pretrained(start, adapter).merge_and_unload()
        for name, parameter in load("tiny", adapter.parent).model.named_parameters():
            assert torch.allclose(parameter, merged.get_parameter(name), atol=1e-6), (stage, name)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_over_a_base_in_four_bit_adapters_train_and_end_in_the_whole_base(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, where bitsandbytes can do it too: tower, connector and head stay whole, and the checkpoint is the
    base as it was, with the adapter merged."""
    four_bit = pytest.importorskip("bitsandbytes", reason="needs bitsandbytes (the extra qlora)").nn.Linear4bit
    monkeypatch.setattr(adapters, "require_four_bit", lambda: torch.device("cpu"))
    family(name).save(tmp_path / "base")
    backbone = load(name, tmp_path / "base", dtype="bfloat16")
    rows = [solve_row(backbone.prompt_style, p, p.solution) for p in problems(4)]
    quantised: set[str] = set()

    def look(module: SFTModule) -> None:
        quantised.update(find_part(backbone, n) for n, m in module.model.named_modules() if isinstance(m, four_bit))

    settings = replace(LORA, method="qlora", max_steps=4, lora=replace(LORA.lora, dropout=0.0))
    trainer = Trainer(precision="bf16-mixed", log_every=1)
    done = fit(backbone, job(tmp_path, rows, settings, trainer=trainer), [At("on_train_batch_start", look)])
    assert quantised == {"language"}
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]
    base = load(name, tmp_path / "base", dtype="bfloat16").model
    expected = PeftModel.from_pretrained(base, done / "adapter").merge_and_unload()
    for parameter_name, parameter in load(name, done, dtype="bfloat16").model.named_parameters():
        assert torch.allclose(parameter, expected.get_parameter(parameter_name), atol=1e-2), parameter_name
